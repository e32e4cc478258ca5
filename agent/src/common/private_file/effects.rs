//! File-system effects between which a power cut can occur; a running simulation is notified of each.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

#[cfg(feature = "simulation")]
use crate::simulation::{Effect, report};

/// Flushes a file, or the entries of a directory, to the disk (fsync(2)).
pub(super) fn fsync(file: BorrowedFd<'_>) -> nix::Result<()> {
    nix::unistd::fsync(file)?;
    #[cfg(feature = "simulation")]
    report(&Effect::Synced(file));
    Ok(())
}

/// Notifies the simulation that a name of the directory refers to a new file.
#[cfg_attr(not(feature = "simulation"), expect(unused_variables, reason = "only the simulation uses them"))]
pub(super) fn named(dir: BorrowedFd<'_>, name: &OsStr) {
    #[cfg(feature = "simulation")]
    report(&Effect::Named(dir, name.as_ref()));
}

/// Notifies the simulation that a name was removed from the directory.
#[cfg_attr(not(feature = "simulation"), expect(unused_variables, reason = "only the simulation uses them"))]
pub(super) fn removed(dir: BorrowedFd<'_>, name: &OsStr) {
    #[cfg(feature = "simulation")]
    report(&Effect::Removed(dir, name.as_ref()));
}
