//! The one way in which both programs write a file: whole, private from its first byte on, and
//! durable where it has to be.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, linkat, unlinkat};
use rustix::fs::fremovexattr;

use effects::{fsync, named, removed};

mod effects;

/// Whether a file has to be there after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Yes: written through to the disk, file and folder.
    Durable,
    /// No: it lies in `/run`, which does not outlive the boot, or can be made again. Readers see whole files all the same.
    ThisBoot,
}

/// Mode and owner of a file to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, whatever the umask is.
    pub mode: u32,
    /// Owner by number; `None` leaves the caller's.
    pub uid: Option<u32>,
    /// Group by number; `None` leaves the caller's.
    pub gid: Option<u32>,
}

/// The name under which a new version waits for its rename; one a file, so that a killed run leaves one at most
/// and the next run takes it away.
fn staged_name(name: &OsStr) -> OsString {
    [OsStr::new("."), name, OsStr::new(".new")].into_iter().collect()
}

/// Puts `bytes` at `name` in the folder `dir`: a reader sees the old file or the new one, and after a power cut
/// there is one of the two.
///
/// The caller holds the folder's lock. The file has no name until it is complete where the file system
/// can do that (`O_TMPFILE`, open(2)), so that a killed run leaves nothing beside it on the first write.
///
/// # Errors
/// The first step that failed; nothing new has a name in the folder then.
pub fn replace(
    dir: BorrowedFd<'_>,
    name: &(impl AsRef<OsStr> + ?Sized),
    attributes: Attributes,
    bytes: &[u8],
    lifetime: Lifetime,
) -> io::Result<()> {
    let staged = Staged::create(dir, name)?;
    let mut file = staged.file();
    file.write_all(bytes)?;
    staged.commit(attributes, lifetime)
}

/// A new version of a file, which nobody sees until it is complete. Dropped before that, it is gone.
#[derive(Debug)]
pub struct Staged<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    file: File,
    /// Whether it has a name already, since the file system has no `O_TMPFILE`.
    is_named: bool,
}

impl<'a> Staged<'a> {
    /// An empty file for the caller alone, to become `name` in the folder `dir`, whose lock the caller holds.
    ///
    /// # Errors
    /// The I/O error.
    pub fn create(dir: BorrowedFd<'a>, name: &'a (impl AsRef<OsStr> + ?Sized)) -> io::Result<Self> {
        let name = name.as_ref();
        remove_leftovers(dir, name)?;
        let (file, is_named) = create_private(dir, name)?;
        let staged = Self { dir, name, file, is_named };
        drop_access_list(&staged.file)?;
        Ok(staged)
    }

    /// To be written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place: a reader sees the old file or this one, and after a power cut there is one of the two.
    ///
    /// # Errors
    /// The first step that failed; nothing new has a name in the folder then.
    pub fn commit(mut self, attributes: Attributes, lifetime: Lifetime) -> io::Result<()> {
        self.finish(attributes, lifetime)?;
        let (dir, staged) = (self.dir, staged_name(self.name));
        if !self.is_named {
            match link(&self.file, dir, self.name) {
                Ok(()) => {
                    named(dir, self.name);
                    return sync(dir, lifetime);
                }
                // The name is taken: only a rename replaces it in one step.
                Err(Errno::EEXIST) => link(&self.file, dir, &staged)?,
                Err(errno) => return Err(errno.into()),
            }
            self.is_named = true;
        }
        renameat(dir, staged.as_os_str(), dir, self.name)?;
        self.is_named = false;
        named(dir, self.name);
        sync(dir, lifetime)
    }

    fn finish(&self, attributes: Attributes, lifetime: Lifetime) -> io::Result<()> {
        set_attributes(self.file.as_fd(), attributes)?;
        sync(self.file.as_fd(), lifetime)
    }
}

