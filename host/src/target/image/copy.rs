//! Copies of parts of image files, holes and all.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use rustix::fs::copy_file_range;
use zeroize::Zeroizing;

use crate::interrupt;

/// Bytes that are copied at a time where the kernel does not do it.
const CHUNK: usize = 1 << 18;
/// Bytes that the kernel copies at a time, so that a signal is heeded soon.
const PART: u64 = 64 << 20;
/// Bytes after which a copy is synced: to sync all of a large one at its end may take longer than a signal may wait.
const UNSYNCED: u64 = 4 * PART;

/// Copies a part of a file into another; the kernel does it where it can (`copy_file_range(2)`). By offsets of its own: several
/// threads may copy from one file, whose position they share.
///
/// # Errors
/// The I/O error; that the part is cut is one.
pub(super) fn copy(from: &File, start: u64, to: &File, at: u64, length: u64) -> io::Result<()> {
    use rustix::io::Errno;
    let (mut source, mut sink, end) = (start, at, start + length);
    let mut synced = at;
    while source < end {
        interrupt::check()?;
        if sink - synced >= UNSYNCED {
            to.sync_data()?;
            synced = sink;
        }
        let left = usize::try_from((end - source).min(PART)).unwrap_or(CHUNK);
        match copy_file_range(from, Some(&mut source), to, Some(&mut sink), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            // Not between these two file systems, or not from this kernel.
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::NOTSUP | Errno::PERM) => {
                return read_and_write(from, source, to, sink, end - source);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn read_and_write(from: &File, mut start: u64, to: &File, mut at: u64, mut length: u64) -> io::Result<()> {
    // It may hold a password.
    let mut buffer = Zeroizing::new(vec![0; CHUNK]);
    while length > 0 {
        interrupt::check()?;
        let most = usize::try_from(length).map_or(CHUNK, |length| length.min(CHUNK));
        let chunk = buffer.get_mut(..most).unwrap_or_default();
        from.read_exact_at(chunk, start)?;
        to.write_all_at(chunk, at)?;
        (start, at, length) = (start + most as u64, at + most as u64, length - most as u64);
    }
    Ok(())
}

/// Copies a whole file into an empty one; what is a hole stays one.
///
/// # Errors
/// The I/O error.
pub(crate) fn copy_with_holes(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut done = 0;
    while let Some(data) = data_after(from, done, size)? {
        copy(from, data.start, to, data.start, data.end - data.start)?;
        done = data.end;
    }
    Ok(())
}

/// The next part of a file that is no hole (lseek(2), `SEEK_DATA`), not beyond `limit`. A file system that knows no
/// holes says that all is data.
///
/// # Errors
/// The I/O error.
pub(super) fn data_after(file: &File, from: u64, limit: u64) -> io::Result<Option<Range<u64>>> {
    if from >= limit {
        return Ok(None);
    }
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
        match lseek(file, from, whence) {
            Ok(place) => Ok(u64::try_from(place).ok()),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(io::Error::from(errno)),
        }
    };
    let Some(start) = seek(from, Whence::SeekData)?.filter(|&start| start < limit) else { return Ok(None) };
    let end = seek(start, Whence::SeekHole)?.unwrap_or(limit);
    Ok(Some(start..end.min(limit)))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A file whose every word is another, with a hole in it.
    fn template() -> (File, Vec<u8>) {
        let mut bytes: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
        bytes[1 << 20..2 << 20].fill(0);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes[..1 << 20], 0).unwrap();
        file.write_all_at(&bytes[2 << 20..], 2 << 20).unwrap();
        (file, bytes)
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    // Promise: several threads that copy from one file each get all of it.
    #[test]
    fn at_the_same_time() {
        let (file, bytes) = template();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let copy = tempfile::tempfile().unwrap();
                        copy_with_holes(&file, &copy).unwrap();
                        assert!(content(&copy) == bytes);
                    }
                });
            }
        });
    }

    // Promise: where the kernel can't copy, the result is the same; a part that is cut is an error, either way.
    #[test]
    fn without_the_kernel() {
        let (file, bytes) = template();
        for copy_part in [copy, read_and_write] {
            let into = tempfile::tempfile().unwrap();
            copy_part(&file, 5, &into, 3, 3_000_000).unwrap();
            assert!(content(&into)[3..] == bytes[5..3_000_005]);
            let size = bytes.len() as u64;
            let error = copy_part(&file, size - 5, &into, 0, 6).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
