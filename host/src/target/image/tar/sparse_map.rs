//! The map of a sparse file: the offset and length of each piece of its content.
//!
//! GNU tar reads as many blocks of the archive as the map requires, whatever the size in the header is. If the two differ, it reads
//! content as headers, so such files are refused.

use super::header::{BLOCK, Block, decimal, is_gnu, number};
use super::problem::{Problem, damaged};

/// Offsets of the flag that the map continues in another block, in a header and in a map block; the file's size in a header.
const HEADER_CONTINUES: usize = 482;
const MAP_CONTINUES: usize = 504;
const REAL_SIZE: std::ops::Range<usize> = 483..495;
/// The slots in a header; each has an offset and a number of bytes.
const HEADER_SLOTS: std::ops::Range<usize> = 386..HEADER_CONTINUES;
const SLOT: usize = 24;
/// Slots in a map block.
pub(super) const MAP_SLOTS: u32 = 21;
/// The largest file on ext4, in bytes.
const MOST_BYTES: u64 = (1 << 44) - (1 << 12);
/// The most digits of a number that GNU tar accepts in a pax map.
const MOST_DIGITS: usize = 19;

const BAD: Problem = damaged("the map of a sparse file is malformed");

/// The part of a map that has been read.
pub(super) struct SparseMap {
    /// Size of the unpacked file.
    real_size: u64,
    /// Bytes of the archive that the pieces take.
    content: u64,
}

impl SparseMap {
    /// Returns an empty map of a file of `real_size` bytes.
    pub(super) fn new(real_size: u64) -> Result<Self, Problem> {
        if real_size > MOST_BYTES { Err(BAD) } else { Ok(Self { real_size, content: 0 }) }
    }

    /// Reads the slots in a header in GNU tar's own format. Also returns whether the map continues in the next block.
    pub(super) fn of_header(header: &Block) -> Result<(Self, bool), Problem> {
        if !is_gnu(header) {
            return Err(damaged("a sparse file is not in GNU format"));
        }
        let real_size = header.get(REAL_SIZE).and_then(number).and_then(|size| size.try_into().ok());
        let mut map = Self::new(real_size.ok_or(BAD)?)?;
        let continues = map.add_slots(header.get(HEADER_SLOTS), header.get(HEADER_CONTINUES))?;
        Ok((map, continues))
    }

    /// Adds the slots of a map block. Returns whether the map continues.
    pub(super) fn add_block(&mut self, block: &Block) -> Result<bool, Problem> {
        self.add_slots(block.get(..MAP_CONTINUES), block.get(MAP_CONTINUES))
    }

    fn add_slots(&mut self, slots: Option<&[u8]>, flag: Option<&u8>) -> Result<bool, Problem> {
        let continues = flag != Some(&0);
        for slot in slots.unwrap_or_default().chunks_exact(SLOT) {
            let (offset, bytes) = slot.split_at(SLOT / 2);
            if bytes.first() == Some(&0) {
                // GNU tar ends the map here, and would read a map block that follows as content.
                return if continues { Err(BAD) } else { Ok(false) };
            }
            let number = |field| number(field).and_then(|number| u64::try_from(number).ok()).ok_or(BAD);
            self.add(number(offset)?, number(bytes)?)?;
        }
        Ok(continues)
    }

    /// Adds a piece of the file.
    fn add(&mut self, offset: u64, bytes: u64) -> Result<(), Problem> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.real_size) {
            return Err(BAD);
        }
        // Each piece starts at a block boundary.
        self.content = self.content.checked_add(bytes.next_multiple_of(BLOCK)).ok_or(BAD)?;
        Ok(())
    }

    /// Checks that a member of `size` bytes, the first `before` of which are the map, contains all pieces.
    pub(super) fn check(&self, before: u64, size: u64) -> Result<(), Problem> {
        let needed = self.content.checked_add(before);
        let has_all =
            needed.is_some_and(|needed| size.checked_next_multiple_of(BLOCK).is_some_and(|size| needed <= size));
        if has_all { Ok(()) } else { Err(BAD) }
    }

    /// Reads a pax map, with which the content starts: a line with the number of pieces, and two lines for each piece. Returns the
    /// length of the map, or `None` if `text` does not contain all of it.
    pub(super) fn add_lines(&mut self, text: &[u8]) -> Result<Option<u64>, Problem> {
        let mut length = 0;
        let mut lines = text.split_inclusive(|&byte| byte == b'\n').map(|line| {
            length += line.len() as u64;
            match line.strip_suffix(b"\n") {
                Some(line) if line.len() <= MOST_DIGITS => decimal(line).map(Some).ok_or(BAD),
                None if line.len() <= MOST_DIGITS => Ok(None),
                _ => Err(BAD),
            }
        });
        let mut next = || lines.next().unwrap_or(Ok(None));
        let Some(count) = next()? else { return Ok(None) };
        self.content = 0;
        for _ in 0..count {
            let (Some(offset), Some(bytes)) = (next()?, next()?) else { return Ok(None) };
            self.add(offset, bytes)?;
        }
        Ok(Some(length))
    }
}
