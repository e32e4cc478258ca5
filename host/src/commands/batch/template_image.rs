//! What a missing target is copied from.

use std::path::Path;

use azaion_agent::common::exit::Exit;

use crate::error::{Result, failure};
use crate::target::template::Template;
use crate::target::{self, Target};

/// Refuses a base with a device in it, and gives an image its slot, so that its copies have one. While the target that comes with
/// it is held, nobody else provisions it.
pub(super) fn open(path: &Path, is_dry: bool) -> Result<(Template, Box<dyn Target>)> {
    let target = target::open(path)?;
    if let Some(found) = target.read_conf()? {
        let whose = found.conf(path).map_or_else(|_| "somebody".to_owned(), |conf| conf.whose().to_owned());
        let message = format!("the base {} holds the device.conf of {whose}; clear it first", path.display());
        return Err(failure(Exit::Exists, message));
    }
    if !is_dry {
        target.prepare()?;
    }
    Ok((target.template()?, target))
}
