//! Reads ext4 file systems without a mount and without root, as far as is needed to find the block of one file. It only
//! reads.
//!
//! Source: the kernel's Documentation/filesystems/ext4. Numbers from the image are never trusted: all arithmetic is
//! checked, and all loops are bounded.

mod checksum;
mod content;
mod find;
mod layout;
mod superblock;

use std::borrow::Cow;
use std::cell::RefCell;

use crate::target::error::Result;
pub use find::{Found, OneBlockFile};
use layout::{Entries, Extent, ExtentNode, Fields};
use superblock::Superblock;

use super::medium::{BLOCK, BLOCK_BYTES, Medium};
pub use super::problem::Problem;

const ROOT_INODE: u32 = 2;
/// Mask of the file type in the mode of an inode (inode(7)).
const TYPE: u16 = 0o170_000;
const DIRECTORY: u16 = 0o040_000;
const FILE: u16 = 0o100_000;
const SYMLINK: u16 = 0o120_000;
/// Largest number of blocks of a directory or an extent tree: 40 MiB of names.
const MAX_BLOCKS: usize = 10_000;

/// Returns the size in bytes that the superblock in the first bytes of a file system claims.
///
/// # Errors
/// There is no superblock, or one that [`FileSystem::open`] would refuse.
pub fn claimed_size(head: &[u8]) -> Result<u64, Problem> {
    Ok(Superblock::parse(head, u64::MAX)?.blocks.saturating_mul(BLOCK))
}

/// Returns whether an image of `bytes` may contain a file system of `file_system` bytes: image builders append only a
/// small part, such as hashes.
pub fn is_plausible(bytes: u64, file_system: u64) -> bool {
    bytes <= file_system.saturating_add(file_system / 8).saturating_add(1 << 30)
}

fn damaged(how: impl Into<Cow<'static, str>>) -> Problem {
    Problem::Faulty(how.into())
}

/// The fields of an inode that are used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Inode number.
    pub number: u32,
    /// Type and permissions.
    mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// Number of hard links.
    pub links: u16,
    flags: u32,
    /// The root node of its extent tree.
    root: [u8; 60],
    /// The block of its extended attributes, or 0.
    attributes: u64,
    /// Whether it has an access control list (acl(5)), which may grant access that its mode does not. Lists in the
    /// block of extended attributes are found by [`FileSystem::find`] only.
    pub has_access_list: bool,
    /// Seed of the checksums of its blocks, if these have any.
    seed: Option<u32>,
}

impl Inode {
    /// Returns the permission bits.
    pub fn permissions(&self) -> u32 {
        u32::from(self.mode & 0o7777)
    }

    /// Returns whether it is immutable or append-only (chattr(1)).
    pub fn is_fixed(&self) -> bool {
        self.flags & layout::FIXED_FLAGS != 0
    }

    /// Returns its flags without those of [`Inode::is_fixed`].
    pub fn free_flags(&self) -> u32 {
        self.flags & !layout::FIXED_FLAGS
    }

    /// Returns whether it has a block of extended attributes.
    pub fn has_attributes_block(&self) -> bool {
        self.attributes != 0
    }

    /// Returns whether it is a file of this type.
    fn is(&self, kind: u16) -> bool {
        self.mode & TYPE == kind
    }
}

/// An open ext4 file system.
pub struct FileSystem<'m> {
    medium: &'m dyn Medium,
    head: Head,
    superblock: Superblock,
    /// Number and content of the last block of inodes that was read: the inodes on the path to a file mostly share one.
    inodes: RefCell<(u64, [u8; BLOCK_BYTES])>,
}

/// The first two blocks: the superblock, and the descriptors of the first groups. Reading them at once saves four
/// reads.
type Head = [u8; 2 * BLOCK_BYTES];

impl<'m> FileSystem<'m> {
    /// Reads the superblock, and refuses file systems that this code or `debugfs` could misread.
    ///
    /// # Errors
    /// The file system is damaged, dirty, or has features that are not known to be harmless.
    pub fn open(medium: &'m dyn Medium) -> Result<Self, Problem> {
        let system = Self::open_unclean(medium)?;
        if system.is_clean() { Ok(system) } else { Err(Problem::Unclean) }
    }

    /// Opens a file system for reading only, even if it was not unmounted cleanly. Changes that are only in its journal
    /// are ignored.
    ///
    /// # Errors
    /// The file system is damaged, or has features that are not known to be harmless.
    pub fn open_unclean(medium: &'m dyn Medium) -> Result<Self, Problem> {
        let mut head = [0; 2 * BLOCK_BYTES];
        // For a shorter medium, the superblock is refused, or missing.
        let length = usize::try_from(medium.size()).map_or(head.len(), |size| size.min(head.len()));
        let available = head.get_mut(..length).unwrap_or_default();
        medium.read_at(available, 0)?;
        let superblock = Superblock::parse_unclean(available, medium.size())?;
        Ok(Self { medium, head, superblock, inodes: RefCell::new((0, [0; BLOCK_BYTES])) })
    }

    /// Returns the size in bytes, according to the superblock.
    pub fn size(&self) -> u64 {
        // Parsing the superblock has checked that the medium is large enough.
        self.superblock.blocks.saturating_mul(BLOCK)
    }

    /// Returns whether it was unmounted cleanly.
    pub fn is_clean(&self) -> bool {
        self.superblock.is_clean
    }

