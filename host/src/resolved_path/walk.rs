//! Walks a path component by component, as the kernel resolves it (`path_resolution(7)`), and validates each one.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use azaion_agent::common::private_file::kind_of;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};

use super::{Found, PathError, ResolvedPath, inspect};
use crate::strict_modes;

/// Number of symlinks that the kernel follows at most (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;
/// Mode of the directories that a walk creates.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);

/// A path of which a part has been resolved.
pub(super) struct Walk {
    path: PathBuf,
    directory: OwnedFd,
    /// Path of `directory`, for messages.
    directory_path: PathBuf,
    /// Components that are not resolved yet.
    remaining: VecDeque<OsString>,
    /// Number of symlinks followed.
    links: u32,
    /// Whether the last component was a symlink that was followed.
    has_followed_last: bool,
    /// Whether to follow a symlink in the last component.
    pub(super) follows_last: bool,
    /// Whether to create missing directories.
    pub(super) creates_directories: bool,
}

impl Walk {
    /// Starts at the root or at the working directory.
    pub(super) fn new(path: &Path) -> Result<Self, PathError> {
        if path.as_os_str().is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let mut walk = Self {
            path: path.to_owned(),
            directory: open_directory(".")?,
            directory_path: PathBuf::new(),
            remaining: VecDeque::new(),
            links: 0,
            has_followed_last: false,
            follows_last: true,
            creates_directories: false,
        };
        // Validates the parents of the working directory as well.
        let whole_path =
            if path.is_relative() && strict_modes::are_on() { &std::env::current_dir()?.join(path) } else { path };
        walk.prepend(whole_path)?;
        Ok(walk)
    }

    /// Inserts a path before the remaining components; an absolute path starts at the root.
    fn prepend(&mut self, path: &Path) -> Result<(), PathError> {
        for component in path.components().rev() {
            match component {
                Component::RootDir => {
                    (self.directory, self.directory_path) = (open_directory("/")?, PathBuf::from("/"));
                    strict_modes::validate(&fstat(&self.directory)?, &self.directory, &self.directory_path)?;
                }
                Component::Prefix(_) | Component::CurDir => {}
                Component::ParentDir | Component::Normal(_) => {
                    self.remaining.push_front(component.as_os_str().to_owned());
                }
            }
        }
        Ok(())
    }

    /// Resolves the remaining components.
    pub(super) fn run(mut self) -> Result<ResolvedPath, PathError> {
        while let Some(name) = self.remaining.pop_front() {
            let is_last = self.remaining.is_empty();
            let found = match inspect(self.directory.as_fd(), &name) {
                Ok(found) => found,
                // Nothing is created at the target of a dangling symlink.
                Err(Errno::ENOENT) if is_last && !self.has_followed_last => return Ok(self.end(name, None)),
                Err(Errno::ENOENT) if self.creates_directories && !is_last && !self.has_followed_last => {
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
            strict_modes::validate(&found.stat, &found.descriptor, &self.directory_path.join(&name))?;
            match kind_of(&found.stat) {
                SFlag::S_IFLNK => {
                    if let Some(found) = self.follow(&name, &found, is_last)? {
                        return Ok(self.end(name, Some(found)));
                    }
                }
                SFlag::S_IFDIR if !is_last => {
                    self.directory = found.descriptor;
                    self.directory_path.push(name);
                }
                _ if is_last => return Ok(self.end(name, Some(found))),
                _ => return Err(Errno::ENOTDIR.into()),
            }
        }
        // The path is `/` or the working directory.
        let found = inspect(self.directory.as_fd(), OsStr::new("."))?;
        Ok(self.end(".".into(), Some(found)))
    }

    /// Inserts the target of a symlink before the remaining components. Returns the target of a link in /proc instead, which may have
    /// no path.
    fn follow(&mut self, name: &OsStr, link: &Found, is_last: bool) -> Result<Option<Found>, PathError> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        if is_last && fstatfs(&self.directory).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC) {
            let descriptor = openat(&self.directory, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            let stat = fstat(&descriptor)?;
            strict_modes::validate(&stat, &descriptor, &self.directory_path.join(name))?;
            return Ok(Some(Found { descriptor, stat }));
        }
        self.has_followed_last |= is_last;
        let target = readlinkat(&link.descriptor, "")?;
        self.prepend(Path::new(&target))?;
        Ok(None)
    }

    fn end(self, name: OsString, found: Option<Found>) -> ResolvedPath {
        ResolvedPath { path: self.path, directory: self.directory, name, found }
    }
}

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}
