//! Where copies are made: a directory beside the place, for the caller alone.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use azaion_agent::exit::Exit;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
// nix has renameat2 for glibc alone.
use rustix::fs::{RenameFlags, XattrFlags, fgetxattr, fremovexattr, fsetxattr, renameat_with};

use super::tree;
use crate::failure::{failure, io_failure};
use crate::place::{Place, names_in};
use crate::target::lock;

/// What is being copied.
pub(super) const NAME: &str = "copy";
/// Somebody who puts something else in its place again and again is not waited for.
const TRIES: usize = 10;

/// A directory that others can neither enter nor lock, gone when this is dropped.
#[derive(Debug)]
pub(super) struct Staging<'p> {
    place: &'p Place,
    name: OsString,
    folder: OwnedFd,
    _one_at_a_time: Flock<File>,
}

impl<'p> Staging<'p> {
    /// Makes an empty one, or empties what a run that was killed has left. Another run that makes the same copy is waited for.
    pub(super) fn make(place: &'p Place) -> anyhow::Result<Self> {
        let fail = |error: io::Error| io_failure(error, &format!("making a copy for {}", place.path().display()));
        let mut number = 0;
        for _ in 0..TRIES {
            let name = name_beside(place, number);
            let folder = match make_private(place, &name).map_err(fail)? {
                Private::Ours(folder) => folder,
                Private::Gone => continue,
                Private::Foreign => {
                    number += 1;
                    continue;
                }
            };
            let one_at_a_time = lock::wait(folder.try_clone().map_err(fail)?.into(), place.path())?;
            let staging = Self { place, name, folder, _one_at_a_time: one_at_a_time };
            // Else whoever held the lock has taken the directory away.
            if staging.is_current() {
                staging.empty().map_err(fail)?;
                return Ok(staging);
            }
        }
        let name = place.path().display();
        Err(failure(Exit::Io, format!("making a copy for {name}: others have taken all names for its directory")))
    }

    fn is_current(&self) -> bool {
        let now = fstatat(self.place.folder(), self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        match (now, fstat(&self.folder)) {
            (Ok(now), Ok(own)) => (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino),
            _ => false,
        }
    }

    fn empty(&self) -> io::Result<()> {
        for name in names_in(&self.folder)? {
            tree::remove(&self.folder, &name)?;
        }
        // Else what is made in it would have the access control list that its parent gives (acl(5)).
        for list in ["system.posix_acl_default", "system.posix_acl_access"] {
            match fremovexattr(&self.folder, list) {
                Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The directory.
    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// Gives what was copied its name, unless something has it.
    pub(super) fn give_name(self, place: &Place) -> io::Result<()> {
        match renameat_with(&self.folder, NAME, place.folder(), place.name(), RenameFlags::NOREPLACE) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            // Not every file system can (NFS); the lock keeps other runs away.
            Err(rustix::io::Errno::INVAL) if !place.is_taken() => {
                renameat(&self.folder, NAME, place.folder(), place.name())?;
            }
            Err(errno) => return Err(errno.into()),
        }
        self.remove()
    }

    /// Takes it away, with what is in it.
    pub(super) fn remove(self) -> io::Result<()> {
        self.empty()?;
        Ok(unlinkat(self.place.folder(), self.name.as_os_str(), UnlinkatFlags::RemoveDir)?)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // After a copy that failed. What can't be removed, the next run removes.
        if self.is_current() && self.empty().is_ok() {
            let _ = unlinkat(self.place.folder(), self.name.as_os_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// The name of the directory: no other file of ours has it, for a target that is there is tidied up by itself. Where others have
/// put something under it, the next one is taken.
fn name_beside(place: &Place, number: usize) -> OsString {
    let mut name = OsString::from(".");
    name.push(place.name());
    name.push(".copying");
    if number > 0 {
        name.push(format!(".{number}"));
    }
    name
}

/// Whether a run that was killed has left the directory, or another run is making a copy.
pub(super) fn is_left(place: &Place) -> bool {
    let name = name_beside(place, 0);
    fstatat(place.folder(), name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
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
fn make_private(place: &Place, name: &OsString) -> io::Result<Private> {
    let is_new = match mkdirat(place.folder(), name.as_os_str(), Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = match openat(place.folder(), name.as_os_str(), flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::ENOENT) => return Ok(Private::Gone),
        Err(Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(Private::Foreign),
        Err(errno) => return Err(errno.into()),
    };
    let stat = fstat(&folder)?;
    let is_private = Mode::from_bits_truncate(stat.st_mode & 0o7777) == Mode::S_IRWXU;
    if stat.st_uid != geteuid().as_raw() || !is_private {
        return Ok(Private::Foreign);
    }
    if is_new && names_in(&folder)?.is_empty() {
        // Where there are no such attributes, what a killed run leaves is taken away by hand.
        let _ = fsetxattr(&folder, mark(), b"1", XattrFlags::empty());
        return Ok(Private::Ours(folder));
    }
    let mut value: [u8; 1] = [0];
    Ok(if fgetxattr(&folder, mark(), &mut value).is_ok() { Private::Ours(folder) } else { Private::Foreign })
}
