//! Reads and writes the agent's files: those of this boot in `/run/azaion`, those kept across boots in
//! `/var/lib/azaion`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Group, getegid, geteuid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::api::fault::chain;
use crate::api::json;
use crate::common::clock::Clock;
use crate::common::plain_text::write_json;
use crate::common::private_file::{self, Attributes, Lifetime};

use super::paths::{BACKOFF_FILE, FIRST_BOOT_FILE, HISTORY_FILE, Paths, READY_FILE, REFRESH_FILE, TOKEN_FILE};

/// The group that may read the token.
pub const GROUP: &str = "azaion";
/// The maximum number of bytes read of one file. A token has about two thousand.
const MAX_SIZE: u64 = 256 * 1024;

/// The lock file: only the run that holds its lock writes.
const LOCK: &str = "agent.lock";
/// All files that the agent writes to `/run/azaion`.
pub(super) const THIS_BOOTS_FILES: [&str; 5] = [LOCK, TOKEN_FILE, REFRESH_FILE, READY_FILE, BACKOFF_FILE];
/// All files that the agent writes to `/var/lib/azaion`.
pub(super) const STATE_FILES: [&str; 2] = [FIRST_BOOT_FILE, HISTORY_FILE];
/// How often a waiting run tries to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Logs a failed write as a warning. A device with a valid token is ready even if the disk is full or `/var` is
/// unusable.
pub(super) fn or_warn(done: Result<(), FileError>) {
    done.unwrap_or_else(|error| log::warn!("{}", chain(&error)));
}

/// Who may read a file.
#[derive(Clone, Copy, Debug)]
pub enum Readers {
    /// The agent's user (0600).
    Agent,
    /// The agent's user and the group `azaion` (0640).
    Group,
    /// Everybody (0644), for a file without secrets.
    All,
}

/// The error of an operation on one of the agent's files or directories.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}{}", path.display(), self.hint())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

const OPEN: &str = "open the directory";

impl FileError {
    /// Returns whether the directory itself is gone: another program of root may remove `/run/azaion` at any time. The
    /// next run creates it again.
    pub fn is_gone(&self) -> bool {
        match self.source.kind() {
            io::ErrorKind::NotFound => true,
            // In the service's sandbox this directory is the only writable path in /run, and only systemd can create
            // it.
            io::ErrorKind::ReadOnlyFilesystem => self.action == OPEN,
            _ => false,
        }
    }

    fn hint(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => {
                " (the directory must belong to the user azaion-agent; run this as that user or as root)"
            }
            _ if self.is_gone() => " (another program has removed the directory; the next run creates it again)",
            _ => "",
        }
    }
}

/// The lock of one run, released when it is dropped.
pub type Lock = Flock<OwnedFd>;

/// An open directory of the agent's files.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    dir: File,
    gid: Option<u32>,
    lifetime: Lifetime,
}

impl Directory {
    /// Opens the directory. A missing one is created with mode 0755, whatever the umask is.
    ///
    /// # Errors
    /// The I/O error.
    pub fn open(path: &Path, gid: Option<u32>, lifetime: Lifetime) -> Result<Self, FileError> {
        let fail = |source| FileError { action: OPEN, path: path.to_owned(), source };
        let is_new = !path.exists();
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(fail)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = open(path, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
        if is_new {
            let attributes = Attributes { mode: 0o755, uid: None, gid: None };
            private_file::set_attributes(dir.as_fd(), attributes).map_err(fail)?;
        }
        Ok(Self { path: path.to_owned(), dir: dir.into(), gid, lifetime })
    }

    /// Takes the run lock, waiting for another run for up to `patience`. `None`: another run still holds it.
    ///
    /// The lock is on a file that only the agent may open, since every user could lock the directory itself.
    ///
    /// # Errors
    /// The I/O error.
    pub fn lock(&self, patience: Duration, clock: &dyn Clock) -> Result<Option<Lock>, FileError> {
        let fail = |errno: Errno| self.fail("lock", LOCK, errno);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || openat(&self.dir, LOCK, flags, Mode::from_bits_truncate(0o600));
        let file = open().or_else(|errno| match errno {
            // An older release created the file as root. The directory already belongs to the agent's user.
            Errno::EACCES => private_file::remove(self.dir.as_fd(), LOCK).map_err(|_| errno).and_then(|_| open()),
            other => Err(other),
        });
        let mut file = file.map_err(fail)?;
        let until = clock.boot() + patience;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return if self.is_removed() { Err(fail(Errno::ENOENT)) } else { Ok(Some(lock)) },
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(fail(errno)),
            };
            if clock.boot() >= until {
                return Ok(None);
            }
            clock.sleep(LOCK_POLL);
        }
    }

    /// Returns whether the directory was removed, so that files written to it would be lost.
    fn is_removed(&self) -> bool {
        fstat(&self.dir).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn fail(&self, action: &'static str, name: &str, source: impl Into<io::Error>) -> FileError {
        // File systems return different errors for a removed directory.
        let source = if self.is_removed() { Errno::ENOENT.into() } else { source.into() };
        FileError { action, path: self.path.join(name), source }
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
        write_json(&mut *bytes, content)
            .and_then(|()| private_file::replace(self.dir.as_fd(), name, attributes, &bytes, self.lifetime))
            .map_err(|source| self.fail("write", name, source))
    }

    /// Removes the temporary files of killed runs, and no file of another program. The caller holds the lock.
    ///
    /// # Errors
    /// The I/O error.
    pub fn remove_leftovers(&self) -> Result<(), FileError> {
        let names: &[&str] = match self.lifetime {
            Lifetime::ThisBoot => &THIS_BOOTS_FILES,
            Lifetime::Durable => &STATE_FILES,
        };
        names.iter().try_for_each(|name| {
            private_file::remove_leftovers(self.dir.as_fd(), name)
                .map_err(|source| self.fail("remove the temporary file of", name, source))
        })
    }

    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// The I/O error.
    pub fn remove(&self, name: &str) -> Result<(), FileError> {
        private_file::remove(self.dir.as_fd(), name).map(drop).map_err(|source| self.fail("remove", name, source))
    }
}

/// Reads one of the agent's files. `None` if it is missing, not readable, or not in the expected format.
pub fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Option<T> {
    let path = directory.join(name);
    let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
    match File::open(&path).and_then(|file| file.take(MAX_SIZE).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => {
            log::debug!("{}: {e}", path.display());
            return None;
        }
    }
    let content = json::read(&bytes, "one of the agent's files").ok();
    if content.is_none() {
        log::warn!("{} is damaged and will be replaced", path.display());
    }
    content
}

/// Returns the id of the group that may read the token, from `/etc/group` below the root if that file exists.
///
/// `None`: the token keeps the caller's group. A message is logged if that is another group.
pub fn token_group(paths: &Paths) -> Option<u32> {
    let gid = match fs::read_to_string(paths.group()) {
        Ok(groups) => groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(GROUP)).then(|| fields.nth(1)?.parse().ok()).flatten()
        }),
        Err(_) => Group::from_name(GROUP).ok().flatten().map(|group| group.gid.as_raw()),
    };
    if !geteuid().is_root() {
        if gid != Some(getegid().as_raw()) {
            log::info!("not root: token.json gets the caller's group");
        }
        return None;
    }
    if gid.is_none() {
        log::warn!(
            "the group {GROUP} does not exist, so token.json gets the caller's group; run systemd-sysusers azaion.conf"
        );
    }
    gid
}

#[cfg(test)]
mod tests;
