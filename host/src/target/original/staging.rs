//! Where copies are made: a directory beside the place, for the caller alone.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use azaion_agent::exit::Exit;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
// nix has renameat2 for glibc alone.
use rustix::fs::{RenameFlags, fremovexattr, renameat_with};

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
        let mut name = name_beside(place);
        let fail = |error: io::Error| io_failure(error, &format!("making a copy for {}", place.path().display()));
        for _ in 0..TRIES {
            match mkdirat(place.folder(), name.as_os_str(), Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(fail(errno.into())),
            }
            let Some(folder) = open_private(place, &name).map_err(fail)? else { continue };
            let one_at_a_time = lock::wait(folder.try_clone().map_err(fail)?.into(), place.path())?;
            let staging = Self { place, name, folder, _one_at_a_time: one_at_a_time };
            if !staging.is_current() {
                // Whoever held the lock has given it up, and the directory with it.
                name = staging.give_up();
                continue;
            }
            staging.empty().map_err(fail)?;
            return Ok(staging);
        }
        let name = place.path().display();
        Err(failure(Exit::Io, format!("making a copy for {name}: others put something else in place of its directory")))
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
            Ok(()) | Err(rustix::io::Errno::EXIST) => self.remove(),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes it away, with what is in it.
    pub(super) fn remove(self) -> io::Result<()> {
        self.empty()?;
        Ok(unlinkat(self.place.folder(), self.name.as_os_str(), UnlinkatFlags::RemoveDir)?)
    }

    /// Forgets one that is no longer there; its name.
    fn give_up(mut self) -> OsString {
        std::mem::take(&mut self.name)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // After a copy that failed. What can't be removed, the next run removes.
        if !self.name.is_empty() && self.is_current() && self.empty().is_ok() {
            let _ = unlinkat(self.place.folder(), self.name.as_os_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// The name of the directory: no other file of ours has it, for a target that is there is tidied up by itself.
fn name_beside(place: &Place) -> OsString {
    let mut name = OsString::from(".");
    name.push(place.name());
    name.push(".copying");
    name
}

/// Whether a run that was killed has left the directory, or another run is making a copy.
pub(super) fn is_left(place: &Place) -> bool {
    let name = name_beside(place);
    fstatat(place.folder(), name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
}

/// Opens the directory, if it is the caller's and nobody else's; what is not is taken away.
fn open_private(place: &Place, name: &OsString) -> io::Result<Option<OwnedFd>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(place.folder(), name.as_os_str(), flags, Mode::empty()) {
        Ok(folder) => {
            let stat = fstat(&folder)?;
            if stat.st_uid == geteuid().as_raw() && Mode::from_bits_truncate(stat.st_mode & 0o7777) == Mode::S_IRWXU {
                return Ok(Some(folder));
            }
        }
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::ENOTDIR | Errno::ELOOP) => {}
        Err(errno) => return Err(errno.into()),
    }
    tree::remove(place.folder().as_fd(), name)?;
    Ok(None)
}
