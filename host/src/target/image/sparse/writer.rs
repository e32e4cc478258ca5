//! Writes a sparse image again, with a few changed blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::copy::{copy, data_after};
use super::super::medium::{BLOCK, BLOCK_BYTES};
use super::Body;
use super::Chunk;
use super::DONT_CARE;
use super::FILL;
use super::RAW;

/// The state of a sparse image that is being written.
pub(super) struct Writer<'a> {
    pub(super) into: &'a File,
    /// The raw image with the changes.
    pub(super) raw: &'a File,
    pub(super) chunk_header: u16,
    pub(super) end: u64,
    pub(super) chunks: u32,
}

impl Writer<'_> {
    /// Appends a chunk, unless it is empty. The content of a raw chunk is copied from the raw image.
    pub(super) fn put(&mut self, first: u64, blocks: u64, body: Body) -> io::Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let (kind, length) = match body {
            Body::Raw(_) => (RAW, blocks * BLOCK),
            Body::Fill(_) => (FILL, 4),
            Body::DontCare => (DONT_CARE, 0),
        };
        let total = u32::try_from(length + u64::from(self.chunk_header)).map_err(too_long)?;
        let mut header = vec![0; usize::from(self.chunk_header)];
        let fields = [
            &kind.to_le_bytes()[..],
            &[0, 0],
            &u32::try_from(blocks).map_err(too_long)?.to_le_bytes(),
            &total.to_le_bytes(),
        ];
        header.iter_mut().zip(fields.concat()).for_each(|(byte, value)| *byte = value);
        self.into.write_all_at(&header, self.end)?;
        let start = self.end + u64::from(self.chunk_header);
        match body {
            Body::Raw(_) => copy(self.raw, first * BLOCK, self.into, start, length)?,
            Body::Fill(word) => self.into.write_all_at(&word, start)?,
            Body::DontCare => {}
        }
        self.end = start + length;
        self.chunks = self.chunks.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(())
    }

    /// Returns the first block of the chunk, from `from` on, that differs in the raw image.
    pub(super) fn next_changed(&self, chunk: &Chunk, from: u64) -> io::Result<Option<u64>> {
        let limit = (chunk.first + chunk.blocks) * BLOCK;
        let mut at = from * BLOCK;
        while let Some(data) = data_after(self.raw, at, limit)? {
            // Holes are unchanged: unpacking leaves holes only for zeros.
            for block in data.start / BLOCK..data.end.div_ceil(BLOCK) {
                if !self.is_unchanged(block, chunk.body)? {
                    return Ok(Some(block));
                }
            }
            at = data.end.next_multiple_of(BLOCK);
        }
        Ok(None)
    }

    /// Returns the first block of the chunk, from `from` on, that is unchanged in the raw image, or the end of the
    /// chunk.
    pub(super) fn next_unchanged(&self, chunk: &Chunk, from: u64) -> io::Result<u64> {
        let end = chunk.first + chunk.blocks;
        for block in from..end {
            if self.is_unchanged(block, chunk.body)? {
                return Ok(block);
            }
        }
        Ok(end)
    }

    /// Returns whether a block of the raw image has the content of a fill chunk or an unspecified one.
    fn is_unchanged(&self, block: u64, body: Body) -> io::Result<bool> {
        let mut bytes = [0; BLOCK_BYTES];
        self.raw.read_exact_at(&mut bytes, block * BLOCK)?;
        let word = if let Body::Fill(word) = body { word } else { [0; 4] };
        Ok(bytes.chunks(4).all(|part| part == word))
    }
}