    /// Returns whether the file system has the feature `metadata_csum_seed`.
    pub fn has_checksum_seed(&self) -> bool {
        self.superblock.has_checksum_seed
    }

    /// Returns a block number from the image, after checking that it is within the file system and not block 0.
    fn data_block(&self, block: u64) -> Result<u64, Problem> {
        if block == 0 || block >= self.superblock.blocks {
            return Err(damaged("a block number is outside the file system"));
        }
        Ok(block)
    }

    /// Looks up a name in a directory, and returns its inode.
    fn child(&self, directory: &Inode, name: &str) -> Result<Option<Inode>, Problem> {
        if !directory.is(DIRECTORY) {
            return Err(damaged("a directory inode is not a directory"));
        }
        let blocks = directory.size.div_ceil(BLOCK);
        let mut buffer = [0; BLOCK_BYTES];
        for extent in self.extents(directory)? {
            // Blocks that are allocated beyond the end of the directory are not part of it.
            for (logical, physical) in extent.blocks().take_while(|(logical, _)| *logical < blocks) {
                self.read_block(&mut buffer, physical)?;
                let is_index = layout::is_index(directory, logical, &buffer);
                checksum::check_directory(directory.seed, physical, &buffer, is_index)?;
                for entry in Entries::of(&buffer) {
                    let (inode, entry_name) = entry?;
                    if entry_name == name.as_bytes() {
                        return self.inode(inode).map(Some);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads an inode.
    fn inode(&self, number: u32) -> Result<Inode, Problem> {
        let sb = &self.superblock;
        let index =
            number.checked_sub(1).filter(|_| number <= sb.inodes).ok_or(damaged("an inode number is out of range"))?;
        let (group, index) = (index / sb.inodes_per_group, index % sb.inodes_per_group);
        let table = self.inode_table(group)?;
        // An inode never crosses blocks, because its size divides the block size.
        let offset = u64::from(index) * u64::from(sb.inode_size);
        let block = table.checked_add(offset / BLOCK).ok_or(damaged("an inode is outside the file system"))?;
        let mut cached = self.inodes.borrow_mut();
        if cached.0 != block {
            let (number, bytes) = &mut *cached;
            // Invalid while the read may fail.
            *number = 0;
            self.read_block(bytes, block)?;
            *number = block;
        }
        let start = usize::try_from(offset % BLOCK).unwrap_or_default();
        let bytes = cached.1.get(start..start + usize::from(sb.inode_size)).unwrap_or_default();
        let inode = layout::inode(number, bytes)?;
        Ok(Inode { seed: sb.checksums.check_inode(number, bytes)?, ..inode })
    }

    /// Returns the first block of the inode table of a group.
    fn inode_table(&self, group: u32) -> Result<u64, Problem> {
        let sb = &self.superblock;
        let offset = sb.descriptor_offset(group)?;
        let mut bytes = [0; 64];
        let bytes = bytes.get_mut(..usize::from(sb.descriptor_size)).unwrap_or_default();
        match usize::try_from(offset).ok().and_then(|start| self.head.get(start..start.checked_add(bytes.len())?)) {
            Some(descriptor) => bytes.copy_from_slice(descriptor),
            None => self.medium.read_at(bytes, offset)?,
        }
        sb.checksums.check_group(group, bytes)?;
        let fields = Fields(bytes);
        let high = if sb.descriptor_size >= 64 { fields.u32(0x28)? } else { 0 };
        self.data_block(u64::from(high) << 32 | u64::from(fields.u32(0x8)?))
    }

    /// Reads the extents of an inode, in the order of the extent tree.
    fn extents(&self, inode: &Inode) -> Result<Vec<Extent>, Problem> {
        layout::refuse_flags(inode.flags)?;
        let mut leaves = Vec::new();
        let mut nodes = vec![ExtentNode::parse(&inode.root, None)?];
        let mut read = 0;
        while let Some(node) = nodes.pop() {
            match node {
                ExtentNode::Leaf(extents) => {
                    leaves.extend(extents);
                    if leaves.len() > MAX_BLOCKS {
                        return Err(damaged("a file has too many extents"));
                    }
                }
                ExtentNode::Inner { depth, children } => {
                    // In reverse order, because the last node pushed is the first one popped.
                    for child in children.into_iter().rev() {
                        read += 1;
                        if read > MAX_BLOCKS {
                            return Err(damaged("a file has too many extents"));
                        }
                        let mut buffer = [0; BLOCK_BYTES];
                        self.read_block(&mut buffer, child)?;
                        checksum::check_extents(inode.seed, child, &buffer)?;
                        nodes.push(ExtentNode::parse(&buffer, Some(depth))?);
                    }
                }
            }
        }
        let blocks = leaves.iter().try_fold(0_u64, |total, extent: &Extent| total.checked_add(extent.length));
        if blocks.is_none_or(|blocks| inode.is(DIRECTORY) && blocks > MAX_BLOCKS as u64) {
            return Err(damaged("a directory is too large"));
        }
        Ok(leaves)
    }

    fn read_block(&self, buffer: &mut [u8; BLOCK_BYTES], block: u64) -> Result<(), Problem> {
        let offset =
            self.data_block(block)?.checked_mul(BLOCK).ok_or(damaged("a block number is outside the file system"))?;
        Ok(self.medium.read_at(buffer, offset)?)
    }
}

#[cfg(test)]
mod tests;
