//! Verifies the checksums of ext4's metadata: the kernel refuses to read metadata with a wrong checksum.
//!
//! Source: the kernel's Documentation/filesystems/ext4 ("Checksums").

use crc::{Algorithm, CRC_16_MODBUS, CRC_32_ISCSI, Crc, Table};

use super::BLOCK_BYTES;
use super::Problem;
use super::damaged;
use super::layout::Fields;

/// crc32c without the final inversion, so that each result is the seed of the next part.
const WITHOUT_INVERSION: Algorithm<u32> = Algorithm { xorout: 0, ..CRC_32_ISCSI };
// Sixteen tables for speed: each device reads about ten blocks several times.
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&WITHOUT_INVERSION);
static CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);

/// `s_checksum_type`: crc32c, the only type that exists.
const TYPE_CRC32C: u8 = 1;
/// Offset of the superblock's checksum, which covers all bytes before it.
const OF_SUPERBLOCK: usize = 0x3FC;
/// Offset of `bg_checksum` in a group descriptor.
const OF_GROUP: usize = 0x1E;
/// Offsets of the two halves of an inode's checksum.
const OF_INODE: [usize; 2] = [0x7C, 0x82];
/// Offset of `h_checksum` in a block of extended attributes.
const OF_ATTRIBUTES: usize = 0x10;
/// Offset of the checksum entry of a directory block, which looks like a last entry: no inode, 12 bytes, no name, type
/// 0xDE; the checksum follows.
const DIRECTORY_TAIL: usize = BLOCK_BYTES - 12;
/// Start of the checksum entry of a directory block.
const DIRECTORY_TAIL_START: [u8; 8] = [0, 0, 0, 0, 12, 0, 0, 0xDE];

/// Which metadata of a file system has checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksums {
    /// None.
    None,
    /// Group descriptors only (`gdt_csum`), with the UUID of the file system.
    Groups([u8; 16]),
    /// All metadata (`metadata_csum`), with the seed.
    All(u32),
}

/// Computes the crc32c of several parts, without the final inversion.
fn crc32c(seed: u32, parts: &[&[u8]]) -> u32 {
    // The crate takes an initial value in the order of bits before reflection.
    let mut digest = CRC32C.digest_with_initial(seed.reverse_bits());
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

/// Returns an error that names a structure, unless its checksum is correct.
fn check(is_correct: bool, of: impl FnOnce() -> String) -> Result<(), Problem> {
    if is_correct { Ok(()) } else { Err(damaged(format!("the checksum of {} is wrong", of()))) }
}

/// A structure split at a field of `N` bytes: the bytes before it, the field, and the bytes after it.
type Around<'b, const N: usize> = (&'b [u8], [u8; N], &'b [u8]);

/// Splits a structure at a field.
fn around<const N: usize>(bytes: &[u8], offset: usize) -> Result<Around<'_, N>, Problem> {
    let parts = bytes.split_at_checked(offset).and_then(|(before, rest)| {
        let (field, behind) = rest.split_first_chunk()?;
        Some((before, *field, behind))
    });
    parts.ok_or(damaged("a structure is truncated"))
}

impl Checksums {
    /// Returns the checksums of a file system with `metadata_csum`, after verifying that of its superblock. `has_seed`
    /// is the feature `metadata_csum_seed`.
    pub(super) fn of_superblock(bytes: &[u8], has_seed: bool) -> Result<Self, Problem> {
        let f = Fields(bytes);
        if f.bytes(0x175)? != [TYPE_CRC32C] {
            return Err(damaged("its checksums are of an unknown type"));
        }
        let (before, checksum, _) = around(bytes, OF_SUPERBLOCK)?;
        check(crc32c(!0, &[before]) == u32::from_le_bytes(checksum), || "the superblock".to_owned())?;
        Ok(Self::All(if has_seed { f.u32(0x270)? } else { crc32c(!0, &[&uuid(bytes)?]) }))
    }

    /// Verifies a group descriptor.
    pub(super) fn check_group(self, group: u32, descriptor: &[u8]) -> Result<(), Problem> {
        let (before, checksum, behind) = around(descriptor, OF_GROUP)?;
        let number = group.to_le_bytes();
        let expected = match self {
            Self::None => return Ok(()),
            Self::Groups(uuid) => {
                let mut digest = CRC16.digest();
                for part in [&uuid[..], &number, before, behind] {
                    digest.update(part);
                }
                digest.finalize().to_le_bytes()
            }
            Self::All(seed) => {
                let [low, high, ..] = crc32c(seed, &[&number, before, &[0; 2], behind]).to_le_bytes();
                [low, high]
            }
        };
        check(expected == checksum, || format!("group descriptor {group}"))
    }

