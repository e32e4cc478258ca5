//! `--dry-run`: what would be done with a unit, without a write or a call.

use std::io;
use std::path::PathBuf;

use azaion_agent::api_url::ApiUrl;

use super::list::Unit;
use crate::adoption;
use crate::cli::BatchOptions;
use crate::error::Result;
use crate::mark::is_marked;
use crate::pending::unless_intent;
use crate::place::{Place, PlaceError};
use crate::target::{self, Target};

/// Nothing has been done with it yet.
const NEW: &str = "would_create";
/// Its file is in a target, and the API would be asked whether it takes the password.
const BEGUN: &str = "would_resume";
/// An earlier batch has done it.
const DONE: &str = "done";
/// All outcomes of a unit that can be provisioned.
#[cfg(feature = "schema")]
pub(crate) const PLANNED: [&str; 3] = [NEW, BEGUN, DONE];

pub(super) fn plan(
    options: &BatchOptions,
    api: &ApiUrl,
    has_base: bool,
    unit: &Unit,
    paths: &[PathBuf],
) -> Result<String> {
    let mut states = Vec::new();
    for path in paths {
        // The directories on the way may be missing, too, and would be made.
        let is_missing = match Place::find(path) {
            Ok(place) => !place.is_found(),
            Err(PlaceError::Io(error)) => error.kind() == io::ErrorKind::NotFound,
            Err(PlaceError::Unsafe(_)) => false,
        };
        let is_to_be_made = has_base && is_missing;
        states.push(if is_to_be_made { NEW } else { state(options, api, unit, target::open(path)?.as_ref())? });
    }
    let all = |state: &str| states.iter().all(|other| *other == state);
    let outcome = match () {
        () if all(NEW) => NEW,
        () if all(DONE) && !options.job.verify => DONE,
        () => BEGUN,
    };
    Ok(outcome.to_owned())
}

fn state(options: &BatchOptions, api: &ApiUrl, unit: &Unit, target: &dyn Target) -> Result<&'static str> {
    target.may_write(options.job.owner.owner)?;
    let found = target.look()?;
    let Some(found) = unless_intent(target, found.as_ref()) else { return Ok(NEW) };
    let ours = adoption::ours(target, found, &unit.serial, options.job.replace)?
        .filter(|conf| adoption::objection(target.kind(), found, conf, options.job.owner.owner, api).is_none());
    Ok(match ours {
        Some(_) if is_marked(&found.bytes) => DONE,
        Some(_) => BEGUN,
        None => NEW,
    })
}
