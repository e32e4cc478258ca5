//! Waits between two attempts. A wait ends as soon as another attempt may succeed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::http::Overtaken;
use crate::common::clock::{Clock, Timestamp};

use super::machine::{Device, Machine};
use super::paths::BACKOFF_FILE;
use super::surroundings::Surroundings;

/// How often a waiting run checks for changes.
const POLL: Duration = Duration::from_millis(250);
/// The longest wait of one run; after that systemd starts the next one. `TimeoutStartSec=` of the unit allows for it.
const LONGEST: Duration = Duration::from_hours(1);

/// The version of a file, from its metadata, so that reading the file is not needed. `None` inside: the file is
/// missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(Option<(u64, i64, i64, u64)>);

impl Version {
    /// Reads the version of a file.
    pub fn of(path: &Path) -> Self {
        let metadata = fs::symlink_metadata(path).ok();
        Self(metadata.map(|data| (data.ino(), data.ctime(), data.ctime_nsec(), data.size())))
    }
}

/// The versions of some files.
#[derive(Debug)]
pub struct Versions(Vec<(PathBuf, Version)>);

impl Versions {
    /// Reads the present versions.
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(files.into_iter().map(|path| (path.clone(), Version::of(&path))).collect())
    }

    /// Returns whether one of the files was replaced, created or removed.
    pub fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, then)| Version::of(path) != *then)
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time is over, or another attempt may succeed.
    TryAgain,
    /// Another run has finished, or the hold file was created or removed.
    ReadAgain,
    /// The configuration has changed, and only a new process can read it.
    NewConfiguration,
}

/// A wait and the conditions that end it.
#[derive(Debug)]
pub struct Wait<'a> {
    clock: &'a dyn Machine,
    /// The network of the machine at the last call.
    before: Surroundings,
    configuration: &'a Versions,
    others: Versions,
}

impl<'a> Wait<'a> {
    /// Returns a wait of a device that had the network `before` at its last call, and that read this configuration.
    pub fn new(device: &'a Device, configuration: &'a Versions, hold_file: &Path, before: Surroundings) -> Self {
        let paths = &device.paths;
        let others = Versions::of([paths.run_dir().join(BACKOFF_FILE), paths.under_root(hold_file)]);
        Self { clock: device.machine.as_ref(), before, configuration, others }
    }

    /// Waits until `until` on the boot clock, or until something has changed.
    pub fn wait(&self, until: Duration) -> Woken {
        let until = until.min(self.clock.boot() + LONGEST);
        loop {
            if self.configuration.have_changed() {
                return Woken::NewConfiguration;
            }
            if self.others.have_changed() {
                return Woken::ReadAgain;
            }
            let left = until.saturating_sub(self.clock.boot());
            if left.is_zero() || self.clock.surroundings().has_more_than(&self.before) {
                return Woken::TryAgain;
            }
            self.clock.sleep(left.min(POLL));
        }
    }
}

/// The clock of one run. Its `sleep` ends early when something new appears on the machine.
#[derive(Debug)]
pub struct AlertClock<'a> {
    clock: &'a Arc<dyn Machine>,
    before: Arc<Mutex<Surroundings>>,
}

impl<'a> AlertClock<'a> {
    /// Returns the clock, which compares with the present state of the machine.
    pub fn new(clock: &'a Arc<dyn Machine>) -> Self {
        Self { clock, before: Arc::new(Mutex::new(clock.surroundings())) }
    }

    /// Returns the signal for calls in progress, which reports each new thing on the machine once.
    pub fn overtaken(&self) -> Overtaken {
        let (clock, before) = (Arc::clone(self.clock), Arc::clone(&self.before));
        Overtaken::new(move || {
            let (now, mut before) = (clock.surroundings(), locked(&before));
            let is_new = now.has_more_than(&before);
            *before = now;
            is_new
        })
    }

    /// Returns the state of the machine when the last wait ended, or at the start.
    pub fn surroundings(&self) -> Surroundings {
        locked(&self.before).clone()
    }
}

fn locked(surroundings: &Mutex<Surroundings>) -> MutexGuard<'_, Surroundings> {
    surroundings.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clock for AlertClock<'_> {
    fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    fn boot(&self) -> Duration {
        self.clock.boot()
    }

    fn sleep(&self, time: Duration) {
        let until = self.clock.boot() + time;
        let mut before = locked(&self.before);
        loop {
            let now = self.clock.surroundings();
            let left = until.saturating_sub(self.clock.boot());
            if left.is_zero() || now.has_more_than(&before) {
                *before = now;
                return;
            }
            self.clock.sleep(left.min(POLL));
        }
    }

    fn is_synchronised(&self) -> bool {
        self.clock.is_synchronised()
    }
}
