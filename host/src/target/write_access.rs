//! Checks of write permissions, without writing.
//!
//! They use faccessat(2), which checks the real user; in this program that is also the effective one. A check of the effective user
//! would need faccessat2(2), which a container may refuse with `EPERM`.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::path::Arg;

/// Checks that the caller may create and remove files in a directory.
///
/// # Errors
/// The I/O error, `EACCES` among them.
pub(super) fn may_write_into(directory: impl AsFd) -> io::Result<()> {
    Ok(accessat(directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())?)
}

/// Checks that the caller may write to a file in a directory.
///
/// # Errors
/// The I/O error, `EACCES` among them.
pub(super) fn may_write(directory: impl AsFd, name: impl Arg) -> io::Result<()> {
    Ok(accessat(directory, name, Access::WRITE_OK, AtFlags::empty())?)
}
