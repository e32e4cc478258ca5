//! Opens and reads a `device.conf` that only root can have read or changed.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use crate::api::url::ApiUrl;
use crate::common::private_file::kind_of;

use super::{DeviceConf, DeviceConfError, LARGEST, Problem};

/// Mode bits that let another user read or change the password.
const FORBIDDEN_BITS: u32 = 0o027;

/// An open `device.conf` that other users can neither have read nor changed.
///
/// It can be read without the permission to open the path again.
#[derive(Debug)]
pub struct ConfFile {
    path: PathBuf,
    file: File,
    fingerprint: String,
}

impl ConfFile {
    /// Opens `path` without reading its content.
    ///
    /// # Errors
    /// A symlink, another kind of file, a mode that gives access to others, an I/O error.
    pub fn open(path: &Path) -> Result<Self, DeviceConfError> {
        let fail = |problem| DeviceConfError { file: path.to_owned(), line: None, problem };
        let file = open_private(path).map_err(fail)?;
        let metadata = file.metadata().map_err(|e| fail(Problem::Io(e.into())))?;
        let (inode, size) = (metadata.ino(), metadata.size());
        let changed = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        let [mtime, mtime_nsec, ctime, ctime_nsec] = changed;
        let fingerprint = format!("{inode}:{mtime}.{mtime_nsec}:{ctime}.{ctime_nsec}:{size}");
        Ok(Self { path: path.to_owned(), file, fingerprint })
    }

    /// Reads the file from its start and parses it; `default_api` is the API of a file that names none.
    ///
    /// # Errors
    /// As [`DeviceConf::parse`], or an I/O error.
    pub fn read(&self, default_api: Option<&ApiUrl>) -> Result<DeviceConf, DeviceConfError> {
        let mut file = &self.file;
        let bytes = file.rewind().and_then(|()| read_bounded(file)).map_err(|error| DeviceConfError {
            file: self.path.clone(),
            line: None,
            problem: Problem::Io(error.into()),
        })?;
        DeviceConf::parse_with(&bytes, &self.path, default_api)
    }

    /// Returns a text that identifies the version of the file at the time it was opened.
    ///
    /// It changes whenever the file is replaced or written to, and reveals nothing of its content.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Opens a regular file and refuses one that other users can access.
fn open_private(path: &Path) -> Result<File, Problem> {
    let io = |errno: Errno| Problem::Io(Arc::new(errno.into()));
    // O_NONBLOCK: a FIFO at this path must not block the boot.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ELOOP => Problem::Symlink,
        Errno::ENOENT => Problem::NoFile,
        other => io(other),
    })?;
    let stat = fstat(&file).map_err(io)?;
    if kind_of(&stat) != SFlag::S_IFREG {
        return Err(Problem::NotAFile);
    }
    if stat.st_mode & FORBIDDEN_BITS != 0 {
        return Err(Problem::Mode(stat.st_mode & 0o7777));
    }
    if stat.st_uid != 0 && geteuid().is_root() {
        // Only a warning: an image builder that maps owners wrongly must not put a device out of service.
        log::warn!("{} belongs to user {}, who can change it; chown it to root", path.display(), stat.st_uid);
    }
    Ok(File::from(file))
}

/// Reads at most one byte more than the maximum size of a `device.conf`, so that parsing detects a file that is too large.
///
/// # Errors
/// The I/O error.
pub fn read_bounded(file: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST + 1));
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
