//! The device's job: `device.conf` → login → claims → cache → readiness. One run of it, and in the unit also the wait before it.

use std::path::Path;
use std::time::Duration;

use crate::common::private_file::Lifetime;

pub use super::machine::Device;
pub use super::outcome::{NotReady, Ready};
pub use super::request::{Caller, How};

use super::attempt::{Attempt, record_failure};
use super::board::{self, Board};
use super::files::{Directory, FileError, Lock, or_warn, token_group};
use super::history;
use super::machine::Configuration;
use super::outcome::{Failed, Retry};
use super::paths::READY_FILE;
use super::readiness::{self, Readiness};
use super::settings::{DEFAULT_DEADLINE, Settings};
use super::wait::{Version, Versions, Wait, Woken};

/// Makes the device ready, or says why it is not; `ready.json` says the same afterwards.
///
/// A token that is fresh is left alone without a call. While a token is still valid, a failed renewal leaves the
/// device ready, unless the API refuses the account itself.
///
/// # Errors
/// Why the device is not ready.
pub fn run(device: &Device, how: How) -> Result<Ready, NotReady> {
    let paths = &device.paths;
    let versions = Versions::of([paths.device_conf(), paths.settings()]);
    let deadline = how.deadline.unwrap_or_else(|| Settings::read(paths).map_or(DEFAULT_DEADLINE, |s| s.deadline()));
    let (gid, mut until) = (token_group(paths), device.machine.boot().saturating_add(deadline));
    loop {
        let configuration = device.configuration();
        let hold_file = configuration.1.as_ref().map(|settings| settings.hold_file.clone()).ok();
        let left = until.saturating_sub(device.machine.boot());
        let (failed, lock) = match (Turn { device, how, left, gid }).take(configuration)? {
            (Ok(ready), _) => return Ok(ready),
            (Err(failed), lock) => (failed, lock),
        };
        let (Some(retry), Some(hold_file), Caller::Unit) = (failed.retry, hold_file, how.caller) else {
            return Err(failed.error);
        };
        let Retry { wait, is_kept, surroundings } = *retry;
        let due = device.machine.boot().saturating_add(wait);
        // The next run waits where this one ends, if it can know of the wait.
        let is_first = failed.error.is_first_report() && is_kept;
        if is_first && due > until {
            return Err(failed.error);
        }
        let pause = Wait::new(device, &versions, &hold_file, surroundings);
        // Others may try meanwhile.
        drop(lock);
        if pause.wait(due) == Woken::NewConfiguration {
            return Err(failed.error);
        }
        if !is_first {
            until = device.machine.boot().saturating_add(deadline);
        }
    }
}

/// One turn of a run, which others wait for.
struct Turn<'a> {
    device: &'a Device,
    how: How,
    /// The time left for calls.
    left: Duration,
    /// The group that may read the token.
    gid: Option<u32>,
}

impl Turn<'_> {
    /// Takes the turn, with the lock that ends it.
    fn take(&self, configuration: Configuration) -> Result<(Result<Ready, Failed>, Lock), NotReady> {
        let Self { device, how, .. } = *self;
        let configuration = match configuration {
            (Err(error), _) if device.is_closed_to(&error) => return Err(NotReady::NotRoot(error)),
            other => other,
        };
        let run_dir = device.paths.run_dir();
        let directory = Directory::open(&run_dir, self.gid, Lifetime::ThisBoot)?;
        let before = Version::of(&run_dir.join(READY_FILE));
        let Some(lock) = directory.lock(self.left, device.machine.as_ref())? else { return Err(NotReady::Busy) };
        // Many programs may have asked at once: one call is for all of them.
        if how.caller == Caller::Program
            && Version::of(&run_dir.join(READY_FILE)) != before
            && let Some(Readiness { ready: false, code: Some(code), reason, .. }) = Readiness::read(&run_dir)
        {
            return Err(NotReady::Shared { exit: readiness::exit_of(code), reason: reason.unwrap_or_default() });
        }
        directory.remove_leftovers()?;
        or_warn(remove_state_leftovers(&device.paths.state_dir()));
        let outcome = self.attempt(&directory, configuration);
        history::record_outcome(device, outcome.as_ref().map_err(|failed| &failed.error));
        Ok((outcome, lock))
    }

    fn attempt(&self, directory: &Directory, (conf, settings): Configuration) -> Result<Ready, Failed> {
        let Self { device, how, left, .. } = *self;
        let conf = match conf {
            Ok(conf) => conf,
            // The address may be what could not be read in agent.toml.
            Err(error)
                if error.lacks_api_url()
                    && let Err(error) = settings =>
            {
                return Err(record_failure(directory, None, error.into()).into());
            }
            Err(error) => return Err(record_failure(directory, None, error.into()).into()),
        };
        // Who this device is is not known then: what is said of another one would be taken for that one's state.
        let board = board::check(&device.paths, &conf).map_err(|error| record_failure(directory, None, error.into()))?;
        let settings = settings.map_err(|error| record_failure(directory, Some(&conf), error.into()))?;
        let ready = Attempt { device, how, left, directory, conf: &conf, settings: &settings }.run()?;
        if let Board::Unknown(why) = board
            && ready.is_first_report
        {
            log::warn!("whether this is the module that device.conf is for can't be told: {why}");
        }
        Ok(ready)
    }
}

fn remove_state_leftovers(state_dir: &Path) -> Result<(), FileError> {
    if state_dir.exists() { Directory::open(state_dir, None, Lifetime::Durable)?.remove_leftovers() } else { Ok(()) }
}
