//! Reads the headers of a sparse image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::target::image::medium::BLOCK_BYTES;

/// Reads small parts of a file that are close together with few calls.
pub(super) struct Headers<'f> {
    file: &'f File,
    /// Offset of the bytes that were read last.
    start: u64,
    bytes: Vec<u8>,
}

impl<'f> Headers<'f> {
    pub(super) fn new(file: &'f File) -> Self {
        Self { file, start: 0, bytes: Vec::new() }
    }

    /// Returns the bytes at an offset, or `None` if the file ends before.
    pub(super) fn at<const N: usize>(&mut self, offset: u64) -> io::Result<Option<[u8; N]>> {
        if let Some(bytes) = self.buffered(offset) {
            return Ok(Some(bytes));
        }
        self.bytes.resize(BLOCK_BYTES, 0);
        let mut length = 0;
        while let Some(free) = self.bytes.get_mut(length..).filter(|free| !free.is_empty()) {
            match self.file.read_at(free, offset + length as u64)? {
                0 => break,
                read => length += read,
            }
        }
        self.bytes.truncate(length);
        self.start = offset;
        Ok(self.buffered(offset))
    }

    fn buffered<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..)?.first_chunk().copied()
    }
}

/// Returns the little-endian number at an offset, or 0 beyond the end.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u16::from_le_bytes)
}

/// Returns the little-endian number at an offset, or 0 beyond the end.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_le_bytes)
}
