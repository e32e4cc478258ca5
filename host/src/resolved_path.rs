//! Resolves a path of the command line once: opens and validates each directory on the way; everything that follows goes through
//! descriptors. A directory that is renamed meanwhile, or replaced by a symlink, changes nothing.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use azaion_agent::common::private_file::{kind_of, reopen};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use rustix::fs::{OFlags, PROC_SUPER_MAGIC, fcntl_setfl, fstatfs};

use crate::strict_modes::{self, UnsafePath};

/// As many symlinks as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;
/// The file system of the pipes that have no name (statfs(2), `PIPEFS_MAGIC`).
const PIPES: u64 = 0x5049_5045;
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    /// A component is missing, no directory, or can't be searched.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Somebody else can change a component.
    #[error(transparent)]
    Unsafe(#[from] UnsafePath),
}

impl From<Errno> for PathError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The end of a path: a directory, and what has a name in it.
#[derive(Debug)]
pub(crate) struct ResolvedPath {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
    found: Option<Found>,
}

/// What is there. The descriptor gives neither reading nor writing (`O_PATH`): a device or a pipe is told without being opened.
#[derive(Debug)]
struct Found {
    descriptor: OwnedFd,
    stat: FileStat,
}

impl ResolvedPath {
    /// Follows a path to its end, symlinks included; what is there may be missing.
    pub(crate) fn find(path: &Path) -> Result<Self, PathError> {
        Walk::new(path)?.run()
    }

    /// Follows a path to a file that is to be replaced. A symlink in its place is not followed: it is what gets replaced.
    pub(crate) fn find_new_file(path: &Path) -> Result<Self, PathError> {
        Walk { follows_last: false, ..Walk::new(path)? }.run()
    }

    /// The same, with the directories on the way made where they are missing.
    pub(crate) fn find_or_create_parents(path: &Path) -> Result<Self, PathError> {
        Walk { makes_directories: true, ..Walk::new(path)? }.run()
    }

    /// As it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, which takes no right to list or to change it.
    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// The directory, opened to be listed and synced.
    pub(crate) fn listed_directory(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// The name in the directory.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Whether anything is there.
    pub(crate) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.is(SFlag::S_IFDIR)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.is(SFlag::S_IFREG)
    }

    fn is(&self, kind: SFlag) -> bool {
        self.found.as_ref().is_some_and(|found| kind_of(&found.stat) == kind)
    }

