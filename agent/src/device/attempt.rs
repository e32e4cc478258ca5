//! One attempt to make the device ready: keep the cached token or get a new one, and record the outcome.

use std::time::Duration;

use crate::api::fault::{Class, Fault, NotCalled, Problem, chain};
use crate::common::clock::Timestamp;
use crate::common::device_conf::DeviceConf;
use crate::common::private_file::Lifetime;

use super::backoff::{Backoff, FailedCall};
use super::cache::{self, TokenCache};
use super::files::{Directory, FileError, or_warn};
use super::hold::held;
use super::machine::Device;
use super::outcome::{Failed, NotReady, Ready, Retry};
use super::readiness::{FirstBoot, Readiness};
use super::refusals::Refusals;
use super::request::{Caller, How};
use super::schedule::Failure;
use super::settings::{Renew, Settings};
use super::surroundings::Surroundings;
use super::wait::AlertClock;

mod login;

/// How long a held device waits before the next attempt. Removing the hold file ends the wait earlier.
const HELD_WAIT: Duration = Duration::from_hours(1);

/// Returns the failure of an attempt that the hold file prevents.
fn held_failure(why: String, clock: &AlertClock<'_>) -> Failed {
    // This run waits, since the next run would be held as well.
    Failed::new(
        NotReady::Held(why),
        Some(Retry { wait: HELD_WAIT, is_kept: false, surroundings: clock.surroundings() }),
    )
}

/// Where the token of a ready device comes from.
enum Token {
    /// The cached token is fresh; no call was made.
    Fresh,
    /// The API issued a new token.
    Renewed,
    /// The cached token is still valid, but the renewal failed for this reason.
    Kept(String),
    /// The cached token is still valid, and the hold file prevents a renewal.
    Held,
}

/// One attempt to make the device ready with this configuration. The caller holds the run lock.
pub(super) struct Attempt<'a> {
    pub(super) device: &'a Device,
    pub(super) how: How,
    /// Time left for API calls.
    pub(super) left: Duration,
    /// `/run/azaion`.
    pub(super) directory: &'a Directory,
    pub(super) conf: &'a DeviceConf,
    pub(super) settings: &'a Settings,
}

