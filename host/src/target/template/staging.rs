//! The staging directory of a copy: beside the target, and accessible to the caller alone.

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

/// The name of the copy in its staging directory.
pub(super) const NAME: &str = "copy";
/// How often to try to create the directory, in case another user keeps replacing it.
const TRIES: usize = 10;

/// A directory that others can neither enter nor lock. It is removed when this value is dropped.
#[derive(Debug)]
pub(super) struct Staging<'p> {
    target: &'p ResolvedPath,
    name: OsString,
    directory: OwnedFd,
    _one_at_a_time: Flock<File>,
}

impl<'p> Staging<'p> {
    /// Creates an empty directory, or empties the one that a killed run has left. Waits for another run that makes the same copy.
    pub(super) fn create(target: &'p ResolvedPath) -> Result<Self> {
        let fail = |error: io::Error| io_failure(error, format!("creating the copy {}", target.path().display()));
        let mut number = 0;
        for _ in 0..TRIES {
            let name = name_beside(target, number);
            let directory = match open_private(target, &name).map_err(fail)? {
                Private::Ours(directory) => directory,
                Private::Gone => continue,
                Private::Foreign => {
                    number += 1;
                    continue;
                }
            };
            let one_at_a_time = lock::wait(directory.try_clone().map_err(fail)?.into(), target.path())?;
            let staging = Self { target, name, directory, _one_at_a_time: one_at_a_time };
            // Otherwise the run that held the lock has removed the directory.
            if staging.is_current() {
                staging.empty().map_err(fail)?;
                return Ok(staging);
            }
        }
        let name = target.path().display();
        Err(io_failure(
            io::Error::other("all names for its staging directory are taken by other files"),
            format!("creating the copy {name}"),
        ))
    }

    fn is_current(&self) -> bool {
        let now = fstatat(self.target.directory(), self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        match (now, fstat(&self.directory)) {
            (Ok(now), Ok(own)) => (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino),
            _ => false,
        }
    }

    fn empty(&self) -> io::Result<()> {
        for name in names_in(&self.directory)? {
            tree::remove(&self.directory, &name)?;
        }
        // Otherwise the files in it would get the default access control list of its parent (acl(5)).
        for list in ["system.posix_acl_default", "system.posix_acl_access"] {
            match fremovexattr(&self.directory, list) {
                Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Returns the open directory.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Renames the copy to its final name, unless a file has that name, and removes the directory.
    pub(super) fn publish(self, target: &ResolvedPath) -> io::Result<()> {
        match renameat_with(&self.directory, NAME, target.directory(), target.name(), RenameFlags::NOREPLACE) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            // Some file systems (NFS) do not support NOREPLACE; the lock excludes other runs.
            Err(rustix::io::Errno::INVAL) if !target.is_taken() => {
                renameat(&self.directory, NAME, target.directory(), target.name())?;
            }
            Err(errno) => return Err(errno.into()),
        }
        self.remove()
    }

    /// Removes the directory and its content.
    pub(super) fn remove(self) -> io::Result<()> {
        self.empty()?;
        Ok(unlinkat(self.target.directory(), self.name.as_os_str(), UnlinkatFlags::RemoveDir)?)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // After a failed copy. If this fails, the next run removes the directory.
        if self.is_current() && self.empty().is_ok() {
            let _ = unlinkat(self.target.directory(), self.name.as_os_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// Returns the name of the staging directory. `number` counts the names that are taken by files of others. No other file of this
/// program has such a name: an existing target removes its own leftovers.
fn name_beside(target: &ResolvedPath, number: usize) -> OsString {
    let mut name = OsString::from(".");
    name.push(target.name());
    name.push(".copying");
    if number > 0 {
        name.push(format!(".{number}"));
    }
    name
}

/// Returns whether the directory exists: a killed run has left it, or another run is making a copy.
pub(super) fn is_left(target: &ResolvedPath) -> bool {
    let name = name_beside(target, 0);
    fstatat(target.directory(), name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
}

/// Returns the extended attribute that marks a directory as created by this program. Only marked directories are ever emptied.
/// Root uses a `trusted` attribute, which nobody else can set, so nobody can make root empty another directory by renaming it.
pub(super) fn ownership_attribute() -> &'static str {
    if geteuid().is_root() { "trusted.azaion.copying" } else { "user.azaion.copying" }
}

/// What exists under the name of the directory.
enum Private {
    /// A directory that this program created.
    Ours(OwnedFd),
    /// Something else, which is not touched.
    Foreign,
    /// Nothing, because another run has just removed it.
    Gone,
}

/// Creates the directory, or opens the one that an earlier run has left.
fn open_private(target: &ResolvedPath, name: &OsString) -> io::Result<Private> {
    let is_new = match mkdirat(target.directory(), name.as_os_str(), Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = match openat(target.directory(), name.as_os_str(), flags, Mode::empty()) {
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
        // On file systems without such attributes, what a killed run leaves has to be removed by hand.
        let _ = fsetxattr(&directory, ownership_attribute(), b"1", XattrFlags::empty());
        return Ok(Private::Ours(directory));
    }
    let mut value: [u8; 1] = [0];
    if fgetxattr(&directory, ownership_attribute(), &mut value).is_ok() {
        return Ok(Private::Ours(directory));
    }
    // An empty directory without the attribute was left by a run that was killed before it could set it. A run that is still about
    // to set it finds its directory gone, and creates another one.
    match unlinkat(target.directory(), name.as_os_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Private::Gone),
        Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR | Errno::EBUSY) => Ok(Private::Foreign),
        Err(errno) => Err(errno.into()),
    }
}