    /// Verifies an inode, given with all its bytes. Returns the seed for its blocks, if these have checksums.
    pub(super) fn check_inode(self, number: u32, bytes: &[u8]) -> Result<Option<u32>, Problem> {
        let Self::All(seed) = self else { return Ok(None) };
        let f = Fields(bytes);
        let seed = crc32c(seed, &[&number.to_le_bytes(), &f.bytes::<4>(0x64)?]);
        let [low, high] = OF_INODE;
        // i_extra_isize says whether the high half is part of the inode.
        let has_high = bytes.len() > 128 && f.u16(0x80)? >= 4;
        let (before, low, behind) = around(bytes, low)?;
        let (expected, stored) = if has_high {
            let (_, high, last) = around(bytes, high)?;
            let between = behind.get(..OF_INODE[1] - OF_INODE[0] - 2).unwrap_or_default();
            let stored = u32::from(u16::from_le_bytes(high)) << 16 | u32::from(u16::from_le_bytes(low));
            (crc32c(seed, &[before, &[0; 2], between, &[0; 2], last]), stored)
        } else {
            (crc32c(seed, &[before, &[0; 2], behind]) & 0xFFFF, u16::from_le_bytes(low).into())
        };
        check(expected == stored, || format!("inode {number}"))?;
        Ok(Some(seed))
    }

    /// Verifies a block of extended attributes.
    pub(super) fn check_attributes(self, number: u64, block: &[u8]) -> Result<(), Problem> {
        let Self::All(seed) = self else { return Ok(()) };
        let (before, checksum, behind) = around(block, OF_ATTRIBUTES)?;
        let expected = crc32c(seed, &[&number.to_le_bytes(), before, &[0; 4], behind]);
        check(expected == u32::from_le_bytes(checksum), || format!("block {number}, of extended attributes,"))
    }
}

/// Returns `s_uuid` of a superblock.
pub(super) fn uuid(superblock: &[u8]) -> Result<[u8; 16], Problem> {
    Fields(superblock).bytes(0x68)
}

/// Verifies a block of an extent tree; `seed` is that of its inode.
pub(super) fn check_extents(seed: Option<u32>, number: u64, block: &[u8]) -> Result<(), Problem> {
    let Some(seed) = seed else { return Ok(()) };
    // The checksum follows the header and the space for entries.
    let end = 12 + 12 * usize::from(Fields(block).u16(4)?);
    let (before, checksum, _) = around(block, end)?;
    check(crc32c(seed, &[before]) == u32::from_le_bytes(checksum), || format!("block {number}, of extents,"))
}

/// Verifies a block of a directory; `is_index` if it is an inner block of a hash tree.
pub(super) fn check_directory(seed: Option<u32>, number: u64, block: &[u8], is_index: bool) -> Result<(), Problem> {
    let Some(seed) = seed else { return Ok(()) };
    let is_correct = if is_index { is_index_correct(seed, block)? } else { is_leaf_correct(seed, block)? };
    check(is_correct, || format!("block {number}, of a directory,"))
}

fn is_leaf_correct(seed: u32, block: &[u8]) -> Result<bool, Problem> {
    let (names, tail) = block.split_at_checked(DIRECTORY_TAIL).ok_or(damaged("a structure is truncated"))?;
    let checksum = crc32c(seed, &[names]).to_le_bytes();
    Ok(tail.starts_with(&DIRECTORY_TAIL_START) && tail.ends_with(&checksum))
}

fn is_index_correct(seed: u32, block: &[u8]) -> Result<bool, Problem> {
    let f = Fields(block);
    // The entries follow ".", ".." and the header of the root, or one entry without a name.
    let entries = if f.u16(4)? == 12 { 32 } else { 8 };
    let (limit, count) = (usize::from(f.u16(entries)?), usize::from(f.u16(entries + 2)?));
    let used = block.get(..entries + 8 * count.min(limit));
    // With a wrong limit, the checksum would be outside the block.
    let (Some(used), Ok((_, reserved, rest))) = (used, around::<4>(block, entries + 8 * limit)) else {
        return Ok(false);
    };
    Ok(rest.starts_with(&crc32c(seed, &[used, &reserved, &[0; 4]]).to_le_bytes()))
}
