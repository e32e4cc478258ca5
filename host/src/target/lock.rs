//! One run at a time changes a target. IdentitySource only reads it needs no lock, and sees no half of a write.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use azaion_agent::common::clock::{Clock, SystemClock};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::interrupt;
use crate::target::error::{Error, Result, io_failure};

/// How long to wait for another run on the same target: as long as that may take for its calls.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// How long to read again what looks like half of a write, while another run has the lock. A write takes a moment.
const READ_PATIENCE: Duration = Duration::from_secs(2);
const READ_POLL: Duration = Duration::from_millis(5);

/// What a target is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// To be changed, by one run at a time.
    Change,
    /// To be read, also while another run changes it.
    Read,
}

/// An open target, with its lock if it may be changed.
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
    /// Waits for other runs on this file or directory, if it may be changed.
    pub(super) fn new(file: File, path: &Path, access: Access) -> Result<Self> {
        match access {
            Access::Change => wait(file, path).map(Self::Locked),
            Access::Read => Ok(Self::Unlocked(file)),
        }
    }

    /// Reads the target. `read` also returns whether what it has read is certainly not half of a write; if it may be, and another
    /// run may be writing, it is read again.
    pub(super) fn read<T>(&self, read: impl Fn() -> Result<(T, bool)>) -> Result<T> {
        let clock = SystemClock;
        let until = clock.boot() + READ_PATIENCE;
        loop {
            let (value, is_whole) = read()?;
            let Self::Unlocked(file) = self else { return Ok(value) };
            if is_whole || clock.boot() >= until {
                return Ok(value);
            }
            // While somebody has this lock, nobody writes. It belongs to the open file, so a copy of the descriptor will do.
            if let Ok(copy) = file.try_clone()
                && let Ok(_lock) = Flock::lock(copy, FlockArg::LockSharedNonblock)
            {
                return Ok(read()?.0);
            }
            clock.sleep(READ_POLL);
        }
    }
}

/// Waits for other runs on this file or folder, but not for ever: whoever can read it can hold its lock.
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
