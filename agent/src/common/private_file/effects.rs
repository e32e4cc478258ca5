//! The effects of writing that a power cut can come between, told to a simulation where one runs.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

#[cfg(feature = "simulation")]
use crate::simulation::{Effect, report};

/// Writes a file, or the names of a directory, through to the disk.
pub(super) fn fsync(file: BorrowedFd<'_>) -> nix::Result<()> {
    nix::unistd::fsync(file)?;
    #[cfg(feature = "simulation")]
    report(&Effect::Synced(file));
    Ok(())
}

/// A name of the directory stands for a new file.
#[cfg_attr(not(feature = "simulation"), expect(unused_variables, reason = "nobody is told"))]
pub(super) fn named(dir: BorrowedFd<'_>, name: &OsStr) {
    #[cfg(feature = "simulation")]
    report(&Effect::Named(dir, name.as_ref()));
}

/// A name is gone from the directory.
#[cfg_attr(not(feature = "simulation"), expect(unused_variables, reason = "nobody is told"))]
pub(super) fn removed(dir: BorrowedFd<'_>, name: &OsStr) {
    #[cfg(feature = "simulation")]
    report(&Effect::Removed(dir, name.as_ref()));
}
