//! Waiting between two tries, which ends as soon as another try may succeed.

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

/// How often a waiting run looks.
const POLL: Duration = Duration::from_millis(250);
/// The longest wait of one run; then systemd starts the next one. `TimeoutStartSec=` of the unit allows for it.
const LONGEST: Duration = Duration::from_hours(1);

/// Which version of a file is there, also of one that may not be read; none if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(Option<(u64, i64, i64, u64)>);

impl Version {
    /// The version of a file.
    pub fn of(path: &Path) -> Self {
        let metadata = fs::symlink_metadata(path).ok();
        Self(metadata.map(|data| (data.ino(), data.ctime(), data.ctime_nsec(), data.size())))
    }
}

/// The versions of some files.
#[derive(Debug)]
pub struct Versions(Vec<(PathBuf, Version)>);

impl Versions {
    /// As they are now.
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(files.into_iter().map(|path| (path.clone(), Version::of(&path))).collect())
    }

    /// Whether one of them is another one now, has come or has gone.
    pub fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, then)| Version::of(path) != *then)
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Its time is over, or another try may succeed.
    TryAgain,
    /// Another run has been there, or the hold file has come or gone.
    LookAgain,
    /// The configuration has changed: only a new process can read it.
    NewConfiguration,
}

/// What ends a wait.
#[derive(Debug)]
pub struct Wait<'a> {
    clock: &'a dyn Machine,
    /// What the machine had when the last call was made.
    before: Surroundings,
    configuration: &'a Versions,
    others: Versions,
}

impl<'a> Wait<'a> {
    /// A wait of a device that had `before` at its last call, and read this configuration.
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
                return Woken::LookAgain;
            }
            let left = until.saturating_sub(self.clock.boot());
            if left.is_zero() || self.clock.surroundings().has_more_than(&self.before) {
                return Woken::TryAgain;
            }
            self.clock.sleep(left.min(POLL));
        }
    }
}

/// The clock of one run: each of its waits ends as soon as the machine has something new.
#[derive(Debug)]
pub struct AlertClock<'a> {
    clock: &'a Arc<dyn Machine>,
    before: Arc<Mutex<Surroundings>>,
}

impl<'a> AlertClock<'a> {
    /// From now on.
    pub fn new(clock: &'a Arc<dyn Machine>) -> Self {
        Self { clock, before: Arc::new(Mutex::new(clock.surroundings())) }
    }

    /// Says once of something new that it is there, for calls in progress.
    pub fn overtaken(&self) -> Overtaken {
        let (clock, before) = (Arc::clone(self.clock), Arc::clone(&self.before));
        Overtaken::new(move || {
            let (now, mut before) = (clock.surroundings(), locked(&before));
            let is_new = now.has_more_than(&before);
            *before = now;
            is_new
        })
    }

    /// What the machine had when the last wait ended, or at the start.
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
