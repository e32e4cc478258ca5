//! Parses the on-disk structures of ext4: inodes and extended attributes here, extents and directory entries in the
//! submodules.

mod entries;
mod extent;

use super::BLOCK_BYTES;
use super::Inode;
use super::Problem::{self, Refused};
use super::damaged;
use crate::target::error::Result;
pub(super) use entries::Entries;
pub(super) use extent::{Extent, ExtentNode};

/// Reads little-endian numbers at offsets of a structure.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N], Problem> {
        let rest = self.0.get(offset..).unwrap_or_default();
        rest.first_chunk().copied().ok_or(damaged("a structure is truncated"))
    }

    pub(super) fn u16(&self, offset: usize) -> Result<u16, Problem> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&self, offset: usize) -> Result<u32, Problem> {
        self.bytes(offset).map(u32::from_le_bytes)
    }
}

/// Flags of inodes whose content is not stored in plain extents, and why they are refused.
const REFUSED_FLAGS: [(u32, &str); 5] = [
    (0x200, "has compressed files or directories on the path to the file; generate it without compression"),
    (0x800, "has encrypted files or directories on the path to the file; generate it without the encrypt feature"),
    (0x10_0000, "has files with verity on the path to the file; generate it without the verity feature"),
    (0x20_0000, "has large extended attributes on the path to the file; generate it without the ea_inode feature"),
    (0x1000_0000, "has inline data; generate it without the inline_data feature"),
];
const EXTENTS_FLAG: u32 = 0x8_0000;
/// Immutable and append-only: flags that a slot must not have.
pub(super) const FIXED_FLAGS: u32 = 0x10 | 0x20;
const INDEX_FLAG: u32 = 0x1000;

/// Magic number of extended attributes in an inode and in a block, and the offset of the entries in a block.
const ATTRIBUTES_MAGIC: [u8; 4] = 0xEA02_0000_u32.to_le_bytes();
const ATTRIBUTES_HEADER: usize = 32;
/// Name indices of access control lists: `posix_acl_access`, `posix_acl_default`, `richacl`.
const ACCESS_LISTS: [u8; 3] = [2, 3, 8];

/// Refuses inodes whose content is not stored in plain extents.
pub(super) fn refuse_flags(flags: u32) -> Result<(), Problem> {
    if let Some((_, why)) = REFUSED_FLAGS.iter().find(|(flag, _)| flags & flag != 0) {
        return Err(Refused(why));
    }
    if flags & EXTENTS_FLAG == 0 {
        return Err(Refused("has files without extents, as ext3 has; generate it as ext4"));
    }
    Ok(())
}

/// Returns whether an access control list is among the entries of extended attributes.
fn has_access_list(mut entries: &[u8]) -> Result<bool, Problem> {
    while let Some(&[name_length, index, ..]) = entries.first_chunk::<4>().filter(|start| **start != [0; 4]) {
        if ACCESS_LISTS.contains(&index) {
            return Ok(true);
        }
        let length = 16 + usize::from(name_length).next_multiple_of(4);
        entries = entries.get(length..).ok_or(damaged("an extended attribute is truncated"))?;
    }
    Ok(false)
}

/// Returns whether a block of extended attributes contains an access control list.
pub(super) fn block_has_access_list(block: &[u8]) -> Result<bool, Problem> {
    if !block.starts_with(&ATTRIBUTES_MAGIC) {
        return Err(damaged("a block of extended attributes has no magic number"));
    }
    has_access_list(block.get(ATTRIBUTES_HEADER..).unwrap_or_default())
}

/// Returns whether the extended attributes in an inode, which follow its fields, contain an access control list.
fn inode_has_access_list(bytes: &[u8]) -> Result<bool, Problem> {
    let start = 128 + usize::from(Fields(bytes).u16(128).unwrap_or_default());
    let attributes = bytes.get(start..).unwrap_or_default();
    attributes.strip_prefix(&ATTRIBUTES_MAGIC).map_or(Ok(false), has_access_list)
}

/// Returns whether a block of a directory is an inner block of its hash tree.
pub(super) fn is_index(inode: &Inode, logical: u64, block: &[u8; BLOCK_BYTES]) -> bool {
    let is_one_entry = Fields(block).u16(4).is_ok_and(|length| usize::from(length) == BLOCK_BYTES);
    inode.flags & INDEX_FLAG != 0 && (logical == 0 || is_one_entry)
}

/// Parses a `struct ext4_inode`.
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
        return Err(damaged("a name refers to an inode that is not in use"));
    }
    Ok(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: all fields of an inode are read, with their high halves; an inode without a name is refused.
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

    // Promise: an inode whose content is not stored in plain extents is refused, with the reason.
    #[test]
    fn special_content_is_refused() {
        assert!(refuse_flags(EXTENTS_FLAG).is_ok());
        // A directory with a hash tree: its inner blocks look like unused entries.
        assert!(refuse_flags(EXTENTS_FLAG | 0x1000).is_ok());
        assert!(refuse_flags(0x1000).unwrap_err().to_string().contains("without extents"));
        for (flag, why) in REFUSED_FLAGS {
            assert_eq!(refuse_flags(EXTENTS_FLAG | flag).unwrap_err().to_string(), why);
        }
    }
}
