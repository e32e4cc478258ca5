//! Reading parts of images into SHA-1.

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

/// What reading a whole image gives.
pub(super) struct Hashes {
    /// The state after the base.
    pub(super) base: Sha1,
    /// The sum of what lies behind the bytes that change.
    pub(super) rest: String,
    /// The sum of all as it is.
    pub(super) whole: String,
}

pub(super) fn size(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// Shows all bytes of a part to `take`.
pub(super) fn feed(file: &File, part: Part, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    // What follows a base holds a password.
    let at_a_time = |left: u64| usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
    let mut buffer = Zeroizing::new(vec![0; at_a_time(part.end.saturating_sub(part.start))]);
    let mut at = part.start;
    while at < part.end {
        interrupt::check()?;
        let length = at_a_time(part.end - at);
        let chunk = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(chunk, at)?;
        take(chunk);
        at += length as u64;
    }
    Ok(())
}

/// Reads a file once. The base ends where `changing` starts.
pub(super) fn read(file: &File, changing: &Part) -> io::Result<Hashes> {
    let (size, mut base, mut rest) = (size(file)?, Sha1::new(), Sha1::new());
    feed(file, 0..changing.start, |bytes| base.update(bytes))?;
    let mut whole = base.clone();
    let end = changing.end.min(size);
    feed(file, changing.start..end, |bytes| whole.update(bytes))?;
    feed(file, end..size, |bytes| {
        whole.update(bytes);
        rest.update(bytes);
    })?;
    Ok(Hashes { base, rest: hex(rest), whole: hex(whole) })
}

/// The sum of a whole file.
pub(super) fn whole(file: &File) -> io::Result<String> {
    let mut whole = Sha1::new();
    feed(file, 0..size(file)?, |bytes| whole.update(bytes))?;
    Ok(hex(whole))
}
