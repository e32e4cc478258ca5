//! Writes files atomically, private from the first byte, and durable where required. Both programs write all their files with it.

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

/// Whether a file has to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Yes: file and directory are flushed to the disk.
    Durable,
    /// No: it is in `/run`, which does not survive a reboot, or can be recreated. Readers still see only complete files.
    ThisBoot,
}

/// Mode and owner of a file to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits; the umask is ignored.
    pub mode: u32,
    /// Owner by number; `None` means the caller's.
    pub uid: Option<u32>,
    /// Group by number; `None` means the caller's.
    pub gid: Option<u32>,
}

/// Returns the temporary name of a new version. There is one per file, so that a killed run leaves at most one leftover, which the
/// next run removes.
fn staged_name(name: &OsStr) -> OsString {
    [OsStr::new("."), name, OsStr::new(".new")].into_iter().collect()
}

/// Replaces the file `name` in the directory `dir` atomically: a reader sees the old file or the new one, also after a power cut.
///
/// The caller holds the directory's lock. Where the file system supports it (`O_TMPFILE`, open(2)), the file has no name until it
/// is complete, so that a killed run leaves no leftover on the first write.
///
/// # Errors
/// The first step that failed; the directory then has no new entry.
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

/// A new version of a file, invisible until it is committed. Dropping it before that discards it.
#[derive(Debug)]
pub struct Staged<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    file: File,
    /// Whether it has a temporary name, because the file system has no `O_TMPFILE`.
    is_named: bool,
}

impl<'a> Staged<'a> {
    /// Creates an empty file that only the caller can access, to become `name` in the directory `dir`, whose lock the caller holds.
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

    /// Returns the file to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Replaces the old version atomically: a reader sees the old file or this one, also after a power cut.
    ///
    /// # Errors
    /// The first step that failed; the directory then has no new entry.
    pub fn commit(mut self, attributes: Attributes, lifetime: Lifetime) -> io::Result<()> {
        self.finish(attributes, lifetime)?;
        let (dir, staged) = (self.dir, staged_name(self.name));
        if !self.is_named {
            match link(&self.file, dir, self.name) {
                Ok(()) => {
                    named(dir, self.name);
                    return sync(dir, lifetime);
                }
                // The name exists: only a rename replaces it atomically.
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

/// Creates an empty file that only the caller can access, without a name where the file system supports it; returns the file and
/// whether it has the temporary name of `name`.
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

/// Creates an empty file that only the caller can access, on the file system of the directory `dir`; closing it deletes it.
///
/// Where the file system requires a name for a moment, it is the temporary name of `name`.
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

/// Removes the access control list that a new file inherits from its directory (acl(5)): once the file has its mode, the list
/// would grant access to users that the mode excludes.
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

/// Sets owner and mode of an open file or directory; in this order, because chown clears mode bits.
///
/// # Errors
/// The I/O error; `EPERM` if the caller lacks the permission.
pub fn set_attributes(file: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    if attributes.uid.is_some() || attributes.gid.is_some() {
        fchown(file, attributes.uid.map(Uid::from_raw), attributes.gid.map(Gid::from_raw))?;
    }
    fchmod(file, Mode::from_bits_truncate(attributes.mode))?;
    Ok(())
}

/// Whether there is no leftover of a killed run for `name`; the check needs no permission to list or change the directory.
pub fn has_no_leftovers(dir: BorrowedFd<'_>, name: &(impl AsRef<OsStr> + ?Sized)) -> bool {
    fstatat(dir, staged_name(name.as_ref()).as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT)
}

/// Overwrites and removes the leftover of a killed run for `name`.
///
/// # Errors
/// The I/O error; a missing leftover is not an error.
pub fn remove_leftovers(dir: BorrowedFd<'_>, name: &(impl AsRef<OsStr> + ?Sized)) -> io::Result<()> {
    // Another user's file holds none of our secrets, and a lease on it could block us. A large one is a sparse copy of an image.
    let is_ours = |stat: &FileStat| stat.st_uid == geteuid().as_raw() && stat.st_size <= LARGEST_LEFTOVER;
    erase(dir, &staged_name(name.as_ref()), is_ours).map(drop)
}

/// Overwrites and removes `name` and the leftover of a killed run, so that their bytes do not stay on the disk; returns whether
/// `name` existed.
///
/// # Errors
/// The I/O error; a missing file is not an error.
pub fn erase_all(dir: BorrowedFd<'_>, name: &(impl AsRef<OsStr> + ?Sized)) -> io::Result<bool> {
    remove_leftovers(dir, name)?;
    erase(dir, name.as_ref(), |stat| stat.st_size <= LARGEST)
}

/// Removes a name; `needs_overwriting` decides whether the bytes of a regular file are overwritten first.
fn erase(dir: BorrowedFd<'_>, name: &OsStr, needs_overwriting: impl Fn(&FileStat) -> bool) -> io::Result<bool> {
    // The kind is checked before the file is opened: opening a device or a pipe may have effects, or block.
    let found = match openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::ENOENT) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    let stat = fstat(&found)?;
    match kind_of(&stat) {
        SFlag::S_IFREG if needs_overwriting(&stat) => {
            overwrite(&reopen(found.as_fd(), OFlag::O_WRONLY | OFlag::O_NONBLOCK)?)?;
        }
        SFlag::S_IFDIR => {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                format!("a directory named {} is in the way; remove it", name.display()),
            ));
        }
        // A symlink, a pipe, a device: only its name is removed.
        _ => {}
    }
    let existed = remove(dir, name)?;
    fsync(dir)?;
    Ok(existed)
}

/// Returns the kind of a file (inode(7), `S_IFMT`).
pub fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Opens the file of a descriptor again with other access rights, without resolving its path (proc(5), `/proc/self/fd`).
///
/// # Errors
/// The I/O error.
pub fn reopen(descriptor: BorrowedFd<'_>, flags: OFlag) -> io::Result<File> {
    let opened = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    Ok(open(opened.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
}

/// Maximum size in bytes of a leftover that is overwritten; files with secrets are smaller.
const LARGEST_LEFTOVER: i64 = 65_536;
/// Maximum size in bytes of a file that is overwritten, including one that another program put at the path.
const LARGEST: i64 = 64 << 20;

/// Overwrites a whole file with newlines. A file with a second hard link also belongs to something else, and stays unchanged.
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

/// Removes `name` from the directory atomically; returns whether it existed.
///
/// # Errors
/// The I/O error; a missing file is not an error.
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
