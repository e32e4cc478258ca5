//! Copies and removes directory trees through descriptors alone, so that a directory that is moved or replaced by a symlink meanwhile
//! does not lead out of the tree.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use azaion_agent::common::private_file::{kind_of, reopen};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, linkat, symlinkat, unlinkat};
use rustix::fs::{fgetxattr, flistxattr, fsetxattr};

use super::copy_content;
use crate::interrupt;
use crate::resolved_path::names_in;
use crate::target::error::Result;

/// Flags that open a file of any type without effects.
const PATH_ONLY: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const LIST: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Levels of nested directories: more than any root file system has, and few enough for the stack and the descriptor table.
const DEEPEST: usize = 200;
/// Limit of an extended attribute, and of the list of their names, in bytes (xattr(7)).
const LARGEST_ATTRIBUTE: usize = 65_536;

/// A file that could not be copied, and why.
#[derive(Debug)]
pub(super) struct TreeError {
    /// Relative to the root of the tree.
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Copies a tree to `name` in the directory `into`, which nobody else can enter. Copies content with holes, owners, modes, times,
/// extended attributes, symlinks, hard links, devices and FIFOs, as `cp -a` does.
pub(super) fn copy(root: &OwnedFd, into: &OwnedFd, name: &str) -> Result<(), TreeError> {
    let mut copier = Copier { into, top: name.into(), links: HashMap::new(), is_root: geteuid().is_root() };
    copier.directory(root.as_fd(), into.as_fd(), OsStr::new(name), Path::new(""))
}

/// Removes a file or directory tree from a directory. Does not follow symlinks.
pub(super) fn remove(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    remove_at(directory.as_fd(), name, DEEPEST)
}

fn too_deep() -> io::Error {
    io::Error::other(format!("directories are nested more than {DEEPEST} levels deep"))
}

fn remove_at(directory: Directory<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
    match openat(directory, name, LIST, Mode::empty()) {
        Ok(inner) => {
            let left = depth.checked_sub(1).ok_or_else(too_deep)?;
            for name in names_in(&inner)? {
                remove_at(inner.as_fd(), &name, left)?;
            }
            Ok(unlinkat(directory, name, UnlinkatFlags::RemoveDir)?)
        }
        Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?),
        Err(errno) => Err(errno.into()),
    }
}

struct Copier<'a> {
    into: &'a OwnedFd,
    top: PathBuf,
    /// Paths of the copies of files with several hard links, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    is_root: bool,
}

type Directory<'f> = std::os::fd::BorrowedFd<'f>;

impl Copier<'_> {
    fn directory(
        &mut self,
        from: Directory<'_>,
        to: Directory<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), TreeError> {
        let fail = |source: io::Error| TreeError { path: path.to_owned(), source };
        if path.components().count() > DEEPEST {
            return Err(fail(too_deep()));
        }
        let new = || {
            mkdirat(to, name, Mode::S_IRWXU)?;
            Ok((openat(from, ".", LIST, Mode::empty())?, openat(to, name, LIST, Mode::empty())?))
        };
        let (from, to) = new().map_err(|errno: Errno| fail(errno.into()))?;
        for name in names_in(&from).map_err(fail)? {
            self.entry(from.as_fd(), to.as_fd(), &name, &path.join(&name))?;
        }
        let stat = fstat(&from).map_err(|errno| fail(errno.into()))?;
        self.attributes(from.as_fd(), to.as_fd(), &stat).map_err(fail)
    }

    fn entry(&mut self, from: Directory<'_>, to: Directory<'_>, name: &OsString, path: &Path) -> Result<(), TreeError> {
        let fail = |source: io::Error| TreeError { path: path.to_owned(), source };
        interrupt::check().map_err(fail)?;
        let source = openat(from, name.as_os_str(), PATH_ONLY, Mode::empty()).map_err(|errno| fail(errno.into()))?;
        let stat = fstat(&source).map_err(|errno| fail(errno.into()))?;
        let kind = kind_of(&stat);
        if kind == SFlag::S_IFDIR {
            return self.directory(source.as_fd(), to, name, path);
        }
        if stat.st_nlink > 1 {
            let copied = self.top.join(path);
            if let Some(first) = self.links.insert((stat.st_dev, stat.st_ino), copied) {
                return linkat(self.into, &first, to, name.as_os_str(), AtFlags::empty())
                    .map_err(|errno| fail(errno.into()));
            }
        }
        let done = match kind {
            SFlag::S_IFREG => self.file(source.as_fd(), to, name, &stat),
            SFlag::S_IFLNK => self.symlink(source.as_fd(), to, name, &stat),
            kind => self.node(kind, to, name, &stat),
        };
        done.map_err(fail)
    }

    fn file(&self, source: Directory<'_>, to: Directory<'_>, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        let from = reopen(source, OFlag::O_RDONLY)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file: File = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into();
        copy_content(&from, &file)?;
        self.attributes(from.as_fd(), file.as_fd(), stat)
    }

    fn symlink(&self, source: Directory<'_>, to: Directory<'_>, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        let target = readlinkat(source, "")?;
        symlinkat(target.as_os_str(), to, name)?;
        self.owner_of_name(to, name, stat)?;
        Ok(utimensat(to, name, &accessed(stat), &modified(stat), UtimensatFlags::NoFollowSymlink)?)
    }

    fn node(&self, kind: SFlag, to: Directory<'_>, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        mknodat(to, name, kind, Mode::empty(), stat.st_rdev)?;
        self.owner_of_name(to, name, stat)?;
        // Following is safe: nobody else can enter this directory to replace the node by a symlink.
        fchmodat(to, name, permissions(stat), FchmodatFlags::FollowSymlink)?;
        Ok(utimensat(to, name, &accessed(stat), &modified(stat), UtimensatFlags::NoFollowSymlink)?)
    }

    fn owner_of_name(&self, to: Directory<'_>, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        if self.is_root {
            fchownat(
                to,
                name,
                Some(Uid::from_raw(stat.st_uid)),
                Some(Gid::from_raw(stat.st_gid)),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }

    /// Copies owner, mode, extended attributes and times, in this order: a change of owner clears set-user-id bits and capabilities,
    /// and every change alters the times.
    fn attributes(&self, from: Directory<'_>, to: Directory<'_>, stat: &FileStat) -> io::Result<()> {
        if self.is_root {
            fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        }
        fchmod(to, permissions(stat))?;
        self.extended_attributes(from, to)?;
        Ok(futimens(to, &accessed(stat), &modified(stat))?)
    }

    /// Copies extended attributes, including file capabilities and access control lists. Users other than root skip those that they
    /// may not set.
    fn extended_attributes(&self, from: Directory<'_>, to: Directory<'_>) -> io::Result<()> {
        use rustix::io::Errno;
        let mut names = vec![0; LARGEST_ATTRIBUTE];
        let length = match flistxattr(from, names.as_mut_slice()) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
            Ok(length) => length,
            Err(errno) => return Err(errno.into()),
        };
        let mut value = vec![0; LARGEST_ATTRIBUTE];
        for name in names.get(..length).unwrap_or_default().split_inclusive(|&byte| byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            let length = fgetxattr(from, name, value.as_mut_slice())?;
            match fsetxattr(to, name, value.get(..length).unwrap_or_default(), rustix::fs::XattrFlags::empty()) {
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(Errno::PERM) if !self.is_root => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

fn permissions(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}

fn accessed(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_atime, stat.st_atime_nsec)
}

fn modified(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}
