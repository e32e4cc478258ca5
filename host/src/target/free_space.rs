//! Free space on a file system, checked before anything is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::fstatvfs;

/// Returns the bytes that this user may still write to the file system that holds `file`.
///
/// # Errors
/// The I/O error.
pub(super) fn free(file: &File) -> io::Result<u64> {
    let stat = fstatvfs(file)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Checks that the file system that holds `file` has `bytes` free.
///
/// # Errors
/// It has less (`StorageFull`), or the I/O error.
pub(super) fn check(file: &File, bytes: u64) -> io::Result<()> {
    let free = free(file)?;
    if bytes <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let message = format!("the copy takes {} MiB, but only {} MiB are free there", mib(bytes), free >> 20);
    Err(io::Error::new(io::ErrorKind::StorageFull, message))
}

/// Returns the bytes that a file occupies on the disk; holes do not count.
///
/// # Errors
/// The I/O error.
pub(super) fn taken(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.blocks().saturating_mul(512))
}
