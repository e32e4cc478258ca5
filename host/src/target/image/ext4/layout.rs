//! The structures of ext4 as they lie on the disk.

use super::BLOCK_BYTES;
use super::Inode;
use super::Problem::{self, Refused};
use super::damaged;
use crate::target::error::Result;

/// Little-endian numbers at their offsets.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N], Problem> {
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
const REFUSED_FLAGS: [(u32, &str); 5] = [
    (0x200, "has compressed files in the way; generate it without compression"),
    (0x800, "has encrypted files in the way; generate it without the encrypt feature"),
    (0x10_0000, "has files with verity in the way; generate it without the verity feature"),
    (0x20_0000, "has large extended attributes in the way; generate it without the ea_inode feature"),
    (0x1000_0000, "has inline data; generate it without the inline_data feature"),
];
const EXTENTS_FLAG: u32 = 0x8_0000;
/// Immutable, and append-only: no flags of a slot.
pub(super) const FIXED_FLAGS: u32 = 0x10 | 0x20;
const INDEX_FLAG: u32 = 0x1000;

/// The magic of extended attributes in an inode and in a block, and where the entries of a block start.
const ATTRIBUTES_MAGIC: [u8; 4] = 0xEA02_0000_u32.to_le_bytes();
const ATTRIBUTES_HEADER: usize = 32;
/// Name indexes of access control lists: `posix_acl_access`, `posix_acl_default`, `richacl`.
const ACCESS_LISTS: [u8; 3] = [2, 3, 8];

pub(super) fn refuse_flags(flags: u32) -> Result<(), Problem> {
    if let Some((_, why)) = REFUSED_FLAGS.iter().find(|(flag, _)| flags & flag != 0) {
        return Err(Refused(why));
    }
    if flags & EXTENTS_FLAG == 0 {
        return Err(Refused("has files without extents, as ext3 has; generate it as ext4"));
    }
    Ok(())
}

/// Whether entries of extended attributes have an access control list among them.
fn has_access_list(mut entries: &[u8]) -> Result<bool, Problem> {
    while let Some(&[name_length, index, ..]) = entries.first_chunk::<4>().filter(|start| **start != [0; 4]) {
        if ACCESS_LISTS.contains(&index) {
            return Ok(true);
        }
        let length = 16 + usize::from(name_length).next_multiple_of(4);
        entries = entries.get(length..).ok_or(damaged("an extended attribute is cut"))?;
    }
    Ok(false)
}

/// Whether a block of extended attributes has an access control list.
pub(super) fn block_has_access_list(block: &[u8]) -> Result<bool, Problem> {
    if !block.starts_with(&ATTRIBUTES_MAGIC) {
        return Err(damaged("a block of extended attributes is none"));
    }
    has_access_list(block.get(ATTRIBUTES_HEADER..).unwrap_or_default())
}

/// The same of those in an inode, behind its fields.
fn inode_has_access_list(bytes: &[u8]) -> Result<bool, Problem> {
    let start = 128 + usize::from(Fields(bytes).u16(128).unwrap_or_default());
    let attributes = bytes.get(start..).unwrap_or_default();
    attributes.strip_prefix(&ATTRIBUTES_MAGIC).map_or(Ok(false), has_access_list)
}

/// Whether a block of a directory is one of the inner blocks of its hash tree.
pub(super) fn is_index(inode: &Inode, logical: u64, block: &[u8; BLOCK_BYTES]) -> bool {
    let is_one_entry = Fields(block).u16(4).is_ok_and(|length| usize::from(length) == BLOCK_BYTES);
    inode.flags & INDEX_FLAG != 0 && (logical == 0 || is_one_entry)
}

/// `struct ext4_inode`.
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
        attributes: u64::from(f.u16(0x76)?) << 32 | u64::from(f.u32(0x68)?),
        has_access_list: inode_has_access_list(bytes)?,
        seed: None,
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
    pub(super) is_written: bool,
}

