//! Whether a time server has set this machine's clock.
//!
//! systemd-timesyncd, chrony (with `rtcsync` and without) and ntpd tell the kernel how far the clock may be off, each time that
//! they have synchronised it. The kernel adds 0.5 ms a second, and forgets it when the clock is set by anybody else. That maximum
//! error tells more than `STA_UNSYNC`, which chrony without `rtcsync` leaves set; it is what `timedatectl` goes by as well.
//!
//! adjtimex(2) reads it without any right, but the sandbox of `azaion-agent.service` denies the call, for it can also set the
//! clock. So `azaion-clock.service`, which can reach nobody, reads it before each run of the agent, each minute, and whenever the
//! clock is set, and leaves a file. systemd-timesyncd leaves one of its own at once.

use std::fs::{File, create_dir_all, remove_file};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rtime_clock::adjtime::{Timex, adjtimex};

use crate::common::clock::{Clock, SystemClock, Timestamp};

use super::paths::Paths;

/// Where the file is that says that the clock is synchronised; `azaion-agent.service` can't write there.
const DIRECTORY: &str = "run/azaion-clock";
const SYNCHRONISED: &str = "synchronised";
/// There while systemd-timesyncd runs and has synchronised the clock (systemd-timesyncd.service(8)).
const TIMESYNCD: &str = "run/systemd/timesync/synchronized";
/// From this maximum error on, in microseconds, the kernel says that the clock is not synchronised (`NTP_PHASE_LIMIT`).
const UNKNOWN_ERROR: i64 = 16_000_000;

/// The clocks of the device.
#[derive(Debug)]
pub struct DeviceClock {
    /// Each of them says that the clock is synchronised.
    files: [PathBuf; 2],
}

impl DeviceClock {
    /// The clocks of the machine that these files belong to.
    pub fn new(paths: &Paths) -> Self {
        Self { files: [file(paths), paths.under_root(Path::new(TIMESYNCD))] }
    }
}

impl Clock for DeviceClock {
    fn wall(&self) -> Timestamp {
        SystemClock.wall()
    }

    fn boot(&self) -> Duration {
        Clock::boot(&SystemClock)
    }

    fn sleep(&self, time: Duration) {
        SystemClock.sleep(time);
    }

    fn is_synchronised(&self) -> bool {
        self.files.iter().any(|file| file.exists())
    }
}

/// Asks the kernel whether the clock is synchronised, and leaves a file that says so, or none.
///
/// # Errors
/// The file can't be made or removed.
pub fn note(paths: &Paths) -> io::Result<bool> {
    let is_synchronised = is_synchronised();
    record(&file(paths), is_synchronised)?;
    Ok(is_synchronised)
}

fn file(paths: &Paths) -> PathBuf {
    paths.under_root(Path::new(DIRECTORY)).join(SYNCHRONISED)
}

/// Where the call is denied, as in a container, nobody is known to have synchronised the clock.
fn is_synchronised() -> bool {
    let mut timex = Timex::new();
    adjtimex(&mut timex).is_ok() && timex.0.maxerror < UNKNOWN_ERROR
}

fn record(file: &Path, is_synchronised: bool) -> io::Result<()> {
    if is_synchronised {
        create_dir_all(file.parent().unwrap_or(file))?;
        return File::create(file).map(drop);
    }
    match remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the clock is synchronised exactly while the last answer of the kernel said so, or timesyncd does.
    #[test]
    fn the_file_says_it() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let clock = DeviceClock::new(&paths);
        for is_synchronised in [false, true, true, false, false] {
            record(&file(&paths), is_synchronised).unwrap();
            assert_eq!(clock.is_synchronised(), is_synchronised);
        }
        assert_eq!(note(&paths).unwrap(), clock.is_synchronised());
        record(&file(&paths), false).unwrap();
        create_dir_all(root.path().join("run/systemd/timesync")).unwrap();
        File::create(root.path().join(TIMESYNCD)).unwrap();
        assert!(clock.is_synchronised());
    }

    // Promise: the clocks are the system's.
    #[test]
    fn the_clocks_are_the_systems() {
        let clock = DeviceClock::new(&Paths::under(Path::new("/")));
        let (wall, boot) = (SystemClock.wall(), Clock::boot(&SystemClock));
        clock.sleep(Duration::from_millis(1));
        assert!(clock.wall() >= wall && Clock::boot(&clock) > boot);
    }
}
