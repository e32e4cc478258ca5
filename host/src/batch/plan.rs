//! `--dry-run`: what would be done with a unit, without a write or a call.

use std::path::PathBuf;

use super::list::Unit;
use crate::cli::BatchOptions;
use crate::mark::is_marked;
use crate::place::Place;
use crate::provision;
use crate::target::{self, Target};

/// Nothing has been done with it yet.
const NEW: &str = "would_create";
/// Its file is in a target, and the API would be asked whether it takes the password.
const BEGUN: &str = "would_resume";
/// An earlier batch has done it.
const DONE: &str = "done";

pub(super) fn plan(options: &BatchOptions, has_base: bool, unit: &Unit, paths: &[PathBuf]) -> anyhow::Result<String> {
    let mut states = Vec::new();
    for path in paths {
        // The directories on the way may be missing, too, and would be made.
        let place = Place::find(path).ok().filter(Place::is_found);
        states.push(match place {
            None if has_base => NEW,
            Some(place) => state(options, unit, target::open_at(place)?.as_ref())?,
            None => state(options, unit, target::open(path)?.as_ref())?,
        });
    }
    let all = |state: &str| states.iter().all(|other| *other == state);
    let outcome = match () {
        () if all(NEW) => NEW,
        () if all(DONE) && !options.job.verify => DONE,
        () => BEGUN,
    };
    Ok(outcome.to_owned())
}

fn state(options: &BatchOptions, unit: &Unit, target: &dyn Target) -> anyhow::Result<&'static str> {
    target.may_write(options.job.owner.owner)?;
    let Some(found) = target.look()? else { return Ok(NEW) };
    Ok(match provision::ours(target, &found, &unit.serial, options.job.replace)? {
        Some(_) if is_marked(&found.bytes) => DONE,
        Some(_) => BEGUN,
        None => NEW,
    })
}
