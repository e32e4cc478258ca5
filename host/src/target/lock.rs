//! One run at a time on a target.

use crate::interrupt;
use crate::target::error::{Error, Result, io_failure};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use azaion_agent::clock::{Clock, SystemClock};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How long to wait for another run on the same target: as long as that may take for its calls.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

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
