//! The agent's files: `/run/azaion` for what ends with the boot, `/var/lib/azaion` for what outlives it.

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
/// Bytes of a file of ours at most; a token has about two thousand.
const LARGEST: u64 = 256 * 1024;

/// The file by whose lock one run at a time writes.
const LOCK: &str = "agent.lock";
/// All that the agent writes to `/run/azaion`.
pub(super) const THIS_BOOTS_FILES: [&str; 5] = [LOCK, TOKEN_FILE, REFRESH_FILE, READY_FILE, BACKOFF_FILE];
/// All that the agent writes to `/var/lib/azaion`.
pub(super) const STATE_FILES: [&str; 2] = [FIRST_BOOT_FILE, HISTORY_FILE];
/// How often a run that waits looks again.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Logs what a device is ready without: a device with a token and a full disk, or without a usable /var, is ready all the same.
pub(super) fn or_warn(done: Result<(), FileError>) {
    done.unwrap_or_else(|error| log::warn!("{}", chain(&error)));
}

/// Who may read a file.
#[derive(Clone, Copy, Debug)]
pub enum Readers {
    /// The agent's own user (0600).
    Agent,
    /// The agent's own user and the group `azaion` (0640).
    Group,
    /// Everybody (0644): there is no secret in it.
    All,
}

/// A file of ours can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}{}", path.display(), self.hint())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

const OPENING: &str = "opening the directory";

impl FileError {
    /// Whether the directory itself is gone: any other program of root's may remove `/run/azaion` at any time. The next run
    /// has it again.
    pub fn is_gone(&self) -> bool {
        match self.source.kind() {
            io::ErrorKind::NotFound => true,
            // In the service's sandbox the directory is the one place in /run that can be written, and only systemd can
            // make it.
            io::ErrorKind::ReadOnlyFilesystem => self.doing == OPENING,
            _ => false,
        }
    }

    fn hint(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => {
                " (it must belong to the user azaion-agent, and this be run by it or by root)"
            }
            _ if self.is_gone() => " (another program has removed its directory; the next run makes it again)",
            _ => "",
        }
    }
}

/// The lock by which one run at a time writes.
pub type Lock = Flock<OwnedFd>;

/// A directory of ours.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    dir: File,
    gid: Option<u32>,
    lifetime: Lifetime,
}

impl Directory {
    /// Opens the directory; one that is missing is made, for all to read whatever the umask is.
    ///
    /// # Errors
    /// The I/O error.
    pub fn open(path: &Path, gid: Option<u32>, lifetime: Lifetime) -> Result<Self, FileError> {
        let fail = |source| FileError { doing: OPENING, path: path.to_owned(), source };
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

    /// Waits until no other run writes here, for `patience` at most; the lock goes with the value. `None`: another
    /// run still does. The lock is a file that nobody else may open, for anybody could hold that of the directory.
    ///
    /// # Errors
    /// The I/O error.
    pub fn lock(&self, patience: Duration, clock: &dyn Clock) -> Result<Option<Lock>, FileError> {
        let fail = |errno: Errno| self.fail("locking", LOCK, errno);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || openat(&self.dir, LOCK, flags, Mode::from_bits_truncate(0o600));
        let file = open().or_else(|errno| match errno {
            // Of a release that ran as root, where the directory is ours by now.
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

    /// Whether the directory has no name any more, so that nobody would find what is written to it.
    fn is_removed(&self) -> bool {
        fstat(&self.dir).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn fail(&self, doing: &'static str, name: &str, source: impl Into<io::Error>) -> FileError {
        // In a removed directory each file system fails in its own way.
        let source = if self.is_removed() { Errno::ENOENT.into() } else { source.into() };
        FileError { doing, path: self.path.join(name), source }
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
            .map_err(|source| self.fail("writing", name, source))
    }

    /// Removes what killed runs left beside the agent's own files; other programs have theirs here, too. The caller holds
    /// the lock.
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
                .map_err(|source| self.fail("removing a leftover beside", name, source))
        })
    }

    /// Takes a file away, if it is there.
    ///
    /// # Errors
    /// The I/O error.
    pub fn remove(&self, name: &str) -> Result<(), FileError> {
        private_file::remove(self.dir.as_fd(), name).map(drop).map_err(|source| self.fail("removing", name, source))
    }
}

/// Reads a file of ours; one that is missing, or that is not what we write, is as good as none.
pub fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Option<T> {
    let path = directory.join(name);
    let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
    match File::open(&path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => {
            log::debug!("{}: {e}", path.display());
            return None;
        }
    }
    let content = json::read(&bytes, "a file of ours").ok();
    if content.is_none() {
        log::warn!("{} is damaged and will be replaced", path.display());
    }
    content
}

/// The group that may read the token, by number: that of the root's own `/etc/group` where it has one. `None`
/// leaves the caller's group; where that is another one, the journal says so.
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
        log::warn!("there is no group {GROUP}: token.json gets the caller's group; is the package installed whole?");
    }
    gid
}

#[cfg(test)]
mod tests;
