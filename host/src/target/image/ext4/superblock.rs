//! Parses the superblock: sizes and features, and refuses file systems with features that are not supported.

use super::BLOCK;
use super::Problem::{self, Refused, Unclean};
use super::checksum::{Checksums, uuid};
use super::damaged;
use super::layout::Fields;
use crate::target::error::Result;

/// Offset of the superblock, in bytes.
const OFFSET: usize = 1024;
const MAGIC: u16 = 0xEF53;

/// The fields of the superblock that are needed to find an inode.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) blocks: u64,
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u16,
    pub(super) descriptor_size: u16,
    pub(super) has_checksum_seed: bool,
    /// Whether the file system was unmounted cleanly, without errors, orphans, or a journal to replay.
    pub(super) is_clean: bool,
    pub(super) checksums: Checksums,
    groups: u64,
}

/// `s_feature_incompat`: directory entries have types; the file system may be larger than 2^32 blocks.
const FILETYPE: u32 = 0x2;
const WIDE: u32 = 0x80;
/// `metadata_csum_seed`: the seed of the metadata checksums is a field of the superblock, not derived from the UUID.
const CHECKSUM_SEED: u32 = 0x2000;
/// Supported bits of `s_feature_incompat`, or those that do not matter for finding a file: filetype, extents, 64bit,
/// `flex_bg`, `csum_seed`, `large_dir`.
const KNOWN_INCOMPAT: u32 = FILETYPE | 0x40 | WIDE | 0x200 | CHECKSUM_SEED | 0x4000;
/// Bits of `s_feature_ro_compat` that do not matter here: `sparse_super`, `large_file`, `huge_file`,
/// `gdt_csum`, `dir_nlink`, `extra_isize`, `metadata_csum`, project (without project quotas).
const KNOWN_RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | GROUP_CHECKSUMS | 0x20 | 0x40 | METADATA_CHECKSUMS | 0x2000;
const GROUP_CHECKSUMS: u32 = 0x10;
const METADATA_CHECKSUMS: u32 = 0x400;
/// Bits of an unclean file system: a journal to replay (`recover`, incompat), and orphans to delete (`orphan_present`,
/// `ro_compat`).
const RECOVER: u32 = 0x4;
const ORPHANS: u32 = 0x1_0000;

const INCOMPAT: [(u32, &str); 9] = [
    (0x1, "has the compression feature; generate it without"),
    (0x8, "is the journal of another file system; name the image of the file system itself"),
    (0x10, "has the meta_bg feature; generate it without"),
    (0x100, "has the mmp feature, so it may be mounted on another host; generate it without"),
    (0x400, "has large extended attributes; generate it without the ea_inode feature"),
    (0x1000, "has the dirdata feature; generate it without"),
    (0x8000, "has inline data; generate it without the inline_data feature"),
    (0x1_0000, "has the encrypt feature; generate it without, or provision the rootfs directory"),
    (0x2_0000, "has the casefold feature; generate it without"),
];
const RO_COMPAT: [(u32, &str); 5] = [
    (0x100, "has quotas; generate it without the quota feature"),
    (0x200, "has the bigalloc feature; generate it without"),
    (0x1000, "is marked read-only; generate it without the read-only feature"),
    (0x4000, "has blocks that files share; generate it without the shared_blocks feature"),
    (0x8000, "has the verity feature; generate it without, or provision the rootfs directory"),
];

impl Superblock {
    /// Parses the superblock of a file system that starts with the bytes `head`, in a medium of `size` bytes. Refuses
    /// an unclean one.
    pub(super) fn parse(head: &[u8], size: u64) -> Result<Self, Problem> {
        let superblock = Self::parse_unclean(head, size)?;
        if superblock.is_clean { Ok(superblock) } else { Err(Unclean) }
    }

    /// Parses the superblock as [`Superblock::parse`] does, but accepts an unclean file system.
    pub(super) fn parse_unclean(head: &[u8], size: u64) -> Result<Self, Problem> {
        let bytes = head.get(OFFSET..OFFSET + 1024).ok_or(damaged("it ends before the end of its superblock"))?;
        let f = Fields(bytes);
        if f.u16(0x38)? != MAGIC {
            return Err(damaged("it has no superblock"));
        }
        let (incompat, ro_compat) = (f.u32(0x60)?, f.u32(0x64)?);
        // First, so that a wrong byte is reported as a wrong checksum and not as something else.
        let checksums = checksums(bytes, incompat, ro_compat)?;
        if f.u32(0x18)? != 2 {
            return Err(Refused("has blocks of another size than 4096 bytes; generate it with `mkfs.ext4 -b 4096`"));
        }
        if f.u32(0x4C)? == 0 {
            return Err(Refused(
                "has ext4 revision 0, which has no features; generate it with `mkfs.ext4`, without `-r 0`",
            ));
        }
        refuse_features(incompat, ro_compat)?;
        // s_state: cleanly unmounted, without errors, without orphans.
        let is_unmounted = f.u16(0x3A)? & 0x7 == 1 && f.u32(0xE8)? == 0;
        let is_wide = incompat & WIDE != 0;
        let high = if is_wide { f.u32(0x150)? } else { 0 };
        let (blocks, per_group) = (u64::from(high) << 32 | u64::from(f.u32(0x4)?), f.u32(0x20)?);
        let superblock = Self {
            blocks,
            inodes: f.u32(0x0)?,
            inodes_per_group: f.u32(0x28)?,
            inode_size: f.u16(0x58)?,
            descriptor_size: if is_wide { f.u16(0xFE)? } else { 32 },
            has_checksum_seed: incompat & CHECKSUM_SEED != 0,
            is_clean: is_unmounted && incompat & RECOVER == 0 && ro_compat & ORPHANS == 0,
            checksums,
            groups: blocks.div_ceil(u64::from(per_group.max(1))),
        };
        superblock.check(per_group, f.u32(0x14)?, size)?;
        Ok(superblock)
    }

