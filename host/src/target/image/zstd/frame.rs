//! The layout of zstd frames: frame headers, block headers, and skippable frames. The library decodes the content of the blocks.
//!
//! Source: RFC 8878, sections 3.1.1 and 3.1.2. Numbers from a file are never trusted.

use crate::target::error::Result;
use crate::target::image::problem::Problem;

/// The magic number of a frame.
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The magic number of skippable frames, whose lowest four bits may have any value.
const SKIPPABLE: u32 = 0x184D_2A50;
/// Bytes of the header of a skippable frame: magic number and length.
pub const SKIPPABLE_HEADER: usize = 8;
/// The longest frame header, in bytes, with its magic number.
pub const LONGEST_HEADER: usize = 18;
/// Bytes of a block header.
pub const BLOCK_HEADER: usize = 3;
/// The largest block, in bytes, before and after decompression.
pub const LONGEST_BLOCK: u32 = 128 << 10;
/// Bytes of a content checksum.
pub const CHECKSUM: u64 = 4;

/// The largest window, in bytes, that `zstd -d` accepts without an option.
const LARGEST_WINDOW: u64 = 128 << 20;

/// Bits of the frame header descriptor.
const SINGLE_SEGMENT: u8 = 0x20;
const RESERVED: u8 = 0x08;
const HAS_CHECKSUM: u8 = 0x04;

/// Returns the error for a malformed stream.
pub(super) fn damaged(how: &'static str) -> Problem {
    Problem::Damaged { what: "zstd stream", how, advice: "generate the images again" }
}

/// A frame header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The frame header descriptor.
    descriptor: u8,
    /// The bytes between the descriptor and the content size: window descriptor and dictionary id.
    window: Vec<u8>,
    /// Bytes of content, if the header says so.
    pub content_size: Option<u64>,
}

impl FrameHeader {
    /// Parses the header at the start of `bytes`, and returns it with its length.
    ///
    /// # Errors
    /// The header is cut short or malformed, or needs a dictionary or a window of more than 128 MiB.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), Problem> {
        let cut = damaged("a frame header is cut short");
        let Some((&descriptor, rest)) = bytes.strip_prefix(&MAGIC).and_then(<[u8]>::split_first) else {
            return Err(cut);
        };
        if descriptor & RESERVED != 0 {
            return Err(damaged("a frame header has a reserved bit set"));
        }
        let is_single = descriptor & SINGLE_SEGMENT != 0;
        let window_length = usize::from(!is_single) + (1 << (descriptor & 3) >> 1);
        let size_length = size_length(descriptor);
        let Some((window, rest)) = rest.split_at_checked(window_length) else { return Err(cut) };
        let Some(size) = rest.get(..size_length) else { return Err(cut) };
        let header = Self { descriptor, window: window.to_vec(), content_size: content_size(size) };
        if window.get(usize::from(!is_single)..).is_some_and(|dictionary| dictionary.iter().any(|&byte| byte != 0)) {
            return Err(Problem::Refused("needs a zstd dictionary; compress it without one"));
        }
        if header.window_size() > LARGEST_WINDOW {
            return Err(Problem::Refused(
                "has a zstd window of more than 128 MiB, which the flasher's zstd refuses; compress it with --long=27 or less",
            ));
        }
        Ok((header, MAGIC.len() + 1 + window_length + size_length))
    }

    /// Returns whether a content checksum follows the last block.
    pub fn has_checksum(&self) -> bool {
        self.descriptor & HAS_CHECKSUM != 0
    }

    /// Returns the number of preceding bytes that blocks may refer to.
    fn window_size(&self) -> u64 {
        match self.window.first() {
            Some(descriptor) if self.descriptor & SINGLE_SEGMENT == 0 => {
                let base = 1 << (10 + (descriptor >> 3));
                base + base / 8 * u64::from(descriptor & 7)
            }
            _ => self.content_size.unwrap_or_default(),
        }
    }

    /// Returns the header of the same frame with other content: a content size, if there is one, becomes `size`.
    pub fn with_content_size(mut self, size: u64) -> Vec<u8> {
        if self.content_size.is_some() {
            // A width of four bytes fits any size below 4 GiB.
            let width = if size_length(self.descriptor) == 8 || u32::try_from(size).is_err() { 8 } else { 4 };
            self.descriptor = self.descriptor & 0x3f | if width == 8 { 0xc0 } else { 0x80 };
            self.content_size = Some(size);
        }
        let size = size.to_le_bytes();
        let size = size.get(..size_length(self.descriptor)).unwrap_or_default();
        [&MAGIC[..], &[self.descriptor], &self.window, size].concat()
    }
}

/// Returns the length of the content size field.
fn size_length(descriptor: u8) -> usize {
    match descriptor >> 6 {
        0 => usize::from(descriptor & SINGLE_SEGMENT != 0),
        1 => 2,
        2 => 4,
        _ => 8,
    }
}

fn content_size(field: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(field).for_each(|(byte, &of_field)| *byte = of_field);
    let size = u64::from_le_bytes(bytes);
    match field.len() {
        0 => None,
        // A field of two bytes contains the size minus 256.
        2 => Some(size + 256),
        _ => Some(size),
    }
}

/// A block header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Whether this is the last block of its frame.
    pub is_last: bool,
    /// Bytes that follow the header.
    pub length: u64,
}