impl Extent {
    /// The first block of its file, if that is in it and has content.
    pub(super) fn first_block(&self) -> Option<u64> {
        (self.logical == 0 && self.length > 0 && self.is_written).then_some(self.start)
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

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: what an inode says is read in full, with the high halves; one that no name should lead to is refused.
    #[test]
    fn inodes_are_read() {
        let mut bytes = [0; 128];
        let mut set = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
        set(0x0, &0o100_640_u16.to_le_bytes());
        set(0x2, &[1, 2]);
        set(0x4, &[3, 4, 5, 6]);
        set(0x18, &[7, 8]);
        set(0x1A, &[1, 0]);
        set(0x20, &[9, 10, 11, 12]);
        set(0x28, &[13; 60]);
        set(0x68, &[0x14, 0x15, 0x16, 0x17]);
        set(0x76, &[0x18, 0x19]);
        set(0x6C, &[14, 15, 16, 17]);
        set(0x78, &[18, 19]);
        set(0x7A, &[20, 21]);
        let expected = Inode {
            number: 12,
            mode: 0o100_640,
            uid: 0x1312_0201,
            gid: 0x1514_0807,
            size: 0x1110_0F0E_0605_0403,
            links: 1,
            flags: 0x0C0B_0A09,
            root: [13; 60],
            attributes: 0x1918_1716_1514,
            has_access_list: false,
            seed: None,
        };
        assert_eq!(inode(12, &bytes).unwrap(), expected);
        assert!(inode(12, &bytes[..0x7B]).is_err());
        bytes[0x1A] = 0;
        assert!(inode(12, &bytes).is_err());
    }

    // Promise: content that is not simply in extents is refused, with the reason.
    #[test]
    fn flags_are_judged() {
        assert!(refuse_flags(EXTENTS_FLAG).is_ok());
        // With an index, which looks like unused entries.
        assert!(refuse_flags(EXTENTS_FLAG | 0x1000).is_ok());
        assert!(refuse_flags(0x1000).unwrap_err().to_string().contains("without extents"));
        for (flag, why) in REFUSED_FLAGS {
            assert_eq!(refuse_flags(EXTENTS_FLAG | flag).unwrap_err().to_string(), why);
        }
    }

    /// A node of a tree of extents with room for four entries, as an inode has.
    fn node(magic: u16, entries: u16, depth: u16, first: [u8; EXTENT_SIZE]) -> [u8; 60] {
        let mut node = [0; 60];
        let header = [magic, entries, 4, depth, 0, 0].map(u16::to_le_bytes);
        node[..EXTENT_SIZE].copy_from_slice(header.as_flattened());
        node[EXTENT_SIZE..2 * EXTENT_SIZE].copy_from_slice(&first);
        node
    }

    // Promise: of a run of blocks, all is read: where it lies, how long it is, and whether it has content.
    #[test]
    fn leaves_are_read() {
        for (length, expected, is_written) in [(1, 1, true), (32_768, 32_768, true), (32_770, 2, false)] {
            let [low, high] = u16::to_le_bytes(length);
            let bytes = node(EXTENT_MAGIC, 1, 0, [5, 0, 0, 0, low, high, 2, 0, 7, 0, 0, 0]);
            let Ok(ExtentNode::Leaf(leaves)) = ExtentNode::parse(&bytes, None) else { panic!("{length}") };
            assert_eq!(leaves, [Extent { logical: 5, length: expected, start: (2 << 32) + 7, is_written }]);
        }
        let extent = Extent { logical: 5, length: 2, start: 7, is_written: true };
        assert!(extent.blocks().eq([(5, 7), (6, 8)]));
        let first = Extent { logical: 0, length: 2, start: 7, is_written: true };
        assert_eq!(first.first_block(), Some(7));
        for other in
            [Extent { logical: 1, ..first }, Extent { length: 0, ..first }, Extent { is_written: false, ..first }]
        {
            assert_eq!(other.first_block(), None, "{other:?}");
        }
    }

    // Promise: a node is one only in its place in the tree, and with no more entries than room.
    #[test]
    fn nodes_are_judged() {
        let bytes = node(EXTENT_MAGIC, 1, 3, [5, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0]);
        let Ok(ExtentNode::Inner { depth, children }) = ExtentNode::parse(&bytes, None) else { panic!() };
        assert_eq!((depth, children), (3, vec![(2 << 32) + 7]));
        for (magic, entries, depth, above, is_good) in [
            (EXTENT_MAGIC, 0, 0, None, true),
            (EXTENT_MAGIC, 4, 5, None, true),
            (EXTENT_MAGIC, 4, 0, Some(1), true),
            (EXTENT_MAGIC, 4, 1, Some(2), true),
            (EXTENT_MAGIC ^ 1, 4, 0, None, false),
            (EXTENT_MAGIC, 5, 0, None, false),
            (EXTENT_MAGIC, 4, 6, None, false),
            (EXTENT_MAGIC, 4, 0, Some(2), false),
            (EXTENT_MAGIC, 4, 2, Some(2), false),
            (EXTENT_MAGIC, 4, u16::MAX, Some(0), false),
        ] {
            let parsed = ExtentNode::parse(&node(magic, entries, depth, [0; EXTENT_SIZE]), above);
            assert_eq!(parsed.is_ok(), is_good, "{magic:#x} {entries} {depth} {above:?}");
        }
        assert!(ExtentNode::parse(&[], None).is_err());
    }

    /// The first entries of a block; none for one that is damaged.
    fn read(block: &[u8; BLOCK_BYTES]) -> Vec<Option<(u32, Vec<u8>)>> {
        Entries::of(block).take(9).map(|entry| entry.ok().map(|(inode, name)| (inode, name.to_vec()))).collect()
    }

    // Promise: the names of a block are those that are in use; an entry that contradicts itself is the last one.
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
        // Zeros follow, which are an entry without a length.
        assert_eq!(names(&[entry(1, 12, 1), entry(0, 12, 1), entry(2, 12, 2)]), [first.clone(), second.clone(), None]);
        for (length, name_length) in [(0, 0), (4, 0), (10, 1), (13, 1), (12, 5)] {
            let entries = [entry(1, 12, 1), entry(3, length, name_length), entry(2, 12, 2)];
            assert_eq!(names(&entries), [first.clone(), None], "{length} {name_length}");
        }
        assert_eq!(names(&[[3, 0, 0, 0, 8, 0, 0, 1, 0, 0, 0, 0]])[0], Some((3, Vec::new())));
        // The last one may fill the block, but not more.
        for (length, expected) in [(4096_u16, vec![first]), (4100, vec![None])] {
            let mut block = [0; BLOCK_BYTES];
            block[..12].copy_from_slice(&entry(1, 0, 1));
            block[4..6].copy_from_slice(&length.to_le_bytes());
            assert_eq!(read(&block), expected, "{length}");
        }
    }
}
