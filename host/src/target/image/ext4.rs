//! As much of ext4 as it takes to find the block of one file, without a mount and without root. It only reads.
//!
//! Source: the kernel's Documentation/filesystems/ext4. Numbers from the image are never trusted: all arithmetic is
//! checked, all loops have an end.

mod checksum;
mod content;
mod layout;
mod superblock;

use std::borrow::Cow;
use std::cell::RefCell;

use crate::target::error::Result;
use layout::{Entries, Extent, ExtentNode, Fields};
use superblock::Superblock;

use super::medium::{BLOCK, BLOCK_BYTES, Medium};
pub use super::problem::Problem;
use Problem::Refused;

const ROOT_INODE: u32 = 2;
/// The file type of an inode's mode (inode(7)).
const TYPE: u16 = 0o170_000;
const FOLDER: u16 = 0o040_000;
const FILE: u16 = 0o100_000;
const SYMLINK: u16 = 0o120_000;
/// Blocks that a folder or a tree of extents may have: 40 MiB of names.
const MOST_BLOCKS: usize = 10_000;

/// Bytes of the file system whose first bytes these are, by its superblock.
///
/// # Errors
/// There is none, or one that [`FileSystem::open`] would refuse.
pub fn claimed_size(head: &[u8]) -> Result<u64, Problem> {
    Ok(Superblock::parse(head, u64::MAX)?.blocks.saturating_mul(BLOCK))
}

/// Whether content of so many bytes may be an image of a file system of that size: what builders append, such as hashes, is a
/// small part of it.
pub fn is_plausible(bytes: u64, file_system: u64) -> bool {
    bytes <= file_system.saturating_add(file_system / 8).saturating_add(1 << 30)
}

fn damaged(how: impl Into<Cow<'static, str>>) -> Problem {
    Problem::Faulty(how.into())
}

/// An inode, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub number: u32,
    /// Type and permissions.
    mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// Names that it has.
    pub links: u16,
    flags: u32,
    /// The root of its extents.
    root: [u8; 60],
    /// The block of its extended attributes, or 0.
    attributes: u64,
    /// Whether an access control list (acl(5)) lets in others than its mode does; of what is in its block of attributes,
    /// [`FileSystem::find`] says it.
    pub has_access_list: bool,
    /// Of the checksums of its blocks.
    seed: Option<u32>,
}

impl Inode {
    /// Permission bits.
    pub fn permissions(&self) -> u32 {
        u32::from(self.mode & 0o7777)
    }

    /// Whether it may not be changed or only be appended to (chattr(1)).
    pub fn is_fixed(&self) -> bool {
        self.flags & layout::FIXED_FLAGS != 0
    }

    /// Its flags without those of [`Inode::is_fixed`].
    pub fn free_flags(&self) -> u32 {
        self.flags & !layout::FIXED_FLAGS
    }

    /// Whether it has a block of extended attributes.
    pub fn has_attributes_block(&self) -> bool {
        self.attributes != 0
    }

    fn is(&self, kind: u16) -> bool {
        self.mode & TYPE == kind
    }
}

/// A file whose content is one block at most, unless others made it.
#[derive(Debug)]
pub struct OneBlockFile {
    /// Its inode.
    pub inode: Inode,
    /// The only block that it has, which is its content; none if it is empty or lies otherwise.
    pub block: Option<u64>,
    /// Where its content starts, if it is not empty there.
    pub first: Option<u64>,
    /// All blocks that it has.
    pub all: Vec<u64>,
}

/// What is on the way to a file, and there.
#[derive(Debug)]
pub struct Found {
    /// The folder it is in, if that is there.
    pub folder: Option<Inode>,
    /// The file.
    pub file: Option<OneBlockFile>,
}

/// A file system.
pub struct FileSystem<'m> {
    medium: &'m dyn Medium,
    head: Head,
    superblock: Superblock,
    /// The block of inodes that was read last, and its number: those on the way to a file mostly share one.
    inodes: RefCell<(u64, [u8; BLOCK_BYTES])>,
}

/// The first blocks: the superblock's, and one of descriptors, which are those of the first groups. One read instead of
/// five.
type Head = [u8; 2 * BLOCK_BYTES];

impl<'m> FileSystem<'m> {
    /// Reads the superblock, and refuses what this code or `debugfs` could get wrong.
    ///
    /// # Errors
    /// It is damaged, dirty, or has features that are not known to be harmless.
    pub fn open(medium: &'m dyn Medium) -> Result<Self, Problem> {
        let system = Self::open_unclean(medium)?;
        if system.is_clean() { Ok(system) } else { Err(Problem::Unclean) }
    }

