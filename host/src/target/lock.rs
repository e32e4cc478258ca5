//! The lock of a target: one run at a time changes it. Readers need no lock, and never see half of a write.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use azaion_agent::common::clock::{Clock, SystemClock};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::interrupt;
use crate::target::error::{Error, Result, io_failure};

/// How long to wait for another run on the same target: as long as its API calls may take.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// How long to repeat a read that looks like half of a write while another run holds the lock. A write takes milliseconds.
const READ_PATIENCE: Duration = Duration::from_secs(2);
const READ_POLL: Duration = Duration::from_millis(5);

/// What a target is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// For changes, by one run at a time.
    Change,
    /// For reading, also while another run changes it.
    Read,
}

/// An open target, locked if it was opened for changes.
#[derive(Debug)]
pub(super) enum Held {
    Locked(Flock<File>),
    Unlocked(File),
}

impl Deref for Held {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Locked(file) => file,
            Self::Unlocked(file) => file,
        }
    }
}

impl Held {
    /// Takes the lock if `access` is [`Access::Change`], waiting for other runs on this file or directory.
    pub(super) fn new(file: File, path: &Path, access: Access) -> Result<Self> {
        match access {
            Access::Change => wait(file, path).map(Self::Locked),
            Access::Read => Ok(Self::Unlocked(file)),
        }
    }

    /// Reads the target with `read`, which also returns whether its result is certainly a complete write. If that is not certain
    /// and another run may be writing, reads again.
    pub(super) fn read<T>(&self, read: impl Fn() -> Result<(T, bool)>) -> Result<T> {
        let clock = SystemClock;
        let until = clock.boot() + READ_PATIENCE;
        loop {
            let (value, is_whole) = read()?;
            let Self::Unlocked(file) = self else { return Ok(value) };
            if is_whole || clock.boot() >= until {
                return Ok(value);
            }
            // While this shared lock is held, nobody writes. It belongs to the open file, so a duplicate of the descriptor suffices.
            if let Ok(copy) = file.try_clone()
                && let Ok(_lock) = Flock::lock(copy, FlockArg::LockSharedNonblock)
            {
                return Ok(read()?.0);
            }
            clock.sleep(READ_POLL);
        }
    }
}

/// Locks a file or directory, waiting for other runs. The wait is limited, because anyone who can read the file can lock it.
pub(super) fn wait(mut file: File, path: &Path) -> Result<Flock<File>> {
    let clock = SystemClock;
    let until = clock.boot() + PATIENCE;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(io_failure(errno, format!("locking {}", path.display()))),
        };
        if clock.boot() >= until {
            return Err(Error::InUse { path: path.to_owned(), seconds: PATIENCE.as_secs() });
        }
        interrupt::check()
            .map_err(|error| io_failure(error, format!("waiting for another run on {}", path.display())))?;
        clock.sleep(POLL);
    }
}
