//! Opens and locks an image file, so that no other run uses it, and reports errors that concern it.

use std::cell::{OnceCell, Ref, RefCell};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

use azaion_agent::common::private_file::{Attributes, Lifetime, Staged, has_no_leftovers, remove_leftovers, scratch};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::medium::Raw;
use super::problem::Problem;
use super::signature::{Signature, head_of, signature_of};
use crate::resolved_path::ResolvedPath;
use crate::target::error::{Error, Result, io_failure, path_failure};
use crate::target::lazy::get_or_try_init;
use crate::target::lock::{self, Access, Held};
use crate::target::write_access;

/// An open image file and its directory.
#[derive(Debug)]
pub(super) struct Image {
    /// The path that the caller gave.
    pub(super) path: PathBuf,
    resolved: ResolvedPath,
    /// The directory, opened for changes, once it is needed.
    listed: OnceCell<OwnedFd>,
    name: OsString,
    file: RefCell<Held>,
    /// Mode of the file: who may read it.
    mode: u32,
    /// Why the file cannot be opened for writing, if it cannot.
    read_only: Option<Errno>,
    /// Whether the image was opened for reading only or for changes.
    pub(super) access: Access,
}

impl Image {
    /// Opens the file that a path leads to.
    #[cfg(test)]
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::at(crate::target::find(path)?, Access::Change)
    }

    /// Opens a file. For a change, opens it for writing if permitted, and waits until no other run uses it.
    pub(super) fn at(mut resolved: ResolvedPath, access: Access) -> Result<Self> {
        let path = resolved.path().to_owned();
        let fail = |error: io::Error| io_failure(error, format!("opening {}", path.display()));
        loop {
            let opened = match access {
                Access::Change => open_for_writing(&resolved),
                Access::Read => resolved.open(OFlag::O_RDONLY).map(|file| (file, Some(Errno::EACCES))),
            };
            let (file, read_only) = opened.map_err(fail)?;
            let file = Held::new(file, &path, access)?;
            // The run that held the lock may have replaced the file.
            if access == Access::Change && !resolved.is_current() {
                resolved.refresh().map_err(|error| path_failure(error, &path))?;
                continue;
            }
            let mode = file.metadata().map_err(fail)?.mode();
            let name = resolved.name().to_owned();
            let file = RefCell::new(file);
            let image = Self { path, resolved, listed: OnceCell::new(), name, file, mode, read_only, access };
            image.refuse_if_attached()?;
            return Ok(image);
        }
    }

    /// Refuses an image that is attached to a loop device: data written to the file could be lost, or mixed with the
    /// kernel's.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own names of files")]
    fn refuse_if_attached(&self) -> Result<()> {
        // The file lists only loop devices with a size, which are those with a backing file. If it does not exist, no
        // block devices are visible.
        let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
        let devices = partitions.lines().filter_map(|line| line.split_whitespace().nth(3));
        for device in devices.filter(|name| name.starts_with("loop")) {
            let Ok(backing) = fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")) else { continue };
            let other = Path::new(backing.trim_end_matches('\n')).metadata();
            if other.is_ok_and(|other| self.resolved.identity() == Some((other.dev(), other.ino()))) {
                return Err(self.refused(format_args!(
                    "is attached to /dev/{device}, and may be mounted; unmount it and run `losetup -d /dev/{device}`"
                )));
            }
        }
        Ok(())
    }

    /// Returns the kind of the image, which its content determines.
    ///
    /// # Errors
    /// It is of a kind that cannot be a target.
    pub(super) fn signature(&self) -> Result<Signature> {
        let head =
            Raw::new(&self.file()).and_then(|raw| head_of(&raw)).map_err(|error| self.failed("reading", error))?;
        signature_of(&head).map_err(|why| self.refused(why))
    }

    /// Returns the error that refuses this target. `why` follows its path, and says what to do instead.
    pub(super) fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::unsuitable(&self.path, why)
    }

    /// Returns the error for a problem with the content of this target.
    pub(super) fn problem(&self, problem: Problem) -> Error {
        match problem {
            Problem::Io(error) => self.failed("reading or writing", error),
            Problem::Unclean | Problem::Faulty(_) => {
                self.refused(format_args!("{problem}; {}, or generate it again", self.how_to_repair()))
            }
            other => self.refused(other),
        }
    }

    /// Returns how to repair the file system in the image: e2fsck reads raw images only.
    pub(super) fn how_to_repair(&self) -> &'static str {
        match self.signature() {
            Ok(Signature::Sparse) => "run `simg2img` on it, `e2fsck -f` on the raw image, and `img2simg` on that",
            Ok(Signature::Zstd) => "decompress it with `zstd -d`, run `e2fsck -f` on the raw image, and compress that",
            _ => "run `e2fsck -f` on it",
        }
    }

    /// Returns the error for an I/O error of this target.
    pub(super) fn failed(&self, doing: &str, error: impl Into<io::Error>) -> Error {
        io_failure(error, format!("{doing} {}", self.path.display()))
    }

    /// Returns the open file.
    pub(super) fn file(&self) -> Ref<'_, File> {
        Ref::map(self.file.borrow(), |file| &**file)
    }

    /// Reads the image as [`Held::read`] does.
    pub(super) fn read<T>(&self, read: impl Fn() -> Result<(T, bool)>) -> Result<T> {
        self.file.borrow().read(read)
    }

    /// Returns the name of a file beside the image: its name with a suffix.
    pub(super) fn beside(&self, suffix: &str) -> OsString {
        [&self.name, OsStr::new(suffix)].into_iter().collect()
    }

    /// Returns the directory of the image, for opening files in it.
    pub(super) fn folder(&self) -> &OwnedFd {
        self.resolved.directory()
    }

    /// Returns the directory of the image, for creating files in it and making them durable.
    pub(super) fn listed_folder(&self) -> Result<BorrowedFd<'_>> {
        let open = || self.resolved.listed_directory().map_err(|error| self.failed("opening the directory of", error));
        get_or_try_init(&self.listed, open).map(AsFd::as_fd)
    }

    /// Creates an empty temporary file without a name beside the image.
    pub(super) fn scratch(&self) -> Result<File> {
        scratch(self.listed_folder()?, &self.name).map_err(|error| self.failed("making a copy of", error))
    }

    /// Removes temporary files that a killed run may have left beside the image for a file of this name. Does nothing
    /// in a directory that this process may not write to.
    pub(super) fn remove_leftovers_beside(&self, name: &OsStr) -> Result<()> {
        if has_no_leftovers(self.folder().as_fd(), name) || self.may_write_beside().is_err() {
            return Ok(());
        }
        remove_leftovers(self.listed_folder()?, name).map_err(|error| self.failed("removing leftovers beside", error))
    }

    /// Checks that the image can be written to.
    pub(super) fn may_write(&self) -> Result<()> {
        self.read_only.map_or(Ok(()), |errno| Err(self.failed("opening for writing", errno)))
    }

    /// Refuses an image with a second hard link: a write in place changes the file under both names, and would put this
    /// device's identity into another device's image.
    pub(super) fn refuse_if_linked(&self) -> Result<()> {
        let links = self.file().metadata().map_err(|error| self.failed("reading", error))?.nlink();
        if links < 2 {
            return Ok(());
        }
        Err(self.refused(
            "has a second name (a hard link), and that file would get this device's identity, too; replace it with a \
             copy (cp, then mv)",
        ))
    }

    /// Warns if other users can read the file: then they can read the password, whatever mode `device.conf` has in the
    /// image.
    pub(super) fn warn_if_readable(&self) {
        static WARNED: Once = Once::new();
        if self.mode & 0o044 != 0 {
            let path = self.path.display();
            // Warn once per process.
            WARNED.call_once(|| {
                log::warn!(
                    "other users of this host can read {path}, and so the password in it; run `chmod 600 {path}` \
                     before its first device; after that, replace it with a copy (cp, then mv): a process that has the \
                     old file open can still read it"
                );
            });
        }
    }

    /// Warns that the checksum file is missing, which the flash scripts write together with the image.
    pub(super) fn warn_of_missing_checksum(&self) {
        let path = self.path.display();
        log::warn!(
            "{path} has no .sha1sum beside it, but l4t_initrd_flash.sh requires one; check that the images were \
             generated completely"
        );
    }

    /// Warns that an incomplete `device.conf` was found.
    pub(super) fn warn_of_incomplete_conf(&self) {
        log::warn!(
            "{}: a run was interrupted while it wrote device.conf; the incomplete device.conf is ignored. If that run \
             used --server-assigned, the API may have an account of that time (azj-…) that no device uses",
            self.path.display()
        );
    }

    /// Checks that files can be created beside the image.
    pub(super) fn may_write_beside(&self) -> Result<()> {
        write_access::may_write_into(self.folder())
            .map_err(|error| self.failed("may not write into the directory of", error))
    }

    /// Overwrites bytes at an offset of the file, durable when this returns.
    pub(super) fn overwrite(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let file = self.file();
        let written = file.write_all_at(bytes, offset).and_then(|()| file.sync_data());
        written.map_err(|error| self.failed("writing", error))
    }

    /// Returns a second descriptor of the file, and its name.
    pub(super) fn duplicate(&self) -> Result<(File, OsString)> {
        let file = self.file().try_clone().map_err(|error| self.failed("reading", error))?;
        Ok((file, self.name.clone()))
    }

    /// Removes temporary files that a killed run may have left.
    pub(super) fn remove_leftovers(&self) -> Result<()> {
        self.remove_leftovers_beside(&self.name)
    }

    /// Creates an empty file that can replace the image.
    pub(super) fn stage(&self) -> Result<Staged<'_>> {
        Staged::create(self.listed_folder()?, &self.name).map_err(|error| self.failed("making a copy of", error))
    }

    /// Replaces the image with a complete file, atomically.
    pub(super) fn replace(&self, staged: Staged<'_>) -> Result<()> {
        let fail = |error: io::Error| self.failed("replacing", error);
        // Lock the file before it gets the name, so that no other run can lock it first.
        let file = lock::wait(staged.file().try_clone().map_err(fail)?, &self.path)?;
        let old = self.file().metadata().map_err(fail)?;
        let new = file.metadata().map_err(fail)?;
        if old.nlink() > 1 {
            log::warn!(
                "{} had a second name (a hard link); the file under that name is not changed and has no slot",
                self.path.display()
            );
        }
        // Only root may change the owner of a file. For other users, the new file belongs to the caller.
        let owner = |old: u32, new: u32| (old != new && nix::unistd::geteuid().is_root()).then_some(old);
        let attributes = Attributes {
            mode: old.mode() & 0o7777,
            uid: owner(old.uid(), new.uid()),
            gid: owner(old.gid(), new.gid()),
        };
        staged.commit(attributes, Lifetime::Durable).map_err(fail)?;
        self.file.replace(Held::Locked(file));
        Ok(())
    }
}

/// Opens a file for writing. If that is not permitted, opens it for reading and returns the reason.
fn open_for_writing(path: &ResolvedPath) -> io::Result<(File, Option<Errno>)> {
    let error = match path.open(OFlag::O_RDWR) {
        Ok(file) => return Ok((file, None)),
        Err(error) => error,
    };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => Ok((path.open(OFlag::O_RDONLY)?, Some(errno))),
        _ => Err(error),
    }
}