impl BlockHeader {
    /// Parses a block header.
    ///
    /// # Errors
    /// The block has the reserved type, or is larger than a block may be.
    pub fn parse(bytes: [u8; BLOCK_HEADER]) -> Result<Self, Problem> {
        let [low, middle, high] = bytes.map(u32::from);
        let value = low | middle << 8 | high << 16;
        let size = value >> 3;
        if size > LONGEST_BLOCK {
            return Err(damaged("a block is too large"));
        }
        let length = match value >> 1 & 3 {
            // An RLE block: one byte, repeated.
            1 => 1,
            3 => return Err(damaged("a block has the reserved type")),
            _ => u64::from(size),
        };
        Ok(Self { is_last: value & 1 != 0, length })
    }
}

/// Returns the header of a raw block that is the last of its frame.
pub(super) fn last_raw_block(size: u32) -> [u8; BLOCK_HEADER] {
    let [low, middle, high, _] = (size << 3 | 1).to_le_bytes();
    [low, middle, high]
}

/// Sets the bit that says that a block is the last of its frame, in the first byte of its header.
pub(super) const fn with_last_bit(first: u8) -> u8 {
    first | 1
}

/// Returns the length of the content of a skippable frame, if `header` is the header of one.
pub fn skippable_length(header: [u8; SKIPPABLE_HEADER]) -> Option<u64> {
    let [a, b, c, d, length @ ..] = header;
    (u32::from_le_bytes([a, b, c, d]) & !0xf == SKIPPABLE).then(|| u64::from(u32::from_le_bytes(length)))
}

/// Returns the header of a skippable frame of this program with `length` bytes of content.
pub(super) fn skippable_header(length: u32) -> Vec<u8> {
    [(SKIPPABLE | 0xa).to_le_bytes(), length.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: &[u8]) -> FrameHeader {
        let (header, length) = FrameHeader::parse(bytes).unwrap();
        assert_eq!(length, bytes.len());
        header
    }

    // Promise: a header with any fields is parsed as RFC 8878 defines it.
    #[test]
    fn headers() {
        let rows: [(&[u8], Option<u64>, u64, bool); 6] = [
            // As `tar -I 'zstd -T0'` writes it: no size, a checksum, a window of 2 MiB.
            (b"\x04\x58", None, 2 << 20, true),
            (b"\x00\x59", None, (2 << 20) + (2 << 17), false),
            (b"\x24\x05", Some(5), 5, true),
            (b"\x60\x00\x01", Some(512), 512, false),
            (b"\x84\x58\x01\x00\x00\x80", Some(0x8000_0001), 2 << 20, true),
            (b"\xc4\x58\x01\x00\x00\x00\x01\x00\x00\x00", Some(0x1_0000_0001), 2 << 20, true),
        ];
        for (rest, size, window, has_checksum) in rows {
            let header = header(&[&MAGIC, rest].concat());
            let is = (header.content_size, header.window_size(), header.has_checksum());
            assert_eq!(is, (size, window, has_checksum), "{rest:x?}");
        }
    }

    // Promise: a frame that can't be decoded on the device is refused, and so is a truncated header.
    #[test]
    fn refused() {
        let rows: [(&[u8], &str); 5] = [
            (b"\x05\x58\x01", "dictionary"),
            (b"\x00\x89", "128 MiB"),
            (b"\xe0\x01\x00\x00\x08\x00\x00\x00\x00", "128 MiB"),
            (b"\x08\x58", "reserved"),
            (b"\x84\x58\x01", "cut"),
        ];
        for (rest, expected) in rows {
            let message = FrameHeader::parse(&[&MAGIC, rest].concat()).unwrap_err().to_string();
            assert!(message.contains(expected), "{rest:x?}: {message}");
        }
        assert!(FrameHeader::parse(&[&MAGIC[..], b"\x00\x88"].concat()).is_ok());
    }

    // Promise: the content size in a header is replaced, and nothing else changes; a header without one gets none.
    #[test]
    fn another_size() {
        for rest in [
            &b"\x04\x58"[..],
            b"\x24\x05",
            b"\x60\x00\x01",
            b"\x84\x58\x01\x00\x00\x80",
            b"\xc4\x58\x01\x00\x00\x00\x01\x00\x00\x00",
        ] {
            let before = header(&[&MAGIC, rest].concat());
            for size in [0, 1, 255, 300, 70_000, u64::from(u32::MAX), 1 << 32] {
                // In a single segment, the content size is the window size.
                if size > LARGEST_WINDOW && before.descriptor & SINGLE_SEGMENT != 0 {
                    continue;
                }
                let after = header(&before.clone().with_content_size(size));
                assert_eq!(after.content_size, before.content_size.map(|_| size));
                assert_eq!((after.window, after.descriptor & 0x3f), (before.window.clone(), before.descriptor & 0x3f));
            }
        }
    }

    // Promise: a block header is parsed as RFC 8878 defines it.
    #[test]
    fn blocks() {
        let is = |bytes| BlockHeader::parse(bytes).map(|block| (block.is_last, block.length)).ok();
        assert_eq!(is([0x01, 0, 0]), Some((true, 0)));
        assert_eq!(is([0x04 | 5 << 3, 0, 0]), Some((false, 5)));
        assert_eq!(is([0x02, 0, 0x10]), Some((false, 1)));
        assert_eq!(is([0x00, 0, 0x10]), Some((false, 128 << 10)));
        assert_eq!(is([0x08, 0, 0x10]), None);
        assert_eq!(is([0x06, 0, 0]), None);
        assert_eq!(is(last_raw_block(4096)), Some((true, 4096)));
    }
}