impl Attempt<'_> {
    /// Makes the attempt and records its outcome in `ready.json`.
    pub(super) fn run(&self) -> Result<Ready, Failed> {
        let cached = self.cached().filter(|cache| !cache.left(&self.device.moment()).is_zero());
        if let Some(cache) =
            cached.as_ref().filter(|_| !self.how.is_forced).filter(|c| c.is_fresh(&self.device.moment()))
        {
            return Ok(self.ready(cache.clone(), self.best_time(), Token::Fresh)?);
        }
        if self.is_on_demand() {
            return Ok(self.idle(cached)?);
        }
        match self.new_token(cached.is_some()) {
            Ok((cache, now)) => Ok(self.ready(cache, now, Token::Renewed)?),
            Err(failed) => {
                // The old token may have expired while the renewal was failing.
                let is_valid = |cache: &TokenCache| !cache.left(&self.device.moment()).is_zero();
                let still_valid = cached.filter(|cache| failed.error.keeps_valid_token() && is_valid(cache));
                let Some(cache) = still_valid else {
                    return Err(Failed {
                        error: record_failure(self.directory, Some(self.conf), failed.error),
                        ..failed
                    });
                };
                let token = match failed.error {
                    NotReady::Held(_) => Token::Held,
                    error => Token::Kept(chain(&error)),
                };
                Ok(self.ready(cache, self.best_time(), token)?)
            }
        }
    }

    /// Reads the cached token, if it belongs to this account and agrees with the policy.
    fn cached(&self) -> Option<TokenCache> {
        TokenCache::read(&self.device.paths.run_dir()).filter(|cache| cache.is_of(self.conf, self.settings))
    }

    /// Returns the best known true time.
    fn best_time(&self) -> Timestamp {
        self.device.true_time(Some(self.conf)).now()
    }

    fn device_conf(&self) -> &str {
        self.device.conf_fingerprint()
    }

    /// Whether the systemd unit leaves the next login to the next caller that needs a token (`renew = "on-demand"`).
    fn is_on_demand(&self) -> bool {
        let now = self.device.moment();
        self.how.caller == Caller::Unit
            && self.settings.renew == Renew::OnDemand
            // If `/run/azaion` was removed, a login is needed to write `ready.json` again.
            && Readiness::read(&self.device.paths.run_dir()).is_some()
            && (FirstBoot::read(&self.device.paths.state_dir()).was_ready_in(&now.boot_id, self.device_conf())
                || self.cached().is_some_and(|cache| cache.is_of_boot(&now)))
    }

    /// Updates `ready.json` without a call to the API.
    fn idle(&self, cache: Option<TokenCache>) -> Result<Ready, NotReady> {
        let before = Readiness::read(&self.device.paths.run_dir()).unwrap_or_else(|| Readiness::of(self.conf));
        // A run that was killed between its two writes leaves a valid token without `ready` in `ready.json`.
        if let Some(cache) = cache.clone().filter(|_| !before.ready) {
            return self.ready(cache, self.best_time(), Token::Fresh);
        }
        let readiness = Readiness { held: self.held().is_some(), ..before.clone() };
        if readiness.held != before.held {
            readiness.write(self.directory)?;
        }
        Ok(Ready { cache, readiness, is_first_report: false, is_renewed: false, renewal_error: None })
    }

    /// Records in `ready.json` that the device is ready. `now` is the best known true time.
    fn ready(&self, cache: TokenCache, now: Timestamp, token: Token) -> Result<Ready, NotReady> {
        let before = Readiness::read(&self.device.paths.run_dir()).filter(|before| before.ready);
        let readiness = Readiness {
            ready: true,
            since: before.as_ref().and_then(|before| before.since).or(Some(now)),
            expires_at: Some(cache.expires_at),
            signature: Some(cache.signature),
            user_id: cache.user_id.clone(),
            held: matches!(token, Token::Held) || self.held().is_some(),
            ..Readiness::of(self.conf)
        };
        readiness.write(self.directory)?;
        let is_renewed = matches!(token, Token::Renewed);
        let renewal_error = if let Token::Kept(renewal_error) = token { Some(renewal_error) } else { None };
        Ok(Ready { cache: Some(cache), readiness, is_first_report: before.is_none(), is_renewed, renewal_error })
    }

    /// Returns why the device is held, if it is.
    fn held(&self) -> Option<String> {
        held(&self.device.paths, &self.settings.hold_file)
    }

    /// Gets a new token from the API, validates and caches it. A failure is recorded in `backoff.json`, so that later
    /// runs wait.
    fn new_token(&self, has_valid: bool) -> Result<(TokenCache, Timestamp), Failed> {
        let clock = AlertClock::new(&self.device.machine);
        if let Some(why) = self.held() {
            return Err(held_failure(why, &clock));
        }
        self.check_waits(&clock.surroundings())?;
        match self.request_token(&clock, has_valid) {
            Ok(token) => {
                Backoff::clear(self.directory)?;
                Ok(token)
            }
            Err(NotReady::Fault(fault)) if matches!(fault.problem, Problem::NotCalled(NotCalled::Held)) => {
                let why =
                    self.held().unwrap_or_else(|| "because the hold file was there at the time of the call".to_owned());
                Err(held_failure(why, &clock))
            }
            Err(NotReady::Fault(fault)) => Err(self.failed(*fault, clock.surroundings())),
            Err(other) => Err(other.into()),
        }
    }

    /// Fails if the backoff of an earlier run, or the gate after refused credentials, applies to this run.
    fn check_waits(&self, surroundings: &Surroundings) -> Result<(), Failed> {
        let (now, run_dir) = (self.device.moment(), self.device.paths.run_dir());
        let waiting = Backoff::read(&run_dir).filter(|waiting| {
            !self.how.now && waiting.is_in_force(self.how.caller, &now, self.device_conf(), surroundings)
        });
        if let Some(waiting) = waiting {
            let left = waiting.left(&now);
            let surroundings = waiting.surroundings().clone();
            let retry = (!waiting.is_refusal()).then_some(Retry { wait: left, is_kept: true, surroundings });
            return Err(Failed::new(NotReady::Waiting { exit: waiting.exit(), left, reason: waiting.reason }, retry));
        }
        let (mut known, refusals) = self.known_refusals();
        let Some(refusals) = refusals else { return Ok(()) };
        let left = refusals.gate(self.device_conf(), &now);
        if left.is_zero() {
            return Ok(());
        }
        let error = NotReady::Gated { refusals: refusals.in_a_row(), left };
        if let Some(noted) = refusals.noted(&now) {
            known.refusals = Some(noted);
            or_warn(self.write_state(&known));
        }
        Err(error.into())
    }

    /// Records a failed call in `backoff.json`, and returns the failure with the wait before the next call.
    fn failed(&self, fault: Fault, surroundings: Surroundings) -> Failed {
        let (now, class) = (self.device.moment(), fault.class());
        let (refused, refusals) = (class == Class::Refused).then(|| self.note_refusal()).unzip();
        let call =
            FailedCall { fault: &fault, now: &now, surroundings: &surroundings, device_conf: self.device_conf() };
        let backoff = Backoff::after(Backoff::read(&self.device.paths.run_dir()), call, refused);
        let Some((backoff, wait)) = backoff else { return fault.into() };
        // A person may be repairing the server right now. Their failed try must not delay the unit or a program.
        let is_for_others = class != Class::Protocol || self.how.caller != Caller::Person;
        let written = if is_for_others { backoff.with_refusals(refusals).write(self.directory) } else { Ok(()) };
        let is_kept = written.is_ok();
        or_warn(written);
        let retry = (class != Class::Refused).then_some(Retry { wait, is_kept, surroundings });
        Failed::new(fault.into(), retry)
    }

    /// Reads `first-boot.json` and the refusals of the credentials. Where `/var` is not writable, `backoff.json`
    /// supplies the refusals of this boot.
    fn known_refusals(&self) -> (FirstBoot, Option<Refusals>) {
        let mut known = FirstBoot::read(&self.device.paths.state_dir());
        let refusals = known.refusals.take();
        let refusals = refusals.or_else(|| Backoff::read(&self.device.paths.run_dir())?.refusals);
        (known, refusals)
    }

    /// Counts a refusal of the credentials and records it in `first-boot.json`.
    fn note_refusal(&self) -> (Failure, Refusals) {
        let (mut known, refusals) = self.known_refusals();
        let refusals = Refusals::add(refusals, self.device_conf(), &self.device.moment());
        let (in_a_row, was_ready) = (refusals.in_a_row(), known.was_ready_with(self.device_conf()));
        known.refusals = Some(refusals.clone());
        or_warn(self.write_state(&known));
        (Failure::Refused { in_a_row, was_ready }, refusals)
    }

    /// Writes `first-boot.json`.
    fn write_state(&self, known: &FirstBoot) -> Result<(), FileError> {
        known.write(&Directory::open(&self.device.paths.state_dir(), None, Lifetime::Durable)?)
    }
}

/// Records that the device is not ready: writes the reason to `ready.json` and deletes the token. Returns `error`.
pub(super) fn record_failure(directory: &Directory, conf: Option<&DeviceConf>, error: NotReady) -> NotReady {
    let held = matches!(error, NotReady::Held(_));
    let readiness = Readiness { held, ..Readiness::not_ready(conf, error.exit(), chain(&error)) };
    // `ready.json` first: `ready` never stands there without a token, even if this run is killed between the two steps.
    let recorded = readiness.write(directory);
    if let Err(other) = cache::clear(directory).and(recorded) {
        log::error!("{}", chain(&other));
    }
    error
}
