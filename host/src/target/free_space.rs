//! Free room on a file system: what does not fit is refused before anything is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::fstatvfs;

/// Bytes that this user may still write into the file system of a file.
///
/// # Errors
/// The I/O error.
pub(super) fn free(file: &File) -> io::Result<u64> {
    let stat = fstatvfs(file)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Checks that there is room for so many bytes in the file system of a file.
///
/// # Errors
/// There is not; or the I/O error.
pub(super) fn check(file: &File, bytes: u64) -> io::Result<()> {
    let free = free(file)?;
    if bytes <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let message = format!("the copy takes {} MiB, and {} MiB are free there", mib(bytes), free >> 20);
    Err(io::Error::new(io::ErrorKind::StorageFull, message))
}

/// Bytes that a file takes on the disk.
///
/// # Errors
/// The I/O error.
pub(super) fn taken(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.blocks().saturating_mul(512))
}
