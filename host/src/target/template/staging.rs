//! Where copies are made: a directory beside the place, for the caller alone.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
// nix has renameat2 for glibc alone.
use rustix::fs::{RenameFlags, XattrFlags, fgetxattr, fremovexattr, fsetxattr, renameat_with};

use super::tree;
use crate::resolved_path::{ResolvedPath, names_in};
use crate::target::error::{Result, io_failure};
use crate::target::lock;

/// What is being copied.
pub(super) const NAME: &str = "copy";
/// Somebody who puts something else in its place again and again is not waited for.
const TRIES: usize = 10;

/// A directory that others can neither enter nor lock, gone when this is dropped.
#[derive(Debug)]
pub(super) struct Staging<'p> {
    place: &'p ResolvedPath,
    name: OsString,
    directory: OwnedFd,
    _one_at_a_time: Flock<File>,
}

impl<'p> Staging<'p> {
    /// Makes an empty one, or empties what a run that was killed has left. Another run that makes the same copy is waited for.
    pub(super) fn make(place: &'p ResolvedPath) -> Result<Self> {
        let fail = |error: io::Error| io_failure(error, format!("making a copy for {}", place.path().display()));
        let mut number = 0;
        for _ in 0..TRIES {
            let name = name_beside(place, number);
            let directory = match make_private(place, &name).map_err(fail)? {
                Private::Ours(directory) => directory,
                Private::Gone => continue,
                Private::Foreign => {
                    number += 1;
                    continue;
                }
            };
            let one_at_a_time = lock::wait(directory.try_clone().map_err(fail)?.into(), place.path())?;
            let staging = Self { place, name, directory, _one_at_a_time: one_at_a_time };
            // Else the run that held the lock has removed the directory.
            if staging.is_current() {
                staging.empty().map_err(fail)?;
                return Ok(staging);
            }
        }
        let name = place.path().display();
        Err(io_failure(
            io::Error::other("others have taken all names for its directory"),
            format!("making a copy for {name}"),
        ))
    }

    fn is_current(&self) -> bool {
        let now = fstatat(self.place.directory(), self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        match (now, fstat(&self.directory)) {
            (Ok(now), Ok(own)) => (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino),
            _ => false,
        }
    }

    fn empty(&self) -> io::Result<()> {
        for name in names_in(&self.directory)? {
            tree::remove(&self.directory, &name)?;
        }
        // Else what is made in it would have the access control list that its parent gives (acl(5)).
        for list in ["system.posix_acl_default", "system.posix_acl_access"] {
            match fremovexattr(&self.directory, list) {
                Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The directory.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Gives what was copied its name, unless something has it.
    pub(super) fn give_name(self, place: &ResolvedPath) -> io::Result<()> {
        match renameat_with(&self.directory, NAME, place.directory(), place.name(), RenameFlags::NOREPLACE) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            // Not every file system can (NFS); the lock keeps other runs away.
            Err(rustix::io::Errno::INVAL) if !place.is_taken() => {
                renameat(&self.directory, NAME, place.directory(), place.name())?;
            }
            Err(errno) => return Err(errno.into()),
        }
        self.remove()
    }

    /// Takes it away, with what is in it.
    pub(super) fn remove(self) -> io::Result<()> {
        self.empty()?;
        Ok(unlinkat(self.place.directory(), self.name.as_os_str(), UnlinkatFlags::RemoveDir)?)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // After a copy that failed. What can't be removed, the next run removes.
        if self.is_current() && self.empty().is_ok() {
            let _ = unlinkat(self.place.directory(), self.name.as_os_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// The name of the directory: no other file of ours has it, for a target that is there is tidied up by itself. Where others have
/// put something under it, the next one is taken.
fn name_beside(place: &ResolvedPath, number: usize) -> OsString {
    let mut name = OsString::from(".");
    name.push(place.name());
    name.push(".copying");
    if number > 0 {
        name.push(format!(".{number}"));
    }
    name
}

/// Whether a run that was killed has left the directory, or another run is making a copy.
pub(super) fn is_left(place: &ResolvedPath) -> bool {
    let name = name_beside(place, 0);
    fstatat(place.directory(), name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
}

/// The extended attribute that marks a directory that this program has made: only such a one is ever emptied. Of those of root
/// nobody else can set it, so nobody makes root empty another directory by giving it this name.
pub(super) fn mark() -> &'static str {
    if geteuid().is_root() { "trusted.azaion.copying" } else { "user.azaion.copying" }
}

/// What is at the name of the directory.
enum Private {
    /// Made by this program.
    Ours(OwnedFd),
    /// Something else, which is left alone.
    Foreign,
    /// Nothing, for another run has just taken it away.
    Gone,
}

/// Makes the directory, or opens the one that an earlier run has left.
fn make_private(place: &ResolvedPath, name: &OsString) -> io::Result<Private> {
    let is_new = match mkdirat(place.directory(), name.as_os_str(), Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = match openat(place.directory(), name.as_os_str(), flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::ENOENT) => return Ok(Private::Gone),
        Err(Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(Private::Foreign),
        Err(errno) => return Err(errno.into()),
    };
    let stat = fstat(&directory)?;
    let is_private = Mode::from_bits_truncate(stat.st_mode & 0o7777) == Mode::S_IRWXU;
    if stat.st_uid != geteuid().as_raw() || !is_private {
        return Ok(Private::Foreign);
    }
    if is_new && names_in(&directory)?.is_empty() {
        // Where there are no such attributes, what a killed run leaves is taken away by hand.
        let _ = fsetxattr(&directory, mark(), b"1", XattrFlags::empty());
        return Ok(Private::Ours(directory));
    }
    let mut value: [u8; 1] = [0];
    if fgetxattr(&directory, mark(), &mut value).is_ok() {
        return Ok(Private::Ours(directory));
    }
    // An empty one without the mark is what a run has left that was killed before it could set it. A run that is still about to
    // set it finds its directory gone, and makes another one.
    match unlinkat(place.directory(), name.as_os_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Private::Gone),
        Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR | Errno::EBUSY) => Ok(Private::Foreign),
        Err(errno) => Err(errno.into()),
    }
}
