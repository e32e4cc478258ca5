//! The structures of ext4 as they lie on the disk.

use super::Problem::{self, Refused};
use super::damaged;
use super::{BLOCK_BYTES, Inode};

/// Little-endian numbers at their offsets.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N], Problem> {
        let tail = self.0.get(offset..).unwrap_or_default();
        tail.first_chunk().copied().ok_or(damaged("a structure is cut"))
    }

    pub(super) fn u16(&self, offset: usize) -> Result<u16, Problem> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&self, offset: usize) -> Result<u32, Problem> {
        self.bytes(offset).map(u32::from_le_bytes)
    }
}

/// Flags of inodes whose content is not simply in extents.
const REFUSED_FLAGS: [(u32, &str); 4] = [
    (0x800, "has encrypted files in the way; generate it without the encrypt feature"),
    (0x10_0000, "has files with verity in the way; generate it without the verity feature"),
    (0x20_0000, "has large extended attributes in the way; generate it without the ea_inode feature"),
    (0x1000_0000, "has inline data; generate it without the inline_data feature"),
];
const EXTENTS_FLAG: u32 = 0x8_0000;

pub(super) fn refuse_flags(flags: u32) -> Result<(), Problem> {
    if let Some((_, why)) = REFUSED_FLAGS.iter().find(|(flag, _)| flags & flag != 0) {
        return Err(Refused(why));
    }
    if flags & EXTENTS_FLAG == 0 {
        return Err(Refused("has files without extents, as ext3 has; generate it as ext4"));
    }
    Ok(())
}

/// `struct ext4_inode`, its first 128 bytes.
pub(super) fn inode(number: u32, bytes: &[u8]) -> Result<Inode, Problem> {
    let f = Fields(bytes);
    let wide = |low: usize, high: usize| Ok::<_, Problem>(u32::from(f.u16(high)?) << 16 | u32::from(f.u16(low)?));
    let inode = Inode {
        number,
        mode: f.u16(0x0)?,
        uid: wide(0x2, 0x78)?,
        gid: wide(0x18, 0x7A)?,
        size: u64::from(f.u32(0x6C)?) << 32 | u64::from(f.u32(0x4)?),
        links: f.u16(0x1A)?,
        flags: f.u32(0x20)?,
        root: f.bytes(0x28)?,
    };
    if inode.links == 0 {
        return Err(damaged("a name leads to an inode that is not in use"));
    }
    Ok(inode)
}

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    logical: u64,
    pub(super) length: u64,
    pub(super) start: u64,
    is_written: bool,
}

impl Extent {
    /// Whether it is one block, the first of its file, with content.
    pub(super) fn is_first_block(&self) -> bool {
        self.logical == 0 && self.length == 1 && self.is_written
    }

    /// Its blocks: number in the file, number in the file system.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        let &Self { logical, start, .. } = self;
        (0..self.length).map(move |i| (logical.saturating_add(i), start.saturating_add(i)))
    }
}

/// A node of a tree of extents.
pub(super) enum ExtentNode {
    Leaf(Vec<Extent>),
    Inner { depth: u16, children: Vec<u64> },
}

const EXTENT_MAGIC: u16 = 0xF30A;
/// Of the header, and of each entry.
const EXTENT_SIZE: usize = 12;
const DEEPEST: u16 = 5;
/// Longer ones are allocated, but have no content yet.
const LONGEST_WRITTEN: u16 = 32768;

impl ExtentNode {
    /// `above` is the depth of the node that leads here, none for the root.
    pub(super) fn parse(bytes: &[u8], above: Option<u16>) -> Result<Self, Problem> {
        let header = Fields(bytes);
        let (magic, entries, depth) = (header.u16(0)?, header.u16(2)?, header.u16(6)?);
        let is_in_place = above.map_or(depth <= DEEPEST, |above| depth.checked_add(1) == Some(above));
        if magic != EXTENT_MAGIC || !is_in_place {
            return Err(damaged("extents are none"));
        }
        let (room, _) = bytes.get(EXTENT_SIZE..).unwrap_or_default().as_chunks::<EXTENT_SIZE>();
        let entries = room.get(..usize::from(entries)).ok_or(damaged("a node has more extents than room"))?;
        if depth == 0 {
            entries.iter().map(|entry| leaf(&Fields(entry))).collect::<Result<_, _>>().map(Self::Leaf)
        } else {
            let child = |entry: &[u8; EXTENT_SIZE]| {
                let f = Fields(entry);
                Ok(u64::from(f.u16(8)?) << 32 | u64::from(f.u32(4)?))
            };
            let children = entries.iter().map(child).collect::<Result<_, Problem>>()?;
            Ok(Self::Inner { depth, children })
        }
    }
}

fn leaf(f: &Fields<'_>) -> Result<Extent, Problem> {
    let length = f.u16(4)?;
    let is_written = length <= LONGEST_WRITTEN;
    let length = if is_written { length } else { length - LONGEST_WRITTEN };
    Ok(Extent {
        logical: f.u32(0)?.into(),
        length: length.into(),
        start: u64::from(f.u16(6)?) << 32 | u64::from(f.u32(8)?),
        is_written,
    })
}

/// The names in a block of a folder. In one with an index, the blocks of the index look like unused entries.
pub(super) struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    pub(super) fn of(block: &'a [u8; BLOCK_BYTES]) -> Self {
        Self { rest: block }
    }

    fn entry(&mut self) -> Result<(u32, &'a [u8]), Problem> {
        let f = Fields(self.rest);
        let (inode, length) = (f.u32(0)?, usize::from(f.u16(4)?));
        let name_length = usize::from(f.bytes::<1>(6)?[0]);
        if length < 8 || length % 4 != 0 {
            return Err(damaged("an entry of a folder has no length"));
        }
        let (entry, rest) = self.rest.split_at_checked(length).ok_or(damaged("an entry of a folder is too long"))?;
        let name = entry.get(8..).and_then(|names| names.get(..name_length)).ok_or(damaged("a name is too long"))?;
        self.rest = rest;
        Ok((inode, name))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(u32, &'a [u8]), Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.entry() {
                // Not in use.
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
