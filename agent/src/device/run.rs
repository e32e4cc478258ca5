//! One run of the agent: `device.conf` → login → claims → cache → readiness, and for the systemd unit also the wait
//! between attempts.

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

/// Makes the device ready, or returns the reason why it is not. `ready.json` records the same result.
///
/// A fresh token is kept without a call. While a token is still valid, a failed renewal leaves the device ready, unless
/// the API refuses the account itself.
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
        let (failed, lock) = match (LockedAttempt { device, how, left, gid }).take(configuration)? {
            (Ok(ready), _) => return Ok(ready),
            (Err(failed), lock) => (failed, lock),
        };
        let (Some(retry), Some(hold_file), Caller::Unit) = (failed.retry, hold_file, how.caller) else {
            return Err(failed.error);
        };
        let Retry { wait, is_kept, surroundings } = *retry;
        let due = device.machine.boot().saturating_add(wait);
        // If backoff.json records the wait, this run may end at its deadline: the next run waits instead.
        let is_first = failed.error.is_first_report() && is_kept;
        if is_first && due > until {
            return Err(failed.error);
        }
        let pause = Wait::new(device, &versions, &hold_file, surroundings);
        // Release the lock, so that other runs may try meanwhile.
        drop(lock);
        if pause.wait(due) == Woken::NewConfiguration {
            return Err(failed.error);
        }
        if !is_first {
            until = device.machine.boot().saturating_add(deadline);
        }
    }
}

/// One attempt of a run under the run lock, for which other runs wait.
struct LockedAttempt<'a> {
    device: &'a Device,
    how: How,
    /// Time left for API calls.
    left: Duration,
    /// The group that may read the token.
    gid: Option<u32>,
}

impl LockedAttempt<'_> {
    /// Takes the lock and makes the attempt. Returns the lock with the outcome, so that the caller decides when to
    /// release it.
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
        // Many programs may have asked at the same time. They share the failure of one call.
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

    /// Checks the configuration and makes the attempt.
    fn attempt(&self, directory: &Directory, (conf, settings): Configuration) -> Result<Ready, Failed> {
        let Self { device, how, left, .. } = *self;
        let conf = match conf {
            Ok(conf) => conf,
            // The missing API URL may be in agent.toml, which can't be used: report that error instead.
            Err(error)
                if error.lacks_api_url()
                    && let Err(error) = settings =>
            {
                return Err(record_failure(directory, None, error.into()).into());
            }
            Err(error) => return Err(record_failure(directory, None, error.into()).into()),
        };
        // Without the identity in ready.json: on the wrong module, the device of this device.conf is another one.
        let board =
            board::check(&device.paths, &conf).map_err(|error| record_failure(directory, None, error.into()))?;
        let settings = settings.map_err(|error| record_failure(directory, Some(&conf), error.into()))?;
        let ready = Attempt { device, how, left, directory, conf: &conf, settings: &settings }.run()?;
        if let Board::Unknown(why) = board
            && ready.is_first_report
        {
            log::warn!("cannot check that this is the module in device.conf: {why}");
        }
        Ok(ready)
    }
}

/// Removes the temporary files of killed runs in `/var/lib/azaion`, if the directory exists.
fn remove_state_leftovers(state_dir: &Path) -> Result<(), FileError> {
    if state_dir.exists() { Directory::open(state_dir, None, Lifetime::Durable)?.remove_leftovers() } else { Ok(()) }
}
