//! Opens the template image that missing targets are copied from.

use std::path::Path;

use azaion_agent::common::exit::Exit;

use crate::error::{Result, failure};
use crate::target::template::Template;
use crate::target::{self, Target};

/// Opens a template. Refuses one that holds a device's identity, and creates the slot in an image, so that its copies have it. The
/// returned target holds the lock of the template: while it exists, no other run can provision the template.
pub(super) fn open(path: &Path, is_dry_run: bool) -> Result<(Template, Box<dyn Target>)> {
    let target = target::open(path)?;
    if let Some(found) = target.read_conf()? {
        let whose = found.conf(path).map_or_else(|_| "an unknown device".to_owned(), |conf| conf.whose().to_owned());
        let message = format!("the template {} holds the device.conf of {whose}; clear it first", path.display());
        return Err(failure(Exit::Exists, message));
    }
    if !is_dry_run {
        target.prepare()?;
    }
    Ok((target.template()?, target))
}
