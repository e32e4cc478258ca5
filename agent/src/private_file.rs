//! The one way in which both programs write a file: whole, private from its first byte on, and durable.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, linkat, unlinkat};

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
fn staged_name(name: &str) -> String {
    format!(".{name}.new")
}

/// Puts `bytes` at `name` in the folder `dir`: a reader sees the old file or the new one, and after a power cut
/// there is one of the two.
///
/// The caller holds the folder's lock. The file has no name until it is complete where the file system
/// can do that (`O_TMPFILE`, open(2)), so that a killed run leaves nothing beside it on the first write.
///
/// # Errors
/// The first step that failed; nothing new has a name in the folder then.
pub fn replace(dir: BorrowedFd<'_>, name: &str, attributes: Attributes, bytes: &[u8]) -> io::Result<()> {
    let staged = staged_name(name);
    remove(dir, &staged)?;
    let written = stage(dir, &staged, name, attributes, bytes);
    if written.is_err() {
        let _ = remove(dir, &staged);
    }
    written?;
    fsync(dir)?;
    Ok(())
}

fn stage(dir: BorrowedFd<'_>, staged: &str, name: &str, attributes: Attributes, bytes: &[u8]) -> io::Result<()> {
    let private = Mode::from_bits_truncate(0o600);
    let common = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(dir, ".", common | OFlag::O_TMPFILE, private) {
        Ok(file) => {
            fill(&file, attributes, bytes)?;
            match link(&file, dir, name) {
                Ok(()) => return Ok(()),
                // The name is taken: only a rename replaces it in one step.
                Err(Errno::EEXIST) => link(&file, dir, staged)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        // Not every file system has O_TMPFILE (FAT, NFS), and old kernels say EISDIR.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => {
            let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
            fill(&openat(dir, staged, common | create, private)?, attributes, bytes)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    renameat(dir, staged, dir, name)?;
    Ok(())
}

/// Gives an unnamed file its name (open(2), `O_TMPFILE`).
fn link(file: &OwnedFd, dir: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, unnamed.as_str(), dir, name, AtFlags::AT_SYMLINK_FOLLOW)
}

fn fill(file: &OwnedFd, attributes: Attributes, bytes: &[u8]) -> io::Result<()> {
    set_attributes(file.as_fd(), attributes)?;
    std::fs::File::from(file.try_clone()?).write_all(bytes)?;
    fsync(file)?;
    Ok(())
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

/// Takes `name` out of the folder, and what a killed run may have left beside it. Whether it was there.
///
/// # Errors
/// The I/O error; that nothing is there is none.
pub fn remove_all(dir: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    remove(dir, &staged_name(name))?;
    let was_there = remove(dir, name)?;
    fsync(dir)?;
    Ok(was_there)
}

fn remove(dir: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PRIVATE: Attributes = Attributes { mode: 0o600, uid: None, gid: None };

    // Promise: first write and replacement both end with the content, the mode and nothing beside it.
    #[test]
    fn replaces_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let fd = File::open(dir.path()).unwrap();
        for (mode, text) in [(0o600, "one"), (0o640, "two"), (0o644, "three")] {
            replace(fd.as_fd(), "f", Attributes { mode, ..PRIVATE }, text.as_bytes()).unwrap();
            let path = dir.path().join("f");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    // Promise: what a killed run left is gone after the next one, and is never written through.
    #[test]
    fn leftovers_are_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        let fd = File::open(dir.path()).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(".f.new")).unwrap();
        replace(fd.as_fd(), "f", PRIVATE, b"x").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read(elsewhere.path()).unwrap(), b"");
        assert!(remove_all(fd.as_fd(), "f").unwrap());
        assert!(!remove_all(fd.as_fd(), "f").unwrap());
    }

    // Promise: a name that can't be replaced is an error, and leaves nothing beside it.
    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("f")).unwrap();
        let fd = File::open(dir.path()).unwrap();
        assert!(replace(fd.as_fd(), "f", PRIVATE, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
