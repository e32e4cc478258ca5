//! Copies of parts of image files, holes and all.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Copies a part of a file into another; the kernel does it where it can (`copy_file_range(2)`).
///
/// # Errors
/// The I/O error; that the part is cut is one.
pub(super) fn copy(from: &File, start: u64, to: &File, at: u64, length: u64) -> io::Result<()> {
    let (mut source, mut sink) = (from, to);
    source.seek(SeekFrom::Start(start))?;
    sink.seek(SeekFrom::Start(at))?;
    let copied = io::copy(&mut source.take(length), &mut sink)?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Copies a whole file into an empty one; what is a hole stays one.
///
/// # Errors
/// The I/O error.
pub(super) fn copy_with_holes(from: &File, to: &File) -> io::Result<()> {
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
