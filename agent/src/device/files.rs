//! The agent's files: `/run/azaion` for what ends with the boot, `/var/lib/azaion` for what outlives it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Group, geteuid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::private_file::{self, Attributes};

use super::paths::Paths;

/// The group that may read the token.
const GROUP: &str = "azaion";
/// Bytes of a file of ours at most; a token has about two thousand.
const LARGEST: u64 = 256 * 1024;

/// Who may read a file.
#[derive(Clone, Copy, Debug)]
pub enum Readers {
    /// Root alone (0600).
    Agent,
    /// Root and the group `azaion` (0640).
    Group,
    /// Everybody (0644): there is no secret in it.
    All,
}

/// A file of ours can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}{}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { " (run it as root)" } else { "" })]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A folder of ours, held by one run at a time for writing.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    dir: File,
    gid: Option<u32>,
}

impl Folder {
    /// Opens the folder, made with mode 0755 where it is missing.
    ///
    /// # Errors
    /// The I/O error.
    pub fn open(path: &Path, gid: Option<u32>) -> Result<Self, FileError> {
        let fail = |source| FileError { doing: "opening the folder", path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(fail)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = open(path, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
        Ok(Self { path: path.to_owned(), dir: dir.into(), gid })
    }

    /// Waits until no other run writes here; the lock goes with the value.
    ///
    /// # Errors
    /// The I/O error.
    pub fn lock(&self) -> Result<Flock<File>, FileError> {
        let fail = |source| FileError { doing: "locking the folder", path: self.path.clone(), source };
        let dir = self.dir.try_clone().map_err(fail)?;
        Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| fail(errno.into()))
    }

    /// Replaces a file with `content` as JSON.
    ///
    /// # Errors
    /// The I/O error.
    pub fn write(&self, name: &str, readers: Readers, content: &impl Serialize) -> Result<(), FileError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
        let attributes = Attributes {
            mode: match readers {
                Readers::Agent => 0o600,
                Readers::Group => 0o640,
                Readers::All => 0o644,
            },
            uid: geteuid().is_root().then_some(0),
            gid: match readers {
                Readers::Group => self.gid,
                Readers::Agent | Readers::All => geteuid().is_root().then_some(0),
            },
        };
        serde_json::to_writer(&mut *bytes, content)
            .map_err(io::Error::from)
            .and_then(|()| private_file::replace(self.dir.as_fd(), name, attributes, &bytes))
            .map_err(|source| FileError { doing: "writing", path: self.path.join(name), source })
    }

    /// Takes a file away, if it is there.
    ///
    /// # Errors
    /// The I/O error.
    pub fn remove(&self, name: &str) -> Result<(), FileError> {
        let fail = |source| FileError { doing: "removing", path: self.path.join(name), source };
        private_file::remove_all(self.dir.as_fd(), name).map(drop).map_err(fail)
    }
}

/// Reads a file of ours; one that is missing, or that is not what we write, is as good as none.
pub fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    let path = folder.join(name);
    let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
    match File::open(&path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => {
            log::debug!("{}: {e}", path.display());
            return None;
        }
    }
    let content = serde_json::from_slice(&bytes);
    if content.is_err() {
        log::warn!("{} is damaged and will be replaced", path.display());
    }
    content.ok()
}

/// The group that may read the token, by number: that of the root's own `/etc/group` where it has one. `None`
/// leaves the caller's group, and the journal says so.
pub fn token_group(paths: &Paths) -> Option<u32> {
    if !geteuid().is_root() {
        log::info!("not root: token.json gets the caller's group");
        return None;
    }
    let gid = match fs::read_to_string(paths.group()) {
        Ok(groups) => groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(GROUP)).then(|| fields.nth(1)?.parse().ok()).flatten()
        }),
        Err(_) => Group::from_name(GROUP).ok().flatten().map(|group| group.gid.as_raw()),
    };
    if gid.is_none() {
        log::warn!("there is no group {GROUP}: token.json gets the caller's group; is the package installed whole?");
    }
    gid
}
