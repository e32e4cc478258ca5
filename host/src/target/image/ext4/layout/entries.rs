//! Parses the entries of directory blocks.

use super::Fields;
use crate::target::error::Result;
use crate::target::image::ext4::damaged;
use crate::target::image::medium::BLOCK_BYTES;
use crate::target::image::problem::Problem;

/// Iterates over the used entries of a directory block: inode number and name. Inner blocks of a hash tree look like
/// unused entries.
pub(in crate::target::image::ext4) struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    pub(in crate::target::image::ext4) fn of(block: &'a [u8; BLOCK_BYTES]) -> Self {
        Self { rest: block }
    }

    fn entry(&mut self) -> Result<(u32, &'a [u8]), Problem> {
        let f = Fields(self.rest);
        let (inode, length) = (f.u32(0)?, usize::from(f.u16(4)?));
        let name_length = usize::from(f.bytes::<1>(6)?[0]);
        if length < 8 || length % 4 != 0 {
            return Err(damaged("a directory entry has an invalid length"));
        }
        let (entry, rest) = self.rest.split_at_checked(length).ok_or(damaged("a directory entry is too long"))?;
        let name = entry
            .get(8..)
            .and_then(|names| names.get(..name_length))
            .ok_or(damaged("a name in a directory is too long"))?;
        self.rest = rest;
        Ok((inode, name))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(u32, &'a [u8]), Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.entry() {
                // An unused entry.
                Ok((0, _)) => {}
                Ok(entry) => return Some(Ok(entry)),
                Err(problem) => {
                    self.rest = &[];
                    return Some(Err(problem));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the first entries of a block; `None` for a damaged entry.
    fn read(block: &[u8; BLOCK_BYTES]) -> Vec<Option<(u32, Vec<u8>)>> {
        Entries::of(block).take(9).map(|entry| entry.ok().map(|(inode, name)| (inode, name.to_vec()))).collect()
    }

    // Promise: the used entries of a block are returned; reading stops at an invalid entry.
    #[test]
    fn entries_are_read() {
        let entry =
            |inode: u8, length: u8, name_length: u8| [inode, 0, 0, 0, length, 0, name_length, 1, b'a', b'b', 0, 0];
        let names = |entries: &[[u8; 12]]| {
            let mut block = [0; BLOCK_BYTES];
            block[..12 * entries.len()].copy_from_slice(entries.as_flattened());
            read(&block)
        };
        let (first, second) = (Some((1, b"a".to_vec())), Some((2, b"ab".to_vec())));
        // The zeros that follow are an entry of length 0.
        assert_eq!(names(&[entry(1, 12, 1), entry(0, 12, 1), entry(2, 12, 2)]), [first.clone(), second.clone(), None]);
        for (length, name_length) in [(0, 0), (4, 0), (10, 1), (13, 1), (12, 5)] {
            let entries = [entry(1, 12, 1), entry(3, length, name_length), entry(2, 12, 2)];
            assert_eq!(names(&entries), [first.clone(), None], "{length} {name_length}");
        }
        assert_eq!(names(&[[3, 0, 0, 0, 8, 0, 0, 1, 0, 0, 0, 0]])[0], Some((3, Vec::new())));
        // The last entry may fill the block, but not exceed it.
        for (length, expected) in [(4096_u16, vec![first]), (4100, vec![None])] {
            let mut block = [0; BLOCK_BYTES];
            block[..12].copy_from_slice(&entry(1, 0, 1));
            block[4..6].copy_from_slice(&length.to_le_bytes());
            assert_eq!(read(&block), expected, "{length}");
        }
    }
}
