//! The superblock: sizes, and what this file system has that others may not have.

use super::BLOCK;
use super::Problem::{self, Refused};
use super::damaged;
use super::layout::Fields;

const PLACE: usize = 1024;
const MAGIC: u16 = 0xEF53;

/// What is needed to find an inode.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) blocks: u64,
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u16,
    pub(super) descriptor_size: u16,
    groups: u64,
}

/// `s_feature_incompat`: directory entries have types; the file system may be larger than 2^32 blocks.
const FILETYPE: u32 = 0x2;
const WIDE: u32 = 0x80;
/// What changes nothing on the way to a file, or is known here: filetype, extents, 64bit, `flex_bg`, `csum_seed`,
/// `large_dir`.
const KNOWN_INCOMPAT: u32 = FILETYPE | 0x40 | WIDE | 0x200 | 0x2000 | 0x4000;
/// The bits of `s_feature_ro_compat` that are harmless to what is done here: `sparse_super`, `large_file`, `huge_file`,
/// `gdt_csum`, `dir_nlink`, `extra_isize`, `metadata_csum`, project (without accounts of it).
const KNOWN_RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x400 | 0x2000;

const DIRTY: &str =
    "was not unmounted cleanly: its journal has to be replayed first; unmount it, or run `e2fsck -f` on it";
const INCOMPAT: [(u32, &str); 7] = [
    (0x4, DIRTY),
    (0x8, "is the journal of another file system; name the one with the files"),
    (0x10, "has the meta_bg feature; generate it without"),
    (0x100, "has the mmp feature: it may be mounted elsewhere; generate it without"),
    (0x8000, "has inline data; generate it without the inline_data feature"),
    (0x1_0000, "has the encrypt feature; generate it without, or provision the rootfs directory"),
    (0x2_0000, "has the casefold feature; generate it without"),
];
const RO_COMPAT: [(u32, &str); 6] = [
    (0x100, "has quotas; generate it without the quota feature"),
    (0x200, "has the bigalloc feature; generate it without"),
    (0x1000, "is marked read-only; generate it without the read-only feature"),
    (0x4000, "has blocks that files share; generate it without the shared_blocks feature"),
    (0x8000, "has the verity feature; generate it without, or provision the rootfs directory"),
    (0x1_0000, DIRTY),
];

impl Superblock {
    /// Of a file system that starts with these bytes, in a medium of that size.
    pub(super) fn parse(head: &[u8], size: u64) -> Result<Self, Problem> {
        let f = Fields(head.get(PLACE..PLACE + 1024).ok_or(damaged("it ends before its superblock does"))?);
        if f.u16(0x38)? != MAGIC {
            return Err(damaged("it has no superblock"));
        }
        if f.u32(0x18)? != 2 {
            return Err(Refused("has blocks of another size than 4096 bytes; generate it with `mkfs.ext4 -b 4096`"));
        }
        let incompat = f.u32(0x60)?;
        refuse_features(incompat, f.u32(0x64)?)?;
        // s_state: cleanly unmounted, without errors, without orphans.
        if f.u16(0x3A)? & 0x7 != 1 || f.u32(0xE8)? != 0 {
            return Err(Refused(DIRTY));
        }
        let is_wide = incompat & WIDE != 0;
        let high = if is_wide { f.u32(0x150)? } else { 0 };
        let (blocks, per_group) = (u64::from(high) << 32 | u64::from(f.u32(0x4)?), f.u32(0x20)?);
        // Of revision 0, which had only this size.
        let inode_size = if f.u32(0x4C)? == 0 { 128 } else { f.u16(0x58)? };
        let superblock = Self {
            blocks,
            inodes: f.u32(0x0)?,
            inodes_per_group: f.u32(0x28)?,
            inode_size,
            descriptor_size: if is_wide { f.u16(0xFE)? } else { 32 },
            groups: blocks.div_ceil(u64::from(per_group.max(1))),
        };
        superblock.check(per_group, f.u32(0x14)?, size)?;
        Ok(superblock)
    }

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
            return Err(Refused("is cut: the file system is larger than the file; copy or generate it again"));
        }
        Ok(())
    }

    /// Where the descriptor of a group lies.
    pub(super) fn descriptor_place(&self, group: u32) -> Result<u64, Problem> {
        if u64::from(group) >= self.groups {
            return Err(damaged("an inode lies in no group"));
        }
        Ok(BLOCK + u64::from(group) * u64::from(self.descriptor_size))
    }
}

fn refuse_features(incompat: u32, ro_compat: u32) -> Result<(), Problem> {
    let bad =
        |bits: u32, table: &[(u32, &'static str)]| table.iter().find(|(bit, _)| bits & bit != 0).map(|(_, why)| *why);
    if let Some(why) = bad(incompat, &INCOMPAT).or_else(|| bad(ro_compat, &RO_COMPAT)) {
        return Err(Refused(why));
    }
    if incompat & !KNOWN_INCOMPAT != 0 || ro_compat & !KNOWN_RO_COMPAT != 0 || incompat & FILETYPE == 0 {
        return Err(Refused(
            "has features that this version does not know; generate it with those of mkfs.ext4's defaults",
        ));
    }
    Ok(())
}