    /// The same to read what is there, of one that may not have been unmounted cleanly: what is in its journal is not seen.
    ///
    /// # Errors
    /// It is damaged, or has features that are not known to be harmless.
    pub fn open_unclean(medium: &'m dyn Medium) -> Result<Self, Problem> {
        let mut head = [0; 2 * BLOCK_BYTES];
        // A shorter one is refused for what its superblock says, if it has one.
        let length = usize::try_from(medium.size()).map_or(head.len(), |size| size.min(head.len()));
        let there = head.get_mut(..length).unwrap_or_default();
        medium.read_at(there, 0)?;
        let superblock = Superblock::parse_unclean(there, medium.size())?;
        Ok(Self { medium, head, superblock, inodes: RefCell::new((0, [0; BLOCK_BYTES])) })
    }

    /// Bytes of the file system, by its superblock.
    pub fn size(&self) -> u64 {
        // That they are not more than the medium has was checked.
        self.superblock.blocks.saturating_mul(BLOCK)
    }

    /// Whether it was unmounted cleanly.
    pub fn is_clean(&self) -> bool {
        self.superblock.is_clean
    }

    /// Whether the file system has the feature `metadata_csum_seed`.
    pub fn has_checksum_seed(&self) -> bool {
        self.superblock.has_checksum_seed
    }

