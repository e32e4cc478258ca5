//! Copies image files and parts of them, and keeps holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use rustix::fs::copy_file_range;
use zeroize::Zeroizing;

use crate::interrupt;

/// Bytes that are copied at a time if the kernel cannot copy.
const CHUNK: usize = 1 << 18;
/// Bytes that the kernel copies at a time, so that a signal is handled soon.
const PART: u64 = 64 << 20;
/// Bytes after which a copy is synced: a single sync at the end of a large copy could delay the handling of a signal
/// for too long.
const UNSYNCED: u64 = 4 * PART;

/// Copies `length` bytes at offset `start` of a file to offset `at` of another; the kernel copies if it can
/// (`copy_file_range(2)`). Uses explicit offsets, because several threads may copy from one file and share its
/// position.
///
/// # Errors
/// The I/O error. If the source ends before `length` bytes, that is one.
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
            // The file systems or the kernel do not support it.
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::NOTSUP | Errno::PERM) => {
                return read_and_write(from, source, to, sink, end - source);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn read_and_write(from: &File, mut start: u64, to: &File, mut at: u64, mut length: u64) -> io::Result<()> {
    // The data may contain a password.
    let mut buffer = Zeroizing::new(vec![0; CHUNK]);
    while length > 0 {
        interrupt::check()?;
        let size = usize::try_from(length).map_or(CHUNK, |length| length.min(CHUNK));
        let chunk = buffer.get_mut(..size).unwrap_or_default();
        from.read_exact_at(chunk, start)?;
        to.write_all_at(chunk, at)?;
        (start, at, length) = (start + size as u64, at + size as u64, length - size as u64);
    }
    Ok(())
}

/// Copies a whole file into an empty one, and keeps its holes.
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

/// Returns the next part of a file between `from` and `limit` that is not a hole (lseek(2), `SEEK_DATA`). A file system
/// without holes reports everything as data.
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
            Ok(offset) => Ok(u64::try_from(offset).ok()),
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

    /// Returns a file in which all words differ, with a hole in it, and its content.
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

    // Promise: several threads that copy from one file at the same time each get a complete copy.
    #[test]
    fn concurrent_copies_are_complete() {
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

    // Promise: if the kernel cannot copy, the result is the same; with and without it, a source that ends early is an
    // error.
    #[test]
    fn result_is_the_same_without_the_kernel() {
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
