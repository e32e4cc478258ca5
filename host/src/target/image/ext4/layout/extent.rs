//! Parses the nodes of extent trees, which map the blocks of a file to blocks of the file system.

use super::Fields;
use crate::target::error::Result;
use crate::target::image::ext4::damaged;
use crate::target::image::problem::Problem;

/// A run of contiguous blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target::image::ext4) struct Extent {
    logical: u64,
    pub(in crate::target::image::ext4) length: u64,
    pub(in crate::target::image::ext4) start: u64,
    pub(in crate::target::image::ext4) is_written: bool,
}

impl Extent {
    /// Returns the first block of its file, if this extent contains it and it is written.
    pub(in crate::target::image::ext4) fn first_block(&self) -> Option<u64> {
        (self.logical == 0 && self.length > 0 && self.is_written).then_some(self.start)
    }

    /// Returns its blocks as pairs: number in the file, and number in the file system.
    pub(in crate::target::image::ext4) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        let &Self { logical, start, .. } = self;
        (0..self.length).map(move |i| (logical.saturating_add(i), start.saturating_add(i)))
    }
}

/// A node of an extent tree.
pub(in crate::target::image::ext4) enum ExtentNode {
    Leaf(Vec<Extent>),
    Inner { depth: u16, children: Vec<u64> },
}

const EXTENT_MAGIC: u16 = 0xF30A;
/// Size of the header of a node, and of each entry.
const EXTENT_SIZE: usize = 12;
/// Largest depth of the root node.
const MAX_DEPTH: u16 = 5;
/// Longest extent that is written. Larger length fields mark an extent that is allocated, but not written.
const MAX_WRITTEN: u16 = 32768;

impl ExtentNode {
    /// Parses a node. `parent` is the depth of its parent node, `None` for the root.
    pub(in crate::target::image::ext4) fn parse(bytes: &[u8], parent: Option<u16>) -> Result<Self, Problem> {
        let header = Fields(bytes);
        let (magic, entries, depth) = (header.u16(0)?, header.u16(2)?, header.u16(6)?);
        let has_valid_depth = parent.map_or(depth <= MAX_DEPTH, |parent| depth.checked_add(1) == Some(parent));
        if magic != EXTENT_MAGIC || !has_valid_depth {
            return Err(damaged("a node of an extent tree has no magic number or a wrong depth"));
        }
        let (slots, _) = bytes.get(EXTENT_SIZE..).unwrap_or_default().as_chunks::<EXTENT_SIZE>();
        let entries =
            slots.get(..usize::from(entries)).ok_or(damaged("a node of an extent tree has more entries than space"))?;
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

/// Parses an entry of a leaf node.
fn leaf(f: &Fields<'_>) -> Result<Extent, Problem> {
    let length = f.u16(4)?;
    let is_written = length <= MAX_WRITTEN;
    let length = if is_written { length } else { length - MAX_WRITTEN };
    Ok(Extent {
        logical: f.u32(0)?.into(),
        length: length.into(),
        start: u64::from(f.u16(6)?) << 32 | u64::from(f.u32(8)?),
        is_written,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a node of an extent tree with space for four entries, like the root in an inode.
    fn node(magic: u16, entries: u16, depth: u16, first: [u8; EXTENT_SIZE]) -> [u8; 60] {
        let mut node = [0; 60];
        let header = [magic, entries, 4, depth, 0, 0].map(u16::to_le_bytes);
        node[..EXTENT_SIZE].copy_from_slice(header.as_flattened());
        node[EXTENT_SIZE..2 * EXTENT_SIZE].copy_from_slice(&first);
        node
    }

    // Promise: all fields of an extent are read: its position, its length, and whether it is written.
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

    // Promise: a node is accepted only with the right depth, and with no more entries than it has space for.
    #[test]
    fn nodes_are_validated() {
        let bytes = node(EXTENT_MAGIC, 1, 3, [5, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0]);
        let Ok(ExtentNode::Inner { depth, children }) = ExtentNode::parse(&bytes, None) else { panic!() };
        assert_eq!((depth, children), (3, vec![(2 << 32) + 7]));
        for (magic, entries, depth, parent, is_valid) in [
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
            let parsed = ExtentNode::parse(&node(magic, entries, depth, [0; EXTENT_SIZE]), parent);
            assert_eq!(parsed.is_ok(), is_valid, "{magic:#x} {entries} {depth} {parent:?}");
        }
        assert!(ExtentNode::parse(&[], None).is_err());
    }
}
