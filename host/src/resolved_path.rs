//! Resolves a path of the command line once: opens and validates each directory on the way; all later accesses use the
//! descriptors. Renaming a directory meanwhile, or replacing it by a symlink, has no effect.

mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use azaion_agent::common::private_file::{kind_of, reopen};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use rustix::fs::{OFlags, fcntl_setfl, fstatfs};

use crate::strict_modes::{self, UnsafePath};
use walk::Walk;

/// Type of the file system of pipes without a name (statfs(2), `PIPEFS_MAGIC`).
const PIPES: u64 = 0x5049_5045;

/// Why a path can't be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    /// A component is missing, is not a directory, or can't be searched.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another user can change a component.
    #[error(transparent)]
    Unsafe(#[from] UnsafePath),
}

impl From<Errno> for PathError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// A resolved path: an open directory, and a name in it.
#[derive(Debug)]
pub(crate) struct ResolvedPath {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
    /// `None` if the file is missing.
    found: Option<Found>,
}

/// The file at a path. Its descriptor can't read or write (`O_PATH`), so a device or a pipe is recognized without opening it.
#[derive(Debug)]
struct Found {
    descriptor: OwnedFd,
    stat: FileStat,
}

impl ResolvedPath {
    /// Resolves a path, following symlinks. Its last component may be missing.
    pub(crate) fn find(path: &Path) -> Result<Self, PathError> {
        Walk::new(path)?.run()
    }

    /// Resolves the path of a file to be replaced. Does not follow a symlink at the end: the symlink is replaced.
    pub(crate) fn find_new_file(path: &Path) -> Result<Self, PathError> {
        let mut walk = Walk::new(path)?;
        walk.follows_last = false;
        walk.run()
    }

    /// Resolves a path like [`Self::find`], and creates missing directories on the way.
    pub(crate) fn find_or_create_parents(path: &Path) -> Result<Self, PathError> {
        let mut walk = Walk::new(path)?;
        walk.creates_directories = true;
        walk.run()
    }

    /// Returns the path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory's descriptor, which needs no permission to list or change it (`O_PATH`).
    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Opens the directory, to list and sync it.
    pub(crate) fn listed_directory(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// Returns the name in the directory.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns whether the file existed when the path was resolved.
    pub(crate) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.has_kind(SFlag::S_IFDIR)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.has_kind(SFlag::S_IFREG)
    }

    fn has_kind(&self, kind: SFlag) -> bool {
        self.found.as_ref().is_some_and(|found| kind_of(&found.stat) == kind)
    }

    /// Returns device and inode of the file.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        self.found.as_ref().map(|found| identity_of(&found.stat))
    }

    /// Opens the resolved file, also if it was renamed meanwhile.
    pub(crate) fn open(&self, flags: OFlag) -> io::Result<File> {
        let found = self.found.as_ref().ok_or(Errno::ENOENT)?;
        reopen(found.descriptor.as_fd(), flags)
    }

    /// Opens the resolved file to read it from start to end.
    pub(crate) fn open_to_read(&self) -> io::Result<File> {
        // A FIFO without a writer must not hang this host.
        readable(self.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK)?)
    }

    /// Returns whether a file has the name now.
    pub(crate) fn is_taken(&self) -> bool {
        fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Returns whether the resolved file still has the name.
    pub(crate) fn is_current(&self) -> bool {
        let now = fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        now.is_ok_and(|now| Some(identity_of(&now)) == self.identity())
    }

    /// Resolves the name once more, to the file that has it now. Does not follow a symlink.
    pub(crate) fn refresh(&mut self) -> Result<(), PathError> {
        let found = inspect(self.directory.as_fd(), &self.name)?;
        if kind_of(&found.stat) == SFlag::S_IFLNK {
            return Err(Errno::ELOOP.into());
        }
        strict_modes::validate(&found.stat, &found.descriptor, &self.path)?;
        self.found = Some(found);
        Ok(())
    }
}

/// Returns a file that was opened with `O_NONBLOCK`, without that flag. Accepts a pipe without a name, such as a shell's `<(…)`, and
/// refuses a FIFO, which may belong to another user.
pub(crate) fn readable(file: File) -> io::Result<File> {
    if file.metadata()?.file_type().is_fifo() {
        if u64::try_from(fstatfs(&file)?.f_type) != Ok(PIPES) {
            return Err(io::Error::other("it is a FIFO; use a file, or a pipe of the shell, <(…)"));
        }
        fcntl_setfl(&file, OFlags::empty())?;
    }
    Ok(file)
}

/// Returns the names in a directory, without `.` and `..`.
pub(crate) fn names_in(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::openat(directory, ".", flags, Mode::empty())?.iter() {
        let name = os_string(entry?.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn os_string(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

fn identity_of(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn inspect(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Found, Errno> {
    let descriptor = openat(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let stat = fstat(&descriptor)?;
    Ok(Found { descriptor, stat })
}

#[cfg(test)]
mod tests;