    /// Goes from the root folder through `folders` to the file `name`. Symlinks are not followed.
    ///
    /// # Errors
    /// Something on the way is missing (but for the last folder), or no folder; the file is no ordinary one of one block.
    pub fn find(&self, folders: [&'static str; 2], name: &str) -> Result<Found, Problem> {
        let [first, second] = folders;
        let root = self.inode(ROOT_INODE)?;
        let Some(first) = self.child(&root, first)? else {
            return Err(Refused(match self.child(&root, "boot")? {
                Some(_) => {
                    "holds only /boot (flash.sh makes such for nvme0n1p1); provision the rootfs directory that it is made from"
                }
                None => "has no /etc: it is no root file system",
            }));
        };
        let Some(mut folder) = self.child(&as_folder(first)?, second)?.map(as_folder).transpose()? else {
            return Ok(Found { folder: None, file: None });
        };
        self.look_for_access_list(&mut folder)?;
        let file = self.child(&folder, name)?.map(|file| self.one_block_file(file)).transpose()?;
        Ok(Found { folder: Some(folder), file })
    }

    /// Also in the block of extended attributes.
    fn look_for_access_list(&self, inode: &mut Inode) -> Result<(), Problem> {
        if inode.attributes == 0 || inode.has_access_list {
            return Ok(());
        }
        let mut block = [0; BLOCK_BYTES];
        self.read_block(&mut block, inode.attributes)?;
        self.superblock.checksums.check_attributes(inode.attributes, &block)?;
        inode.has_access_list = layout::block_has_access_list(&block)?;
        Ok(())
    }

    fn one_block_file(&self, mut inode: Inode) -> Result<OneBlockFile, Problem> {
        if inode.is(SYMLINK) {
            return Err(Refused("has a symlink at etc/azaion/device.conf; look at it, and take it away by hand"));
        }
        if !inode.is(FILE) {
            return Err(Refused("has something at etc/azaion/device.conf that is no file; take it away by hand"));
        }
        if inode.links != 1 {
            return Err(Refused("has a second name (a hard link) for etc/azaion/device.conf; take it away by hand"));
        }
        let extents = self.extents(&inode)?;
        let first = extents.first().and_then(Extent::first_block);
        let blocks = || extents.iter().flat_map(Extent::blocks).map(|(_, block)| self.data_block(block));
        if blocks().nth(MOST_BLOCKS).is_some() {
            return Err(Refused("has an etc/azaion/device.conf of more than 40 MB; take it away by hand"));
        }
        let all = blocks().collect::<Result<Vec<_>, _>>()?;
        let block = first.filter(|_| all.len() == 1 && (1..=BLOCK).contains(&inode.size));
        self.look_for_access_list(&mut inode)?;
        Ok(OneBlockFile { inode, block, first, all })
    }

    fn data_block(&self, block: u64) -> Result<u64, Problem> {
        if block == 0 || block >= self.superblock.blocks {
            return Err(damaged("a block lies outside"));
        }
        Ok(block)
    }

    /// The inode of a name in a folder.
    fn child(&self, folder: &Inode, name: &str) -> Result<Option<Inode>, Problem> {
        if !folder.is(FOLDER) {
            return Err(damaged("a folder is none"));
        }
        let blocks = folder.size.div_ceil(BLOCK);
        let mut buffer = [0; BLOCK_BYTES];
        for extent in self.extents(folder)? {
            // What is allocated beyond the folder's end is not part of it.
            for (logical, physical) in extent.blocks().take_while(|(logical, _)| *logical < blocks) {
                self.read_block(&mut buffer, physical)?;
                let is_index = layout::is_index(folder, logical, &buffer);
                checksum::check_directory(folder.seed, physical, &buffer, is_index)?;
                for entry in Entries::of(&buffer) {
                    let (inode, its_name) = entry?;
                    if its_name == name.as_bytes() {
                        return self.inode(inode).map(Some);
                    }
                }
            }
        }
        Ok(None)
    }

    fn inode(&self, number: u32) -> Result<Inode, Problem> {
        let sb = &self.superblock;
        let index =
            number.checked_sub(1).filter(|_| number <= sb.inodes).ok_or(damaged("an inode has no such number"))?;
        let (group, index) = (index / sb.inodes_per_group, index % sb.inodes_per_group);
        let table = self.inode_table(group)?;
        // Sizes of inodes divide a block's.
        let place = u64::from(index) * u64::from(sb.inode_size);
        let block = table.checked_add(place / BLOCK).ok_or(damaged("an inode lies outside"))?;
        let mut known = self.inodes.borrow_mut();
        if known.0 != block {
            let (number, bytes) = &mut *known;
            // None, if the read fails.
            *number = 0;
            self.read_block(bytes, block)?;
            *number = block;
        }
        let start = usize::try_from(place % BLOCK).unwrap_or_default();
        let bytes = known.1.get(start..start + usize::from(sb.inode_size)).unwrap_or_default();
        let inode = layout::inode(number, bytes)?;
        Ok(Inode { seed: sb.checksums.check_inode(number, bytes)?, ..inode })
    }

    /// Where the inodes of a group lie.
    fn inode_table(&self, group: u32) -> Result<u64, Problem> {
        let sb = &self.superblock;
        let place = sb.descriptor_place(group)?;
        let mut bytes = [0; 64];
        let bytes = bytes.get_mut(..usize::from(sb.descriptor_size)).unwrap_or_default();
        match usize::try_from(place).ok().and_then(|start| self.head.get(start..start.checked_add(bytes.len())?)) {
            Some(known) => bytes.copy_from_slice(known),
            None => self.medium.read_at(bytes, place)?,
        }
        sb.checksums.check_group(group, bytes)?;
        let fields = Fields(bytes);
        let high = if sb.descriptor_size >= 64 { fields.u32(0x28)? } else { 0 };
        self.data_block(u64::from(high) << 32 | u64::from(fields.u32(0x8)?))
    }

    /// Where the content of an inode lies.
    fn extents(&self, inode: &Inode) -> Result<Vec<Extent>, Problem> {
        layout::refuse_flags(inode.flags)?;
        let mut leaves = Vec::new();
        let mut nodes = vec![ExtentNode::parse(&inode.root, None)?];
        let mut read = 0;
        while let Some(node) = nodes.pop() {
            match node {
                ExtentNode::Leaf(extents) => {
                    leaves.extend(extents);
                    if leaves.len() > MOST_BLOCKS {
                        return Err(damaged("a file has too many extents"));
                    }
                }
                ExtentNode::Inner { depth, children } => {
                    // Backwards, so that the first comes out first.
                    for child in children.into_iter().rev() {
                        read += 1;
                        if read > MOST_BLOCKS {
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
        let blocks = leaves.iter().try_fold(0_u64, |sum, extent: &Extent| sum.checked_add(extent.length));
        if blocks.is_none_or(|blocks| inode.is(FOLDER) && blocks > MOST_BLOCKS as u64) {
            return Err(damaged("a folder is too large"));
        }
        Ok(leaves)
    }

    fn read_block(&self, buffer: &mut [u8; BLOCK_BYTES], block: u64) -> Result<(), Problem> {
        let offset = self.data_block(block)?.checked_mul(BLOCK).ok_or(damaged("a block lies outside"))?;
        Ok(self.medium.read_at(buffer, offset)?)
    }
}

fn as_folder(inode: Inode) -> Result<Inode, Problem> {
    if inode.is(FOLDER) {
        Ok(inode)
    } else if inode.is(SYMLINK) {
        Err(Refused("has a symlink in place of /etc or /etc/azaion; make it a folder, in the rootfs directory"))
    } else {
        Err(Refused("has something in place of /etc or /etc/azaion that is no folder; take it away by hand"))
    }
}

#[cfg(test)]
mod tests;