    /// Device and inode of what is there.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        self.found.as_ref().map(|found| identity_of(&found.stat))
    }

    /// Opens what is there, which need not have the name any more.
    pub(crate) fn open(&self, flags: OFlag) -> io::Result<File> {
        let found = self.found.as_ref().ok_or(Errno::ENOENT)?;
        reopen(found.descriptor.as_fd(), flags)
    }

    /// Opens what is there to be read from its start to its end.
    pub(crate) fn open_to_read(&self) -> io::Result<File> {
        // A FIFO without a writer must not hang this host.
        readable(self.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK)?)
    }

    /// Whether anything has the name now.
    pub(crate) fn is_taken(&self) -> bool {
        fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Whether what is there still has the name.
    pub(crate) fn is_current(&self) -> bool {
        let now = fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        now.is_ok_and(|now| Some(identity_of(&now)) == self.identity())
    }

    /// Looks at what has the name now; a symlink is not followed.
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

/// Makes a file that was opened with `O_NONBLOCK` an ordinary one. Of pipes, those without a name are taken, which a shell makes
/// (`<(…)`): a FIFO may be anybody's.
pub(crate) fn readable(file: File) -> io::Result<File> {
    if file.metadata()?.file_type().is_fifo() {
        if u64::try_from(fstatfs(&file)?.f_type) != Ok(PIPES) {
            return Err(io::Error::other("it is a FIFO; give a file, or a pipe of the shell, <(…)"));
        }
        fcntl_setfl(&file, OFlags::empty())?;
    }
    Ok(file)
}

/// The names in a directory, but for itself and its parent.
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

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// On the way to the end of a path.
struct Walk {
    path: PathBuf,
    directory: OwnedFd,
    /// Where that is, for messages.
    shown: PathBuf,
    left: VecDeque<OsString>,
    links: u32,
    has_followed_last: bool,
    follows_last: bool,
    makes_directories: bool,
}

impl Walk {
    fn new(path: &Path) -> Result<Self, PathError> {
        if path.as_os_str().is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let mut walk = Self {
            path: path.to_owned(),
            directory: open_directory(".")?,
            shown: PathBuf::new(),
            left: VecDeque::new(),
            links: 0,
            has_followed_last: false,
            follows_last: true,
            makes_directories: false,
        };
        // The directories above the working one count, too.
        let whole =
            if path.is_relative() && strict_modes::are_on() { &std::env::current_dir()?.join(path) } else { path };
        walk.go_to(whole)?;
        Ok(walk)
    }

    /// Puts a path before what is left.
    fn go_to(&mut self, path: &Path) -> Result<(), PathError> {
        let components = path.components().rev();
        for component in components {
            match component {
                Component::RootDir => {
                    (self.directory, self.shown) = (open_directory("/")?, PathBuf::from("/"));
                    strict_modes::validate(&fstat(&self.directory)?, &self.directory, &self.shown)?;
                }
                Component::Prefix(_) | Component::CurDir => {}
                Component::ParentDir | Component::Normal(_) => self.left.push_front(component.as_os_str().to_owned()),
            }
        }
        Ok(())
    }

    fn run(mut self) -> Result<ResolvedPath, PathError> {
        while let Some(name) = self.left.pop_front() {
            let is_last = self.left.is_empty();
            let found = match inspect(self.directory.as_fd(), &name) {
                Ok(found) => found,
                // Where a symlink leads to nothing, nothing is to be made.
                Err(Errno::ENOENT) if is_last && !self.has_followed_last => return Ok(self.end(name, None)),
                Err(Errno::ENOENT) if self.makes_directories && !is_last && !self.has_followed_last => {
                    match mkdirat(&self.directory, name.as_os_str(), DIRECTORY_MODE) {
                        Ok(()) | Err(Errno::EEXIST) => inspect(self.directory.as_fd(), &name)?,
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(errno) => return Err(errno.into()),
            };
            if is_last && !self.follows_last {
                return Ok(self.end(name, Some(found)));
            }
            strict_modes::validate(&found.stat, &found.descriptor, &self.shown.join(&name))?;
            match kind_of(&found.stat) {
                SFlag::S_IFLNK => {
                    if let Some(found) = self.follow(&name, &found, is_last)? {
                        return Ok(self.end(name, Some(found)));
                    }
                }
                SFlag::S_IFDIR if !is_last => {
                    self.directory = found.descriptor;
                    self.shown.push(name);
                }
                _ if is_last => return Ok(self.end(name, Some(found))),
                _ => return Err(Errno::ENOTDIR.into()),
            }
        }
        // Of `/` and of the working directory.
        let found = inspect(self.directory.as_fd(), OsStr::new("."))?;
        Ok(self.end(".".into(), Some(found)))
    }

    /// Puts what a symlink says before what is left. What the links of /proc lead to has no path; it is returned.
    fn follow(&mut self, name: &OsStr, link: &Found, is_last: bool) -> Result<Option<Found>, PathError> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        if is_last && fstatfs(&self.directory).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC) {
            let descriptor = openat(&self.directory, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            let stat = fstat(&descriptor)?;
            strict_modes::validate(&stat, &descriptor, &self.shown.join(name))?;
            return Ok(Some(Found { descriptor, stat }));
        }
        self.has_followed_last |= is_last;
        let target = readlinkat(&link.descriptor, "")?;
        self.go_to(Path::new(&target))?;
        Ok(None)
    }

    fn end(self, name: OsString, found: Option<Found>) -> ResolvedPath {
        ResolvedPath { path: self.path, directory: self.directory, name, found }
    }
}

#[cfg(test)]
mod tests;
