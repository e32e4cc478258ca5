//! Whether a time server has set this machine's clock.
//!
//! systemd-timesyncd, chrony (with and without `rtcsync`) and ntpd report the maximum error of the clock to the kernel
//! each time they synchronise it. The kernel adds 0.5 ms per second, and discards the value when another program sets
//! the clock. The maximum error is more reliable than `STA_UNSYNC`, which chrony without `rtcsync` leaves set;
//! `timedatectl` uses it as well.
//!
//! adjtimex(2) reads it without privileges, but the sandbox of `azaion-agent.service` denies the call, since it can
//! also set the clock. So `azaion-clock.service`, which has no network, reads the value before each run of the agent,
//! each minute, and whenever the clock is set, and records the result as a file. systemd-timesyncd creates its own file
//! immediately.

use std::fs::{File, create_dir_all, remove_file};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rtime_clock::adjtime::{Timex, adjtimex};

use crate::common::clock::{Clock, SystemClock, Timestamp};

use super::paths::Paths;

/// The directory of the file that exists while the clock is synchronised. `azaion-agent.service` can't write there.
const DIRECTORY: &str = "run/azaion-clock";
const SYNCHRONISED: &str = "synchronised";
/// The file that exists while systemd-timesyncd runs and has synchronised the clock (systemd-timesyncd.service(8)).
const TIMESYNCD: &str = "run/systemd/timesync/synchronized";
/// The maximum error, in microseconds, from which on the kernel reports the clock as not synchronised
/// (`NTP_PHASE_LIMIT`).
const UNKNOWN_ERROR: i64 = 16_000_000;

/// The clocks of the device.
#[derive(Debug)]
pub struct DeviceClock {
    /// The clock is synchronised if one of these files exists.
    files: [PathBuf; 2],
}

impl DeviceClock {
    /// Returns the clocks of the machine with these paths.
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

/// Reads from the kernel whether the clock is synchronised, and creates or removes the file that says so.
///
/// # Errors
/// The file can't be created or removed.
pub fn record(paths: &Paths) -> io::Result<bool> {
    let is_synchronised = is_synchronised();
    write_state(&file(paths), is_synchronised)?;
    Ok(is_synchronised)
}

fn file(paths: &Paths) -> PathBuf {
    paths.under_root(Path::new(DIRECTORY)).join(SYNCHRONISED)
}

/// Returns whether the kernel reports the clock as synchronised. Where it denies the call, as in a container: `false`.
fn is_synchronised() -> bool {
    let mut timex = Timex::new();
    adjtimex(&mut timex).is_ok() && timex.0.maxerror < UNKNOWN_ERROR
}

fn write_state(file: &Path, is_synchronised: bool) -> io::Result<()> {
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

    // Promise: the clock counts as synchronised exactly while the last answer of the kernel said so, or timesyncd's
    // file exists.
    #[test]
    fn files_record_synchronisation() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let clock = DeviceClock::new(&paths);
        for is_synchronised in [false, true, true, false, false] {
            write_state(&file(&paths), is_synchronised).unwrap();
            assert_eq!(clock.is_synchronised(), is_synchronised);
        }
        assert_eq!(record(&paths).unwrap(), clock.is_synchronised());
        write_state(&file(&paths), false).unwrap();
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
