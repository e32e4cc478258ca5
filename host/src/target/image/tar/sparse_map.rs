//! The map of a sparse file, which says where its content belongs. GNU tar reads as many blocks of the archive as the map asks
//! for, whatever the size in the header: where these differ, it takes content for headers.

use super::header::{BLOCK, Block, decimal, is_gnu, number};
use super::problem::{Problem, damaged};

/// Where the flag lies that a map goes on in another block, in a header and in such a block; and the file's size in a header.
const HEADER_GOES_ON: usize = 482;
const MAP_GOES_ON: usize = 504;
const REAL_SIZE: std::ops::Range<usize> = 483..495;
/// Where the slots lie: an offset and a number of bytes each.
const HEADER_SLOTS: std::ops::Range<usize> = 386..HEADER_GOES_ON;
const SLOT: usize = 24;
/// How many of them are in a block that a map goes on in.
pub(super) const MAP_SLOTS: u32 = 21;
/// Bytes that a file of ext4 may have.
const MOST_BYTES: u64 = (1 << 44) - (1 << 12);
/// Digits of a number that GNU tar takes in a map of pax.
const MOST_DIGITS: usize = 19;

const BAD: Problem = damaged("the map of a sparse file is malformed");

/// A map, as far as it was read.
pub(super) struct SparseMap {
    /// Bytes of the file that it makes.
    real_size: u64,
    /// Bytes of the archive that it asks for.
    content: u64,
}

impl SparseMap {
    pub(super) fn new(real_size: u64) -> Result<Self, Problem> {
        if real_size > MOST_BYTES { Err(BAD) } else { Ok(Self { real_size, content: 0 }) }
    }

    /// That of GNU tar's own format, from the slots in a header. Returns whether it goes on in the next block.
    pub(super) fn of_header(header: &Block) -> Result<(Self, bool), Problem> {
        if !is_gnu(header) {
            return Err(damaged("a sparse file is not GNU tar's"));
        }
        let real_size = header.get(REAL_SIZE).and_then(number).and_then(|size| size.try_into().ok());
        let mut map = Self::new(real_size.ok_or(BAD)?)?;
        let goes_on = map.add_slots(header.get(HEADER_SLOTS), header.get(HEADER_GOES_ON))?;
        Ok((map, goes_on))
    }

    /// Adds the slots of a block that the map goes on in. Returns whether it goes on further.
    pub(super) fn add_block(&mut self, block: &Block) -> Result<bool, Problem> {
        self.add_slots(block.get(..MAP_GOES_ON), block.get(MAP_GOES_ON))
    }

    fn add_slots(&mut self, slots: Option<&[u8]>, flag: Option<&u8>) -> Result<bool, Problem> {
        let goes_on = flag != Some(&0);
        for slot in slots.unwrap_or_default().chunks_exact(SLOT) {
            let (offset, bytes) = slot.split_at(SLOT / 2);
            if bytes.first() == Some(&0) {
                // GNU tar ends the map there, and would take a block that follows for content.
                return if goes_on { Err(BAD) } else { Ok(false) };
            }
            let number = |field| number(field).and_then(|number| u64::try_from(number).ok()).ok_or(BAD);
            self.add(number(offset)?, number(bytes)?)?;
        }
        Ok(goes_on)
    }

    /// Adds a piece of the file.
    fn add(&mut self, offset: u64, bytes: u64) -> Result<(), Problem> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.real_size) {
            return Err(BAD);
        }
        // Each piece starts with a block.
        self.content = self.content.checked_add(bytes.next_multiple_of(BLOCK)).ok_or(BAD)?;
        Ok(())
    }

    /// Checks that a member of `size` bytes, the first `before` of which are the map, holds what the map asks for.
    pub(super) fn check(&self, before: u64, size: u64) -> Result<(), Problem> {
        let needed = self.content.checked_add(before);
        let has_all =
            needed.is_some_and(|needed| size.checked_next_multiple_of(BLOCK).is_some_and(|size| needed <= size));
        if has_all { Ok(()) } else { Err(BAD) }
    }

    /// Adds the pieces of pax, whose map is the start of the content: a line for how many there are, and two for each. Returns the
    /// bytes of the map, if the text holds all of it.
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
