//! The frame with the slot, and the locator frame.
//!
//! The slot's frame is one raw block, so that the bytes in the file are those of the content. It has no frame checksum, because a
//! power cut during a write would make that wrong; the slot's own checksum line detects such a write. The last frame of the file,
//! the locator, is a skippable frame that contains the offset of the slot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::frame::{MAGIC, last_raw_block, skippable_header};
use crate::target::image::slot;

/// Bytes before the content: magic number, descriptor, content size (four bytes), block header.
pub(super) const HEADER: u64 = HEADER_BYTES as u64;
const HEADER_BYTES: usize = 12;
/// The frame header descriptor: content size of four bytes, a single segment, no checksum.
const DESCRIPTOR: u8 = 0xa0;

/// The text of the locator before the offset.
const TEXT: &str = "azaion-provision: the slot is at byte ";
/// Digits of the offset.
const NUMBER: usize = 20;
/// Bytes of the locator.
pub(super) const LOCATOR: u64 = LOCATOR_BYTES as u64;
const LOCATOR_BYTES: usize = 8 + TEXT.len() + NUMBER + 1;

/// Returns the bytes before the content of a frame with `length` bytes, at most [`super::frame::LONGEST_BLOCK`].
pub(super) fn header(length: u64) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(length).unwrap_or_default();
    let mut header = [0; HEADER_BYTES];
    let fields = [&MAGIC[..], &[DESCRIPTOR], &length.to_le_bytes(), &last_raw_block(length)];
    header.iter_mut().zip(fields.concat()).for_each(|(byte, of_field)| *byte = of_field);
    header
}

/// Returns the locator for a slot at `offset`.
pub(super) fn locator(offset: u64) -> Vec<u8> {
    let text = format!("{TEXT}{offset:0NUMBER$}\n");
    [skippable_header(u32::try_from(text.len()).unwrap_or_default()), text.into_bytes()].concat()
}

/// Returns the offset in the locator at the end of a file, if there is one. The slot itself is not validated.
///
/// # Errors
/// The I/O error.
pub(super) fn located(file: &File) -> io::Result<Option<u64>> {
    let Some(start) = file.metadata()?.len().checked_sub(LOCATOR) else { return Ok(None) };
    let mut bytes = [0; LOCATOR_BYTES];
    file.read_exact_at(&mut bytes, start)?;
    let number = bytes.get(LOCATOR_BYTES - NUMBER - 1..LOCATOR_BYTES - 1).unwrap_or_default();
    let offset = std::str::from_utf8(number).ok().and_then(|digits| digits.parse().ok());
    Ok(offset.filter(|&offset| {
        locator(offset) == bytes && offset.checked_add(slot::SIZE as u64).is_some_and(|end| end <= start)
    }))
}

/// Returns the content at `start`, if a slot frame of this program with `length` bytes of content is there.
///
/// # Errors
/// The I/O error.
pub(super) fn content(file: &File, start: u64, length: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(frame) = start.checked_sub(HEADER) else { return Ok(None) };
    let mut found = [0; HEADER_BYTES];
    file.read_exact_at(&mut found, frame)?;
    if found != header(length) {
        return Ok(None);
    }
    let mut content = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or_default()]);
    file.read_exact_at(&mut content, start)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::image::fixture::put;

    // Promise: a locator is found at the end of a file if the slot ends before it; nothing else is mistaken for one.
    #[test]
    fn located_slots() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let find = |bytes: &[u8]| {
            put(&path, bytes);
            located(&File::open(&path).unwrap()).unwrap()
        };
        let before = vec![7; 5000];
        let with = |offset| [before.clone(), locator(offset)].concat();
        assert_eq!(find(&with(904)), Some(904));
        assert_eq!(find(&with(0)), Some(0));
        assert_eq!(find(&with(905)), None);
        assert_eq!(find(&with(u64::MAX)), None);
        assert_eq!(find(&[with(904).as_slice(), b"x"].concat()), None);
        assert_eq!(find(&locator(0)[1..]), None);
        assert_eq!(find(b""), None);
        let signed = String::from_utf8_lossy(&locator(904)).replace("0000000904", "+000000904").into_bytes();
        assert_eq!(find(&[before, signed].concat()), None);
    }
}