/// An empty file for the caller alone, without a name where the file system can do that; whether it has one, beside `name`.
fn create_private(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<(File, bool)> {
    let private = Mode::from_bits_truncate(0o600);
    let common = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    match openat(dir, ".", common | OFlag::O_TMPFILE, private) {
        Ok(file) => Ok((file.into(), false)),
        // Not every file system has O_TMPFILE (FAT, NFS), and old kernels say EISDIR.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => {
            let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
            Ok((openat(dir, staged_name(name).as_os_str(), common | create, private)?.into(), true))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// An empty file for the caller alone, on the file system of the folder `dir`; it is gone once it is closed. Where it must have
/// a name for a moment, that is one beside `name`.
///
/// # Errors
/// The I/O error.
pub fn scratch(dir: BorrowedFd<'_>, name: &(impl AsRef<OsStr> + ?Sized)) -> io::Result<File> {
    let name = name.as_ref();
    let (file, is_named) = create_private(dir, name)?;
    if is_named {
        remove(dir, &staged_name(name))?;
    }
    Ok(file)
}

/// Takes away the access control list that a new file has from its folder (acl(5)): once the file gets the mode that it is to
/// have, the list would let in whom that mode does not.
fn drop_access_list(file: &File) -> io::Result<()> {
    use rustix::io::Errno;
    match fremovexattr(file, "system.posix_acl_access") {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.is_named {
            let _ = remove(self.dir, &staged_name(self.name));
        }
    }
}

fn sync(file: BorrowedFd<'_>, lifetime: Lifetime) -> io::Result<()> {
    if lifetime == Lifetime::Durable {
        fsync(file)?;
    }
    Ok(())
}

/// Gives an unnamed file its name (open(2), `O_TMPFILE`).
fn link(file: &File, dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, unnamed.as_str(), dir, name, AtFlags::AT_SYMLINK_FOLLOW)
}

/// Gives an open file or folder its owner and mode; in this order, since chown clears bits.
///
/// # Errors
/// The I/O error, `EPERM` where the caller may not.
pub fn set_attributes(file: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    if attributes.uid.is_some() || attributes.gid.is_some() {
        fchown(file, attributes.uid.map(Uid::from_raw), attributes.gid.map(Gid::from_raw))?;
    }
    fchmod(file, Mode::from_bits_truncate(attributes.mode))?;
    Ok(())
}

/// Whether no killed run has left anything beside `name`; to ask takes no right to list or to change the folder.
pub fn has_no_leftovers(dir: BorrowedFd<'_>, name: &(impl AsRef<OsStr> + ?Sized)) -> bool {
    fstatat(dir, staged_name(name.as_ref()).as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT)
}

/// Takes away what a killed run may have left beside `name`, its bytes first.
///
/// # Errors
/// The I/O error; that nothing is there is none.
pub fn remove_leftovers(dir: BorrowedFd<'_>, name: &(impl AsRef<OsStr> + ?Sized)) -> io::Result<()> {
    // Another user's holds nothing of ours, and may be leased to hold us up. A large one is the copy of an image, full of holes.
    let is_ours = |stat: &FileStat| stat.st_uid == geteuid().as_raw() && stat.st_size <= LARGEST_LEFTOVER;
    erase(dir, &staged_name(name.as_ref()), is_ours).map(drop)
}

/// Takes `name` out of the folder, its bytes first, so that they do not stay on the disk under no name; and what a
/// killed run may have left beside it. Whether it was there.
///
/// # Errors
/// The I/O error; that nothing is there is none.
pub fn erase_all(dir: BorrowedFd<'_>, name: &(impl AsRef<OsStr> + ?Sized)) -> io::Result<bool> {
    remove_leftovers(dir, name)?;
    erase(dir, name.as_ref(), |stat| stat.st_size <= LARGEST)
}

/// Takes a name away; `is_to_be_wiped` says whether the bytes of a file are overwritten first.
fn erase(dir: BorrowedFd<'_>, name: &OsStr, is_to_be_wiped: impl Fn(&FileStat) -> bool) -> io::Result<bool> {
    // Told before it is opened: to open a device or a pipe may do something, or hang.
    let there = match openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(there) => there,
        Err(Errno::ENOENT) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    let stat = fstat(&there)?;
    match kind_of(&stat) {
        SFlag::S_IFREG if is_to_be_wiped(&stat) => {
            overwrite(&reopen(there.as_fd(), OFlag::O_WRONLY | OFlag::O_NONBLOCK)?)?;
        }
        SFlag::S_IFDIR => {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                format!("{} in its folder is a folder; take it away", name.display()),
            ));
        }
        // A symlink, a pipe, a device: its name is all there is to take.
        _ => {}
    }
    let was_there = remove(dir, name)?;
    fsync(dir)?;
    Ok(was_there)
}

/// The kind of a file (inode(7), `S_IFMT`).
pub fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Opens what a descriptor stands for, with other rights. It is not looked up by a path again (proc(5), `/proc/self/fd`).
///
/// # Errors
/// The I/O error.
pub fn reopen(descriptor: BorrowedFd<'_>, flags: OFlag) -> io::Result<File> {
    let opened = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    Ok(open(opened.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
}

/// Files with secrets are smaller than this many bytes.
const LARGEST_LEFTOVER: i64 = 65_536;
/// The same of what others may have put in the place of one.
const LARGEST: i64 = 64 << 20;

/// Writes newlines over a whole file. One with a second name is somebody else's, too, and left as it is.
fn overwrite(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.nlink() != 1 {
        return Ok(());
    }
    let blank = [b'\n'; 4096];
    for offset in (0..metadata.size()).step_by(blank.len()) {
        let length = usize::try_from(metadata.size() - offset).map_or(blank.len(), |left| left.min(blank.len()));
        file.write_all_at(blank.get(..length).unwrap_or_default(), offset)?;
    }
    Ok(fsync(file.as_fd())?)
}

/// Takes `name` out of the folder in one step: readers see a whole file or none. Whether it was there.
///
/// # Errors
/// The I/O error; that nothing is there is none.
pub fn remove(dir: BorrowedFd<'_>, name: &(impl AsRef<OsStr> + ?Sized)) -> io::Result<bool> {
    match unlinkat(dir, name.as_ref(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => {
            removed(dir, name.as_ref());
            Ok(true)
        }
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests;
