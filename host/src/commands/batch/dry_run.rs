//! `--dry-run`: determines what a batch would do with a device, without writing files or calling the API.

use std::io;
use std::path::PathBuf;

use azaion_agent::api::url::ApiUrl;

use super::list::ListedDevice;
use crate::cli::BatchOptions;
use crate::error::Result;
use crate::provision::adoption;
use crate::provision::intent::filter_intent;
use crate::resolved_path::{PathError, ResolvedPath};
use crate::target::confirmation::is_confirmed;
use crate::target::{self, Target};

/// What a batch would do with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Create its account: nothing has been done yet.
    Create,
    /// Try the password in its `device.conf`, and continue from there.
    Resume,
    /// Nothing: an earlier batch has confirmed it.
    Nothing,
}

impl Plan {
    #[cfg(feature = "schema")]
    pub(crate) const ALL: [Self; 3] = [Self::Create, Self::Resume, Self::Nothing];

    /// Returns the name in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "would_create",
            Self::Resume => "would_resume",
            Self::Nothing => "done",
        }
    }
}

/// Returns what a batch would do with a device.
pub(super) fn plan(
    options: &BatchOptions,
    api: &ApiUrl,
    has_template: bool,
    device: &ListedDevice,
    paths: &[PathBuf],
) -> Result<Plan> {
    let mut plans = Vec::new();
    for path in paths {
        // Directories on the way may be missing as well, and would be created.
        let is_missing = match ResolvedPath::find(path) {
            Ok(resolved) => !resolved.is_found(),
            Err(PathError::Io(error)) => error.kind() == io::ErrorKind::NotFound,
            Err(PathError::Unsafe(_)) => false,
        };
        let is_to_be_copied = has_template && is_missing;
        plans.push(if is_to_be_copied {
            Plan::Create
        } else {
            plan_of_target(options, api, device, target::open(path)?.as_ref())?
        });
    }
    let are_all = |plan: Plan| plans.iter().all(|other| *other == plan);
    Ok(match () {
        () if are_all(Plan::Create) => Plan::Create,
        () if are_all(Plan::Nothing) && !options.job.verify => Plan::Nothing,
        () => Plan::Resume,
    })
}

/// Returns what a batch would do with one target of a device.
fn plan_of_target(options: &BatchOptions, api: &ApiUrl, device: &ListedDevice, target: &dyn Target) -> Result<Plan> {
    target.may_write(options.job.owner.owner)?;
    let found = target.read_conf()?;
    let Some(found) = filter_intent(target, found.as_ref()) else { return Ok(Plan::Create) };
    let ours = adoption::ours(target, found, &device.serial, options.job.replace)?
        .filter(|conf| adoption::objection(target.kind(), found, conf, options.job.owner.owner, api).is_none());
    Ok(match ours {
        Some(_) if is_confirmed(&found.bytes) => Plan::Nothing,
        Some(_) => Plan::Resume,
        None => Plan::Create,
    })
}