    /// Checks that the sizes are consistent, and that the file system fits into the medium.
    fn check(&self, blocks_per_group: u32, first_block: u32, size: u64) -> Result<(), Problem> {
        let is_plausible = blocks_per_group > 0
            && first_block == 0
            && self.inodes_per_group > 0
            && (128..=4096).contains(&self.inode_size)
            && self.inode_size.is_power_of_two()
            && matches!(self.descriptor_size, 32 | 64)
            && u64::from(self.inodes) <= self.groups.saturating_mul(self.inodes_per_group.into());
        if !is_plausible {
            return Err(damaged("its superblock contradicts itself"));
        }
        if self.blocks.checked_mul(BLOCK).is_none_or(|bytes| bytes > size) {
            return Err(Refused("is truncated: the file system is larger than the file; copy or generate it again"));
        }
        Ok(())
    }

    /// Returns the offset of the descriptor of a group, in bytes.
    pub(super) fn descriptor_offset(&self, group: u32) -> Result<u64, Problem> {
        if u64::from(group) >= self.groups {
            return Err(damaged("an inode number is in no group"));
        }
        Ok(BLOCK + u64::from(group) * u64::from(self.descriptor_size))
    }
}

/// Returns which metadata has checksums, after verifying that of the superblock.
fn checksums(bytes: &[u8], incompat: u32, ro_compat: u32) -> Result<Checksums, Problem> {
    if ro_compat & METADATA_CHECKSUMS != 0 {
        return Checksums::of_superblock(bytes, incompat & CHECKSUM_SEED != 0);
    }
    Ok(if ro_compat & GROUP_CHECKSUMS != 0 { Checksums::Groups(uuid(bytes)?) } else { Checksums::None })
}

