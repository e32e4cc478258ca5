//! Reading parts of images into SHA-1.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::{Part, hex};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 18;

/// Bytes that are to take the place of others in a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::target) struct Blank {
    pub(in crate::target) start: u64,
    pub(in crate::target) text: Vec<u8>,
}

impl Blank {
    /// Puts it into bytes that start at an offset.
    pub(in crate::target) fn put_into(&self, bytes: &mut [u8], start: u64) {
        for (offset, &byte) in (self.start..).zip(&self.text) {
            let place = offset.checked_sub(start).and_then(|place| usize::try_from(place).ok());
            if let Some(there) = place.and_then(|place| bytes.get_mut(place)) {
                *there = byte;
            }
        }
    }

    fn part(&self) -> Part {
        self.start..self.start.saturating_add(self.text.len() as u64)
    }
}

/// What reading a whole image gives.
pub(super) struct Hashes {
    /// The state after the base, with the blanks in it.
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
        let length = at_a_time(part.end - at);
        let chunk = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(chunk, at)?;
        take(chunk);
        at += length as u64;
    }
    Ok(())
}

/// Reads a file once. The blanks lie in the base, one behind the other; the base ends where `changing` starts.
pub(super) fn read(file: &File, changing: &Part, blanks: &[Blank]) -> io::Result<Hashes> {
    let (end, size) = (changing.start, size(file)?);
    let (mut whole, mut rest) = (Sha1::new(), Sha1::new());
    // Up to the first blank, both are one.
    let mut at = blanks.first().map_or(end, |blank| blank.start);
    feed(file, 0..at, |bytes| whole.update(bytes))?;
    let mut base = whole.clone();
    for blank in blanks {
        let part = blank.part();
        feed(file, at..part.start, |bytes| both(&mut base, &mut whole, bytes))?;
        feed(file, part.clone(), |bytes| whole.update(bytes))?;
        base.update(&blank.text);
        at = part.end;
    }
    feed(file, at..end, |bytes| both(&mut base, &mut whole, bytes))?;
    let next = changing.end.min(size);
    feed(file, end..next, |bytes| whole.update(bytes))?;
    feed(file, next..size, |bytes| both(&mut rest, &mut whole, bytes))?;
    Ok(Hashes { base, rest: hex(rest), whole: hex(whole) })
}

fn both(part: &mut Sha1, whole: &mut Sha1, bytes: &[u8]) {
    part.update(bytes);
    whole.update(bytes);
}

/// The sum of a whole file.
pub(super) fn whole(file: &File) -> io::Result<String> {
    let mut whole = Sha1::new();
    feed(file, 0..size(file)?, |bytes| whole.update(bytes))?;
    Ok(hex(whole))
}

/// Reads the base alone.
pub(super) fn read_base(file: &File, end: u64, blanks: &[Blank]) -> io::Result<Sha1> {
    let mut base = Sha1::new();
    let mut at = 0;
    for blank in blanks {
        let part = blank.part();
        feed(file, at..part.start, |bytes| base.update(bytes))?;
        base.update(&blank.text);
        at = part.end;
    }
    feed(file, at..end, |bytes| base.update(bytes))?;
    Ok(base)
}
