//! Finds one small file in a file system, and the blocks that it uses.

use super::BLOCK;
use super::BLOCK_BYTES;
use super::DIRECTORY;
use super::FILE;
use super::FileSystem;
use super::Inode;
use super::MAX_BLOCKS;
use super::Problem::{self, Refused};
use super::ROOT_INODE;
use super::SYMLINK;
use super::layout::{self, Extent};
use crate::target::error::Result;

/// A file that has at most one block of content, unless something else than this program made it.
#[derive(Debug)]
pub struct OneBlockFile {
    /// Its inode.
    pub inode: Inode,
    /// The only block of the file, which is its content; `None` if the file is empty or has other blocks.
    pub block: Option<u64>,
    /// The block with the start of its content; `None` if there is a hole or an unwritten block.
    pub first: Option<u64>,
    /// All blocks of the file.
    pub all: Vec<u64>,
}

/// The result of a search for a file.
#[derive(Debug)]
pub struct Found {
    /// The directory of the file, if it exists.
    pub directory: Option<Inode>,
    /// The file, if it exists.
    pub file: Option<OneBlockFile>,
}

impl FileSystem<'_> {
    /// Finds the file `name` in nested directories, starting at the root directory. Does not follow symlinks.
    ///
    /// # Errors
    /// The first directory is missing, a directory is another kind of file, or the file is not a regular file with one
    /// name.
    pub fn find(&self, directories: [&'static str; 2], name: &str) -> Result<Found, Problem> {
        let [first, second] = directories;
        let root = self.inode(ROOT_INODE)?;
        let Some(first) = self.child(&root, first)? else {
            return Err(Refused(match self.child(&root, "boot")? {
                Some(_) => {
                    "holds only /boot (flash.sh generates such an image for nvme0n1p1); provision the rootfs directory \
                     that it is made from"
                }
                None => "has no /etc, so it is no root file system",
            }));
        };
        let Some(mut directory) = self.child(&as_directory(first)?, second)?.map(as_directory).transpose()? else {
            return Ok(Found { directory: None, file: None });
        };
        self.read_access_list(&mut directory)?;
        let file = self.child(&directory, name)?.map(|file| self.one_block_file(file)).transpose()?;
        Ok(Found { directory: Some(directory), file })
    }

    /// Completes `has_access_list` of an inode with the attributes in its block of extended attributes.
    fn read_access_list(&self, inode: &mut Inode) -> Result<(), Problem> {
        if inode.attributes == 0 || inode.has_access_list {
            return Ok(());
        }
        let mut block = [0; BLOCK_BYTES];
        self.read_block(&mut block, inode.attributes)?;
        self.superblock.checksums.check_attributes(inode.attributes, &block)?;
        inode.has_access_list = layout::block_has_access_list(&block)?;
        Ok(())
    }

    /// Reads the blocks of `device.conf`, and refuses what is not a regular file with one name.
    fn one_block_file(&self, mut inode: Inode) -> Result<OneBlockFile, Problem> {
        if inode.is(SYMLINK) {
            return Err(Refused(
                "has a symlink at etc/azaion/device.conf; check where it points to, and remove it by hand",
            ));
        }
        if !inode.is(FILE) {
            return Err(Refused(
                "has something at etc/azaion/device.conf that is not a regular file; remove it by hand",
            ));
        }
        if inode.links != 1 {
            return Err(Refused("has a second name (a hard link) for etc/azaion/device.conf; remove it by hand"));
        }
        let extents = self.extents(&inode)?;
        let first = extents.first().and_then(Extent::first_block);
        let blocks = || extents.iter().flat_map(Extent::blocks).map(|(_, block)| self.data_block(block));
        if blocks().nth(MAX_BLOCKS).is_some() {
            return Err(Refused("has an etc/azaion/device.conf of more than 40 MB; remove it by hand"));
        }
        let all = blocks().collect::<Result<Vec<_>, _>>()?;
        let block = first.filter(|_| all.len() == 1 && (1..=BLOCK).contains(&inode.size));
        self.read_access_list(&mut inode)?;
        Ok(OneBlockFile { inode, block, first, all })
    }
}

/// Returns an inode on the path to `device.conf`, and refuses it if it is not a directory.
fn as_directory(inode: Inode) -> Result<Inode, Problem> {
    if inode.is(DIRECTORY) {
        Ok(inode)
    } else if inode.is(SYMLINK) {
        Err(Refused(
            "has a symlink in place of /etc or /etc/azaion; replace it with a directory, in the rootfs directory",
        ))
    } else {
        Err(Refused("has something in place of /etc or /etc/azaion that is not a directory; remove it by hand"))
    }
}
