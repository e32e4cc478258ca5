//! Reads the content of a small file, wherever its blocks are.

use super::BLOCK;
use super::BLOCK_BYTES;
use super::DIRECTORY;
use super::FILE;
use super::FileSystem;
use super::Inode;
use super::Problem::{self, Refused};
use super::ROOT_INODE;
use super::damaged;
use crate::target::error::Result;

impl FileSystem<'_> {
    /// Reads a file, if it exists; `path` consists of the names of the directories and of the file. Does not follow
    /// symlinks.
    ///
    /// # Errors
    /// A name before the last is not a directory, or the last is not a regular file, or the file has more than
    /// `max_size` bytes.
    pub fn read(&self, path: &[&str], max_size: u64) -> Result<Option<Vec<u8>>, Problem> {
        let mut inode = self.inode(ROOT_INODE)?;
        for name in path {
            if !inode.is(DIRECTORY) {
                return Err(Refused(
                    "has a symlink, or something else that is not a directory, on the path to the agent's files",
                ));
            }
            let Some(child) = self.child(&inode, name)? else { return Ok(None) };
            inode = child;
        }
        if !inode.is(FILE) {
            return Err(Refused("has something that is not a regular file in place of one of the agent's files"));
        }
        if inode.size > max_size {
            return Err(Refused("has a file of the agent that is larger than the agent writes it"));
        }
        self.content(&inode).map(Some)
    }

    /// Reads all blocks of a file. Unwritten blocks and holes are zeros.
    fn content(&self, inode: &Inode) -> Result<Vec<u8>, Problem> {
        let blocks = inode.size.div_ceil(BLOCK);
        let mut content = vec![0; usize::try_from(inode.size).map_err(|_| damaged("a file is too large"))?];
        let mut buffer = [0; BLOCK_BYTES];
        let mut left = blocks;
        for extent in self.extents(inode)?.iter().filter(|extent| extent.is_written) {
            for (logical, physical) in extent.blocks().take_while(|(logical, _)| *logical < blocks) {
                left = left.checked_sub(1).ok_or(damaged("a file has the same block twice"))?;
                self.read_block(&mut buffer, physical)?;
                let start = usize::try_from(logical * BLOCK).unwrap_or(usize::MAX);
                let part = content.get_mut(start..).unwrap_or_default().iter_mut();
                part.zip(buffer).for_each(|(byte, read)| *byte = read);
            }
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::target::image::fixture::{mke2fs, put};
    use crate::target::image::medium::Raw;

    const PATH: [&str; 4] = ["var", "lib", "azaion", "history.json"];
    const MAX_SIZE: u64 = 64 * 1024;

    /// Changes the tree from which an image is made.
    type Tree = fn(&Path);

    fn image(options: &[&str], tree: impl FnOnce(&Path)) -> File {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/var/lib/azaion")).unwrap();
        tree(&dir.path().join("root"));
        mke2fs(dir.path(), Path::new("image"), "8M", options);
        File::options().read(true).write(true).open(dir.path().join("image")).unwrap()
    }

    fn read(file: &File) -> Result<Option<Vec<u8>>, String> {
        let medium = Raw::new(file).unwrap();
        FileSystem::open_unclean(&medium)
            .and_then(|system| system.read(&PATH, MAX_SIZE))
            .map_err(|error| error.to_string())
    }

    // Promise: a file of any permitted size is read as it was written, with holes as zeros.
    #[test]
    fn content_is_read() {
        for size in [0, 1, 4095, 4096, 4097, 9000, 64 * 1024] {
            let content: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0] | 1).collect();
            let file = image(&[], |root| put(&root.join(PATH.join("/")), &content));
            assert_eq!(read(&file).unwrap().as_ref(), Some(&content), "{size}");
        }
        let file = image(&[], |root| {
            let file = File::create(root.join(PATH.join("/"))).unwrap();
            file.write_all_at(b"end", 5 * BLOCK).unwrap();
        });
        let content = read(&file).unwrap().unwrap();
        assert_eq!((content.len(), &content[5 * BLOCK_BYTES..]), (5 * BLOCK_BYTES + 3, &b"end"[..]));
        assert!(content[..5 * BLOCK_BYTES].iter().all(|byte| *byte == 0));
    }

    // Promise: a missing file gives `None`; symlinks are not followed, and only regular files of a limited size are
    // read.
    #[test]
    fn only_small_regular_files_are_read() {
        assert_eq!(read(&image(&[], |_| ())), Ok(None));
        assert_eq!(read(&image(&[], |root| fs::remove_dir_all(root.join("var")).unwrap())), Ok(None));
        let refused: [(&str, Tree); 5] = [
            ("on the path", |root| {
                fs::rename(root.join("var/lib"), root.join("lib")).unwrap();
                symlink("/lib", root.join("var/lib")).unwrap();
            }),
            ("on the path", |root| {
                fs::remove_dir(root.join("var/lib/azaion")).unwrap();
                put(&root.join("var/lib/azaion"), b"");
            }),
            ("not a regular file", |root| symlink("/etc/passwd", root.join(PATH.join("/"))).unwrap()),
            ("not a regular file", |root| fs::create_dir(root.join(PATH.join("/"))).unwrap()),
            ("larger than", |root| put(&root.join(PATH.join("/")), &vec![b'x'; 64 * 1024 + 1])),
        ];
        for (expected, tree) in refused {
            let message = read(&image(&[], tree)).unwrap_err();
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }

    // Promise: the checksums on the path are verified; an image that was not unmounted cleanly is read and reported as
    // unclean.
    #[test]
    fn damaged_and_unclean() {
        let file = image(&[], |root| put(&root.join(PATH.join("/")), b"{}"));
        let (at, clean) = (1024 + 0x3A, [1, 0]);
        let file_without = image(&["-O", "^metadata_csum"], |root| put(&root.join(PATH.join("/")), b"{}"));
        for (state, is_clean) in [(clean, true), ([0, 0], false), ([3, 0], false)] {
            file_without.write_all_at(&state, at).unwrap();
            let medium = Raw::new(&file_without).unwrap();
            assert_eq!(FileSystem::open_unclean(&medium).unwrap().is_clean(), is_clean);
            assert_eq!(FileSystem::open(&medium).is_ok(), is_clean);
            assert_eq!(read(&file_without), Ok(Some(b"{}".to_vec())));
        }
        file.write_all_at(&[0, 0], at).unwrap();
        assert!(read(&file).unwrap_err().contains("the checksum of the superblock"));
    }
}