/// Refuses features that are not known to be harmless.
fn refuse_features(incompat: u32, ro_compat: u32) -> Result<(), Problem> {
    let find_in =
        |bits: u32, table: &[(u32, &'static str)]| table.iter().find(|(bit, _)| bits & bit != 0).map(|(_, why)| *why);
    if let Some(why) = find_in(incompat, &INCOMPAT).or_else(|| find_in(ro_compat, &RO_COMPAT)) {
        return Err(Refused(why));
    }
    if incompat & FILETYPE == 0 {
        return Err(Refused("lacks the filetype feature; generate it with the default features of mkfs.ext4"));
    }
    if incompat & !(KNOWN_INCOMPAT | RECOVER) != 0 || ro_compat & !(KNOWN_RO_COMPAT | ORPHANS) != 0 {
        return Err(Refused(
            "has features that this version does not know; generate it with the default features of mkfs.ext4",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size of a file that is large enough for the file system, in bytes.
    const SIZE: u64 = 40_000 * BLOCK;

    /// Returns the start of a file system of two groups, with changed 32-bit and 16-bit fields.
    fn head(wide: &[(usize, u32)], narrow: &[(usize, u16)]) -> Vec<u8> {
        let mut head = vec![0; OFFSET + 1024];
        let mut set = |at: usize, bytes: &[u8]| head[OFFSET + at..][..bytes.len()].copy_from_slice(bytes);
        let defaults = [(0x0, 4096), (0x4, 40_000), (0x18, 2), (0x20, 32_768), (0x28, 2048), (0x4C, 1), (0x60, 0x2C2)];
        for (at, value) in defaults.iter().chain(wide) {
            set(*at, &value.to_le_bytes());
        }
        for (at, value) in [(0x38, MAGIC), (0x3A, 1), (0x58, 256), (0xFE, 64)].iter().chain(narrow) {
            set(*at, &value.to_le_bytes());
        }
        head
    }

    fn parse(wide: &[(usize, u32)], narrow: &[(usize, u16)], size: u64) -> Result<Superblock, String> {
        Superblock::parse(&head(wide, narrow), size).map_err(|problem| problem.to_string())
    }

    /// Returns blocks, inodes, inodes per group, bytes of an inode and of a descriptor, and groups.
    fn sizes(superblock: &Superblock) -> (u64, u32, u32, u16, u16, u64) {
        let Superblock { blocks, inodes, inodes_per_group, inode_size, descriptor_size, groups, .. } = *superblock;
        (blocks, inodes, inodes_per_group, inode_size, descriptor_size, groups)
    }

    // Promise: sizes are read as the features and the revision require.
    #[test]
    fn sizes_are_read() {
        let superblock = parse(&[], &[], SIZE).unwrap();
        assert_eq!(sizes(&superblock), (40_000, 4096, 2048, 256, 64, 2));
        let offsets = [0, 1, 2].map(|group| superblock.descriptor_offset(group).ok());
        assert_eq!(offsets, [Some(4096), Some(4096 + 64), None]);
        let blocks = (3 << 32) + 40_000;
        let large = parse(&[(0x150, 3)], &[], blocks * BLOCK).unwrap();
        assert_eq!((large.blocks, large.groups), (blocks, blocks.div_ceil(32_768)));
        // Without the feature 64bit, both fields are ignored.
        let narrow = parse(&[(0x60, 0x242), (0x150, 3)], &[], SIZE).unwrap();
        assert_eq!(sizes(&narrow), (40_000, 4096, 2048, 256, 32, 2));
        assert!(parse(&[(0x4C, 0)], &[], SIZE).unwrap_err().contains("revision 0"));
        for (inode, descriptor) in [(128, 32), (4096, 64)] {
            let superblock = parse(&[], &[(0x58, inode), (0xFE, descriptor)], SIZE).unwrap();
            assert_eq!((superblock.inode_size, superblock.descriptor_size), (inode, descriptor));
        }
    }

    // Promise: metadata_csum_seed is reported if and only if the file system has it.
    #[test]
    fn checksum_seed_is_reported() {
        for (incompat, expected) in [(0x2C2, false), (0x2C2 | 0x2000, true), (0x2C2 | 0x4000, false)] {
            assert_eq!(parse(&[(0x60, incompat)], &[], SIZE).unwrap().has_checksum_seed, expected, "{incompat:#x}");
        }
    }

    // Promise: a truncated, unclean or contradictory superblock is refused.
    #[test]
    fn invalid_superblocks_are_refused() {
        const CONTRADICTION: &str = "contradicts itself";
        const UNCLEAN: &str = "not unmounted cleanly";
        for (at, value, says) in [
            (0x0, 4097, CONTRADICTION),
            (0x14, 1, CONTRADICTION),
            (0x18, 1, "another size than 4096"),
            (0x20, 0, CONTRADICTION),
            (0x28, 0, CONTRADICTION),
            (0xE8, 12, UNCLEAN),
            (0x4, 40_001, "is truncated"),
            (0x150, 1, "is truncated"),
            (0x150, u32::MAX, "is truncated"),
        ] {
            let said = parse(&[(at, value)], &[], SIZE).unwrap_err();
            assert!(said.contains(says), "{at:#x} {value}: {said}");
        }
        for (at, value, says) in [
            (0x38, MAGIC ^ 1, "no superblock"),
            (0x3A, 0, UNCLEAN),
            (0x3A, 3, UNCLEAN),
            (0x3A, 5, UNCLEAN),
            (0x58, 64, CONTRADICTION),
            (0x58, 192, CONTRADICTION),
            (0x58, 8192, CONTRADICTION),
            (0xFE, 48, CONTRADICTION),
        ] {
            let said = parse(&[], &[(at, value)], SIZE).unwrap_err();
            assert!(said.contains(says), "{at:#x} {value}: {said}");
        }
        // With no inodes at all, the number per group would be plausible otherwise.
        assert!(parse(&[(0x0, 0), (0x28, 0)], &[], SIZE).unwrap_err().contains(CONTRADICTION));
        let whole = head(&[], &[]);
        assert!(Superblock::parse(&whole[..whole.len() - 1], SIZE).unwrap_err().to_string().contains("it ends before"));
        assert!(parse(&[], &[], SIZE - 1).unwrap_err().contains("is truncated"));
    }

    // Promise: features that are known to be harmless are accepted; all others are refused, by name if they are known.
    #[test]
    fn each_feature() {
        let default = 0x2C2;
        for bit in (0..32).map(|bit| 1_u32 << bit) {
            let says = |table: &[(u32, &'static str)], harmless: u32, unclean: u32| match table
                .iter()
                .find(|(named, _)| *named == bit)
            {
                Some((_, why)) => Some(*why),
                None if bit == unclean => Some("not unmounted cleanly"),
                None if harmless & bit != 0 => None,
                None => Some("does not know"),
            };
            for (at, value, says) in [
                (0x60, default | bit, says(&INCOMPAT, 0x62C2, RECOVER)),
                (0x64, bit, says(&RO_COMPAT, 0x247B, ORPHANS)),
            ] {
                if (at, value) == (0x64, METADATA_CHECKSUMS) {
                    // The superblock of this test has no valid checksum.
                    continue;
                }
                match (parse(&[(at, value)], &[], SIZE), says) {
                    (Ok(_), None) => {}
                    (Err(said), Some(says)) if said.contains(says) => {}
                    (parsed, _) => panic!("{at:#x} {bit:#x}: {parsed:?}"),
                }
            }
        }
        assert!(parse(&[(0x60, default & !FILETYPE)], &[], SIZE).unwrap_err().contains("lacks the filetype feature"));
    }
}
