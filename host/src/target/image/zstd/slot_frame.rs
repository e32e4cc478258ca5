//! The frame with the slot: one raw block, so that the bytes in the file are those of the content. It has no checksum, which a
//! power cut in the middle of a write would make wrong; the slot's own checksum line tells that. The last frame of the file
//! is a skippable one that says where the slot lies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::frame::{MAGIC, last_raw_block, skippable_header};
use crate::target::image::slot;

/// Bytes before the content: magic number, descriptor, content size of four bytes, block header.
pub(super) const HEADER: u64 = HEADER_BYTES as u64;
const HEADER_BYTES: usize = 12;
/// A descriptor: content size of four bytes, a single segment, no checksum.
const DESCRIPTOR: u8 = 0xa0;

/// What the locator says before the offset.
const TEXT: &str = "azaion-provision: the slot is at byte ";
/// Digits of the offset, and a newline.
const NUMBER: usize = 20;
/// Bytes of the locator.
pub(super) const LOCATOR: u64 = LOCATOR_BYTES as u64;
const LOCATOR_BYTES: usize = 8 + TEXT.len() + NUMBER + 1;

/// The bytes before the content of a frame with `length` bytes, at most [`super::frame::LONGEST_BLOCK`].
pub(super) fn header(length: u64) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(length).unwrap_or_default();
    let mut header = [0; HEADER_BYTES];
    let fields = [&MAGIC[..], &[DESCRIPTOR], &length.to_le_bytes(), &last_raw_block(length)];
    header.iter_mut().zip(fields.concat()).for_each(|(byte, of_field)| *byte = of_field);
    header
}

/// The skippable frame that says where the slot lies.
pub(super) fn locator(place: u64) -> Vec<u8> {
    let text = format!("{TEXT}{place:0NUMBER$}\n");
    [skippable_header(u32::try_from(text.len()).unwrap_or_default()), text.into_bytes()].concat()
}

/// The offset of the slot by the locator at the end of a file, if there is one. Whether there is a slot is not known by that.
///
/// # Errors
/// The I/O error.
pub(super) fn located(file: &File) -> io::Result<Option<u64>> {
    let Some(start) = file.metadata()?.len().checked_sub(LOCATOR) else { return Ok(None) };
    let mut bytes = [0; LOCATOR_BYTES];
    file.read_exact_at(&mut bytes, start)?;
    let number = bytes.get(LOCATOR_BYTES - NUMBER - 1..LOCATOR_BYTES - 1).unwrap_or_default();
    let place = std::str::from_utf8(number).ok().and_then(|digits| digits.parse().ok());
    Ok(place.filter(|&place| {
        locator(place) == bytes && place.checked_add(slot::SIZE as u64).is_some_and(|end| end <= start)
    }))
}

/// The content of the frame of ours that has `length` bytes and starts with the byte at `start`, if there is one.
///
/// # Errors
/// The I/O error.
pub(super) fn content(file: &File, start: u64, length: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(frame) = start.checked_sub(HEADER) else { return Ok(None) };
    let mut there = [0; HEADER_BYTES];
    file.read_exact_at(&mut there, frame)?;
    if there != header(length) {
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

    // Promise: the locator is found at the end of a file, if its slot can lie before it; nothing else is taken for one.
    #[test]
    fn located_slots() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let find = |bytes: &[u8]| {
            put(&path, bytes);
            located(&File::open(&path).unwrap()).unwrap()
        };
        let before = vec![7; 5000];
        let with = |place| [before.clone(), locator(place)].concat();
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
