//! An image as a file: opened, locked, and used by nobody else.

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

/// An image file and the folder that it is in.
#[derive(Debug)]
pub(super) struct Image {
    /// As it was named.
    pub(super) path: PathBuf,
    place: ResolvedPath,
    listed: OnceCell<OwnedFd>,
    name: OsString,
    file: RefCell<Held>,
    /// IdentitySource may read the file.
    mode: u32,
    /// Why the file can't be written to, if it can't.
    read_only: Option<Errno>,
    /// What it was opened for.
    pub(super) access: Access,
}

impl Image {
    /// Opens the file that a path leads to.
    #[cfg(test)]
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::at(crate::target::find(path)?, Access::Change)
    }

    /// Opens a file. If it may be changed, opens it for writing if that is allowed, and waits until no other run works on it.
    pub(super) fn at(mut place: ResolvedPath, access: Access) -> Result<Self> {
        let path = place.path().to_owned();
        let fail = |error: io::Error| io_failure(error, format!("opening {}", path.display()));
        loop {
            let opened = match access {
                Access::Change => open_for_writing(&place),
                Access::Read => place.open(OFlag::O_RDONLY).map(|file| (file, Some(Errno::EACCES))),
            };
            let (file, read_only) = opened.map_err(fail)?;
            let file = Held::new(file, &path, access)?;
            // Whoever held the lock may have put another file in its place.
            if access == Access::Change && !place.is_current() {
                place.refresh().map_err(|error| path_failure(error, &path))?;
                continue;
            }
            let mode = file.metadata().map_err(fail)?.mode();
            let name = place.name().to_owned();
            let file = RefCell::new(file);
            let image = Self { path, place, listed: OnceCell::new(), name, file, mode, read_only, access };
            image.refuse_if_attached()?;
            return Ok(image);
        }
    }

    /// Refuses an image that a loop device shows to the kernel: what is written to the file may be lost then, or mixed.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own names of files")]
    fn refuse_if_attached(&self) -> Result<()> {
        // Of all loop devices, those that show a file: the others have no size.
        // Without that file, there are no such devices to be seen.
        let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
        let devices = partitions.lines().filter_map(|line| line.split_whitespace().nth(3));
        for device in devices.filter(|name| name.starts_with("loop")) {
            let Ok(backing) = fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")) else { continue };
            let other = Path::new(backing.trim_end_matches('\n')).metadata();
            if other.is_ok_and(|other| self.place.identity() == Some((other.dev(), other.ino()))) {
                return Err(self.refused(format_args!(
                    "is attached to /dev/{device}, and may be mounted; unmount it and run `losetup -d /dev/{device}`"
                )));
            }
        }
        Ok(())
    }

    /// What it is, by its content; refused if it can't be a target.
    pub(super) fn signature(&self) -> Result<Signature> {
        let head =
            Raw::new(&self.file()).and_then(|raw| head_of(&raw)).map_err(|error| self.failed("reading", error))?;
        signature_of(&head).map_err(|why| self.refused(why))
    }

    /// A refusal of this target; `why` says what to do instead.
    pub(super) fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::unsuitable(&self.path, why)
    }

    /// What is wrong with the bytes of this target.
    pub(super) fn problem(&self, problem: Problem) -> Error {
        match problem {
            Problem::Io(error) => self.failed("reading or writing", error),
            Problem::Unclean | Problem::Faulty(_) => {
                self.refused(format_args!("{problem}; {}, or generate it again", self.how_to_repair()))
            }
            other => self.refused(other),
        }
    }

    /// How to repair the file system in it: e2fsck reads raw images alone.
    pub(super) fn how_to_repair(&self) -> &'static str {
        match self.signature() {
            Ok(Signature::Sparse) => "run `simg2img` on it, `e2fsck -f` on the raw image, and `img2simg` on that",
            Ok(Signature::Zstd) => "decompress it with `zstd -d`, run `e2fsck -f` on the raw image, and compress that",
            _ => "run `e2fsck -f` on it",
        }
    }

    /// An I/O error of this target.
    pub(super) fn failed(&self, doing: &str, error: impl Into<io::Error>) -> Error {
        io_failure(error, format!("{doing} {}", self.path.display()))
    }

    /// The file.
    pub(super) fn file(&self) -> Ref<'_, File> {
        Ref::map(self.file.borrow(), |file| &**file)
    }

    /// See [`Held::read`].
    pub(super) fn read<T>(&self, read: impl Fn() -> Result<(T, bool)>) -> Result<T> {
        self.file.borrow().read(read)
    }

    /// The name of a file that lies beside it.
    pub(super) fn beside(&self, suffix: &str) -> OsString {
        [&self.name, OsStr::new(suffix)].into_iter().collect()
    }

    /// The folder it is in, to find files in it.
    pub(super) fn folder(&self) -> &OwnedFd {
        self.place.directory()
    }

    /// The folder it is in, to make files in it and make them durable.
    pub(super) fn listed_folder(&self) -> Result<BorrowedFd<'_>> {
        let open = || self.place.listed_directory().map_err(|error| self.failed("opening the directory of", error));
        get_or_try_init(&self.listed, open).map(AsFd::as_fd)
    }

    /// An empty file without a name beside the image, for what is needed for a while.
    pub(super) fn scratch(&self) -> Result<File> {
        scratch(self.listed_folder()?, &self.name).map_err(|error| self.failed("making a copy of", error))
    }

    /// Takes away what a run that was killed may have left beside the image in place of a file of this name. Where no
    /// file can be made, there is none.
    pub(super) fn remove_leftovers_beside(&self, name: &OsStr) -> Result<()> {
        if has_no_leftovers(self.folder().as_fd(), name) || self.may_write_beside().is_err() {
            return Ok(());
        }
        remove_leftovers(self.listed_folder()?, name).map_err(|error| self.failed("tidying up beside", error))
    }

    /// Whether it can be written to.
    pub(super) fn may_write(&self) -> Result<()> {
        self.read_only.map_or(Ok(()), |errno| Err(self.failed("opening for writing", errno)))
    }

    /// Refuses an image with another name: what is written in place is written under that name, too, and would make another
    /// device's image this one's.
    pub(super) fn refuse_if_linked(&self) -> Result<()> {
        let links = self.file().metadata().map_err(|error| self.failed("reading", error))?.nlink();
        if links < 2 {
            return Ok(());
        }
        Err(self.refused("has another name (a hard link), which would get this device's identity, too; make it a copy of its own with cp"))
    }

    /// What is in the image is as open as its file, whatever the mode inside.
    pub(super) fn warn_if_open(&self) {
        static WARNED: Once = Once::new();
        if self.mode & 0o044 != 0 {
            let path = self.path.display();
            // Once a run: of a thousand images, all are alike.
            WARNED.call_once(|| {
                log::warn!(
                    "{path} can be read by others on this host, and so can the password in it; chmod 600 {path} before its first \
                     device; later make it a new file (cp, then mv), for who has it open reads on"
                );
            });
        }
    }

    /// What the flash scripts write together with the image.
    pub(super) fn warn_of_no_sum(&self) {
        let path = self.path.display();
        log::warn!("{path} has no .sha1sum beside it, which l4t_initrd_flash.sh wants; is it complete?");
    }

    /// Says that the half of a `device.conf` was found.
    pub(super) fn warn_of_torn(&self) {
        log::warn!(
            "{}: a run died while it wrote; what it left is no device's. If it was one with --server-assigned, the API may have a user that \
             no device has: an azj-… of that time",
            self.path.display()
        );
    }

    /// Whether files can be made beside it.
    pub(super) fn may_write_beside(&self) -> Result<()> {
        write_access::may_write_into(self.folder())
            .map_err(|error| self.failed("may not write into the folder of", error))
    }

    /// One write within the file, durable when this returns.
    pub(super) fn overwrite(&self, bytes: &[u8], place: u64) -> Result<()> {
        let file = self.file();
        let written = file.write_all_at(bytes, place).and_then(|()| file.sync_data());
        written.map_err(|error| self.failed("writing", error))
    }

    /// A second descriptor of the file, and its name.
    pub(super) fn duplicate(&self) -> Result<(File, OsString)> {
        let file = self.file().try_clone().map_err(|error| self.failed("reading", error))?;
        Ok((file, self.name.clone()))
    }

    /// Takes away what a run that was killed may have left.
    pub(super) fn remove_leftovers(&self) -> Result<()> {
        self.remove_leftovers_beside(&self.name)
    }

    /// An empty file that is to take the image's place.
    pub(super) fn stage(&self) -> Result<Staged<'_>> {
        Staged::create(self.listed_folder()?, &self.name).map_err(|error| self.failed("making a copy of", error))
    }

    /// Puts a complete file in the image's place: whole, or not at all.
    pub(super) fn replace(&self, staged: Staged<'_>) -> Result<()> {
        let fail = |error: io::Error| self.failed("replacing", error);
        // Locked before it has the name, so that nobody comes between.
        let file = lock::wait(staged.file().try_clone().map_err(fail)?, &self.path)?;
        let old = self.file().metadata().map_err(fail)?;
        let new = file.metadata().map_err(fail)?;
        if old.nlink() > 1 {
            log::warn!("{} had another name (a hard link), which keeps the image without a slot", self.path.display());
        }
        // Only root may give files away; for others they are the caller's own, or will be.
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

/// Opens a file for writing, or for reading and says why.
fn open_for_writing(place: &ResolvedPath) -> io::Result<(File, Option<Errno>)> {
    let error = match place.open(OFlag::O_RDWR) {
        Ok(file) => return Ok((file, None)),
        Err(error) => error,
    };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => Ok((place.open(OFlag::O_RDONLY)?, Some(errno))),
        _ => Err(error),
    }
}
