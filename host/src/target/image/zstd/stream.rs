//! The decompressed content of a zstd file as a source of an archive's bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use zeroize::Zeroizing;

use super::block::{Block, BlockReader, Boundary};
use crate::target::error::Result;
use crate::target::image::problem::Problem;
use crate::target::image::tar::source::{CUT, Source};

/// The content of a file. It retains the blocks from the start of the last `read` on, so that the stream can be split there.
pub struct Stream<'f> {
    blocks: BlockReader<'f>,
    retained: VecDeque<Block>,
    /// Offset in the content of the next byte.
    position: u64,
}

impl std::fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the retained content.
        f.debug_struct("Stream").field("blocks", &self.blocks).field("position", &self.position).finish_non_exhaustive()
    }
}

impl<'f> Stream<'f> {
    /// Starts at the first byte of a file.
    ///
    /// # Errors
    /// The library can't be used, or the I/O error.
    pub fn new(file: &'f File) -> io::Result<Self> {
        Ok(Self { blocks: BlockReader::new(file)?, retained: VecDeque::new(), position: 0 })
    }

    /// Returns the skippable frames since the oldest retained block: offset and length in the file.
    pub(super) fn skipped(&self) -> &[(u64, u64)] {
        self.blocks.skipped()
    }

    /// Returns the block at the position, or `None` at the end of the file.
    fn at_position(&mut self) -> Result<Option<&Block>, Problem> {
        while self.retained.back().is_none_or(|block| block.end() <= self.position) {
            match self.blocks.next_block()? {
                Some(block) => self.retained.push_back(block),
                None => return Ok(None),
            }
        }
        let position = self.position;
        Ok(self.retained.iter().find(|block| block.end() > position))
    }

    /// Drops the blocks before the position, except the last one, in which the content may end.
    fn forget(&mut self) {
        while self.retained.len() > 1 && self.retained.front().is_some_and(|block| block.end() <= self.position) {
            if let Some(block) = self.retained.pop_front() {
                self.blocks.reuse(block);
            }
        }
        let from = self.retained.front().map_or(self.blocks.offset(), |block| block.boundary.offset);
        self.blocks.forget_skipped_before(from);
    }

    /// Finds the retained block with the byte of content at `end`, or the last block if the content ends there. Returns the boundary
    /// before it, and its content up to `end`.
    pub(super) fn cut_at(&self, end: u64) -> Option<(Boundary, Zeroizing<Vec<u8>>)> {
        let block = self.retained.iter().find(|block| block.end() > end).or(self.retained.back())?;
        let length = usize::try_from(end.checked_sub(block.boundary.start)?).ok()?;
        Some((block.boundary.clone(), Zeroizing::new(block.content.get(..length)?.to_vec())))
    }
}

impl Source for Stream<'_> {
    fn read(&mut self, mut buffer: &mut [u8]) -> Result<usize, Problem> {
        self.forget();
        let before = self.position;
        while !buffer.is_empty() {
            let position = self.position;
            let Some(block) = self.at_position()? else { break };
            let content = rest_of(block, position);
            let length = content.len().min(buffer.len());
            let (part, rest) = buffer.split_at_mut(length);
            part.copy_from_slice(content.get(..length).unwrap_or_default());
            buffer = rest;
            self.position += length as u64;
        }
        Ok(usize::try_from(self.position - before).unwrap_or_default())
    }

    fn skip(&mut self, mut length: u64) -> Result<(), Problem> {
        while length > 0 {
            self.forget();
            let position = self.position;
            let left = rest_of(self.at_position()?.ok_or(CUT)?, position).len() as u64;
            let step = left.min(length);
            self.position += step;
            length -= step;
        }
        Ok(())
    }
}

/// Returns the content of a block from a position on.
fn rest_of(block: &Block, position: u64) -> &[u8] {
    let skip = usize::try_from(position - block.boundary.start).unwrap_or(usize::MAX);
    block.content.get(skip..).unwrap_or_default()
}
