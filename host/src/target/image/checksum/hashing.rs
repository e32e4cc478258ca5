//! SHA-1 of parts of images.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::Part;
use super::hex;
use crate::interrupt;

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 18;

/// The hashes of a whole image.
pub(super) struct Hashes {
    /// The state of SHA-1 after the prefix.
    pub(super) prefix: Sha1,
    /// The checksum of the rest, behind the bytes that change.
    pub(super) rest: String,
    /// The checksum of the whole image.
    pub(super) whole: String,
}

/// Returns the size of a file in bytes.
pub(super) fn size(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// Passes all bytes of a part of a file to `take`, in chunks.
pub(super) fn feed(file: &File, part: Part, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    // Zeroizing: a part may contain a password.
    let chunk_length = |left: u64| usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
    let mut buffer = Zeroizing::new(vec![0; chunk_length(part.end.saturating_sub(part.start))]);
    let mut offset = part.start;
    while offset < part.end {
        interrupt::check()?;
        let length = chunk_length(part.end - offset);
        let chunk = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(chunk, offset)?;
        take(chunk);
        offset += length as u64;
    }
    Ok(())
}

/// Reads a file once and hashes its parts. The prefix ends where `changing` starts.
pub(super) fn read(file: &File, changing: &Part) -> io::Result<Hashes> {
    let (size, mut prefix, mut rest) = (size(file)?, Sha1::new(), Sha1::new());
    feed(file, 0..changing.start, |bytes| prefix.update(bytes))?;
    let mut whole = prefix.clone();
    let end = changing.end.min(size);
    feed(file, changing.start..end, |bytes| whole.update(bytes))?;
    feed(file, end..size, |bytes| {
        whole.update(bytes);
        rest.update(bytes);
    })?;
    Ok(Hashes { prefix, rest: hex(rest), whole: hex(whole) })
}

/// Returns the checksum of a whole file.
pub(super) fn whole(file: &File) -> io::Result<String> {
    let mut whole = Sha1::new();
    feed(file, 0..size(file)?, |bytes| whole.update(bytes))?;
    Ok(hex(whole))
}
