//! Whether the caller may write somewhere, found out without writing.
//!
//! By faccessat(2), for the real user, who is the effective one, too. For the effective user it takes faccessat2(2), which is what
//! the C library calls in any case, and which a container may refuse with `EPERM`.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::path::Arg;

/// Whether the caller may make and remove files in a directory.
///
/// # Errors
/// The I/O error, `EACCES` among them.
pub(super) fn may_write_into(directory: impl AsFd) -> io::Result<()> {
    Ok(accessat(directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())?)
}

/// Whether the caller may write to a file in a directory.
///
/// # Errors
/// The I/O error, `EACCES` among them.
pub(super) fn may_write(directory: impl AsFd, name: impl Arg) -> io::Result<()> {
    Ok(accessat(directory, name, Access::WRITE_OK, AtFlags::empty())?)
}
