//! One attempt: the token that is there, or a new one, and what is written about it.

use std::sync::Arc;
use std::time::Duration;

use crate::api::fault::{Class, Fault, NotCalled, Problem, chain};
use crate::api::http::{Answer, ApiClient};
use crate::api::keys;
use crate::api::retry::{Budget, POLICY};
use crate::api::session::{self, Tokens};
use crate::api::token::Accepted;
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
use super::true_time::TrueTime;
use super::wait::AlertClock;

/// How long a device that is held waits; the end of the hold file ends it before.
const HELD: Duration = Duration::from_hours(1);

fn is_held(why: String, clock: &AlertClock<'_>) -> Failed {
    // The next run would find the same: this one waits.
    Failed::new(NotReady::Held(why), Some(Retry { wait: HELD, is_kept: false, surroundings: clock.surroundings() }))
}

/// What a run found or did about the token.
enum Token {
    /// It is fresh: nothing was asked.
    Fresh,
    /// It is new.
    Renewed,
    /// It is an old one that is still valid; why there is no new one.
    Kept(String),
    /// The same, because the device is held.
    Held,
}

pub(super) struct Attempt<'a> {
    pub(super) device: &'a Device,
    pub(super) how: How,
    /// The time left for calls.
    pub(super) left: Duration,
    pub(super) folder: &'a Directory,
    pub(super) conf: &'a DeviceConf,
    pub(super) settings: &'a Settings,
}

impl Attempt<'_> {
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
                // A renewal that failed may have taken the rest of the old token's life.
                let is_valid = |cache: &TokenCache| !cache.left(&self.device.moment()).is_zero();
                let spared = cached.filter(|cache| failed.error.keeps_valid_token() && is_valid(cache));
                let Some(cache) = spared else {
                    return Err(Failed { error: record_failure(self.folder, Some(self.conf), failed.error), ..failed });
                };
                let token = match failed.error {
                    NotReady::Held(_) => Token::Held,
                    error => Token::Kept(chain(&error)),
                };
                Ok(self.ready(cache, self.best_time(), token)?)
            }
        }
    }

    fn cached(&self) -> Option<TokenCache> {
        TokenCache::read(&self.device.paths.run_dir()).filter(|cache| cache.is_of(self.conf, self.settings))
    }

    fn best_time(&self) -> Timestamp {
        self.device.true_time(Some(self.conf)).now()
    }

    fn device_conf(&self) -> &str {
        self.device.conf_fingerprint()
    }

    /// Whether the unit leaves the next token to whoever asks for one.
    fn is_on_demand(&self) -> bool {
        let now = self.device.moment();
        self.how.caller == Caller::Unit
            && self.settings.renew == Renew::OnDemand
            // Gone with its directory, it is written again by a login.
            && Readiness::read(&self.device.paths.run_dir()).is_some()
            && (FirstBoot::read(&self.device.paths.state_dir()).was_ready_in(&now.boot_id, self.device_conf())
                || self.cached().is_some_and(|cache| cache.is_of_boot(&now)))
    }

    /// Makes no call and only updates `ready.json`.
    fn idle(&self, cache: Option<TokenCache>) -> Result<Ready, NotReady> {
        let before = Readiness::read(&self.device.paths.run_dir()).unwrap_or_else(|| Readiness::of(self.conf));
        // A run that was killed before it updated both files leaves a valid token behind.
        if let Some(cache) = cache.clone().filter(|_| !before.ready) {
            return self.ready(cache, self.best_time(), Token::Fresh);
        }
        let readiness = Readiness { held: self.held().is_some(), ..before.clone() };
        if readiness.held != before.held {
            readiness.write(self.folder)?;
        }
        Ok(Ready { cache, readiness, is_first_report: false, is_renewed: false, renewal_error: None })
    }

    /// Writes that the device is ready; `now` is the best known true time.
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
        readiness.write(self.folder)?;
        let is_renewed = matches!(token, Token::Renewed);
        let renewal_error = if let Token::Kept(renewal_error) = token { Some(renewal_error) } else { None };
        Ok(Ready { cache: Some(cache), readiness, is_first_report: before.is_none(), is_renewed, renewal_error })
    }

    fn held(&self) -> Option<String> {
        held(&self.device.paths, &self.settings.hold_file)
    }

    /// A token from the server, validated and in the cache; or a note for later runs that they must wait.
    fn new_token(&self, has_valid: bool) -> Result<(TokenCache, Timestamp), Failed> {
        let clock = AlertClock::new(&self.device.machine);
        if let Some(why) = self.held() {
            return Err(is_held(why, &clock));
        }
        self.check_waits(&clock.surroundings())?;
        match self.ask(&clock, has_valid) {
            Ok(token) => {
                Backoff::clear(self.folder)?;
                Ok(token)
            }
            Err(NotReady::Fault(fault)) if matches!(fault.problem, Problem::NotCalled(NotCalled::Held)) => {
                let why = self.held().unwrap_or_else(|| "for the moment".to_owned());
                Err(is_held(why, &clock))
            }
            Err(NotReady::Fault(fault)) => Err(self.failed(*fault, clock.surroundings())),
            Err(other) => Err(other.into()),
        }
    }

    /// What earlier runs were told to wait for, if that is for this one, too.
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

    /// A call that failed, and how long that keeps later runs from another one.
    fn failed(&self, fault: Fault, surroundings: Surroundings) -> Failed {
        let (now, class) = (self.device.moment(), fault.class());
        let (refused, refusals) = (class == Class::Refused).then(|| self.note_refusal()).unzip();
        let call =
            FailedCall { fault: &fault, now: &now, surroundings: &surroundings, device_conf: self.device_conf() };
        let backoff = Backoff::after(Backoff::read(&self.device.paths.run_dir()), call, refused);
        let Some((backoff, wait)) = backoff else { return fault.into() };
        // A person may be about to mend the server: the next run of the unit or a program is not kept from seeing that.
        let is_for_others = class != Class::Protocol || self.how.caller != Caller::Person;
        let written = if is_for_others { backoff.with_refusals(refusals).write(self.folder) } else { Ok(()) };
        let is_kept = written.is_ok();
        or_warn(written);
        let retry = (class != Class::Refused).then_some(Retry { wait, is_kept, surroundings });
        Failed::new(fault.into(), retry)
    }

    /// What outlives a boot, and the refusals of the credentials: those of this boot alone where `/var` can't be written.
    fn known_refusals(&self) -> (FirstBoot, Option<Refusals>) {
        let mut known = FirstBoot::read(&self.device.paths.state_dir());
        let refusals = known.refusals.take();
        let refusals = refusals.or_else(|| Backoff::read(&self.device.paths.run_dir())?.refusals);
        (known, refusals)
    }

    /// Counts a refusal.
    fn note_refusal(&self) -> (Failure, Refusals) {
        let (mut known, refusals) = self.known_refusals();
        let refusals = Refusals::add(refusals, self.device_conf(), &self.device.moment());
        let (in_a_row, was_ready) = (refusals.in_a_row(), known.was_ready_with(self.device_conf()));
        known.refusals = Some(refusals.clone());
        or_warn(self.write_state(&known));
        (Failure::Refused { in_a_row, was_ready }, refusals)
    }

    /// Login, then keys: refused credentials must show as such whatever else is wrong. While the keys are out of reach
    /// they are asked for again, without another login.
    fn ask(&self, clock: &AlertClock<'_>, has_valid: bool) -> Result<(TokenCache, Timestamp), NotReady> {
        let time = Arc::new(self.device.true_time(Some(self.conf)));
        let overtaken = Some(clock.overtaken());
        let http = self.device.client(&self.conf.api_url, self.settings, Arc::clone(&time), overtaken)?;
        let http = http.as_ref();
        let gate = || self.held().map(|_| NotCalled::Held);
        // Even a run that is at its deadline makes one call.
        let budget = Budget::new(self.left.max(POLICY.least), POLICY, clock).gated(&gate);
        let budget = if self.is_long_outage(clock) { budget.single() } else { budget };
        let (tokens, answer) = match self.refreshed(http, &budget)? {
            Some(refreshed) => refreshed,
            None => self.log_in(http, &budget, has_valid).inspect_err(|fault| self.note_expired(fault, &time))?,
        };
        time.learn(&answer)?;
        let expected = self.settings.expected(&self.conf.email);
        let accepted = keys::validate_token(http, &budget, (&tokens.access, &answer), expected, || time.now())?;
        self.keep(tokens, &answer, &accepted, &time)
    }

    /// Whether each call is one of few.
    fn is_long_outage(&self, clock: &AlertClock<'_>) -> bool {
        let known = Backoff::read(&self.device.paths.run_dir());
        known
            .is_some_and(|known| known.is_long_outage(&self.device.moment(), self.device_conf(), &clock.surroundings()))
    }

    /// The unit logs in once and waits outside of this run's lock; so does whoever has a token that is still valid. Others get a few
    /// tries at once.
    fn log_in(&self, http: &dyn ApiClient, budget: &Budget<'_>, has_valid: bool) -> Result<(Tokens, Answer), Fault> {
        let call = |limit| session::login(http, &self.conf.email, &self.conf.password, limit);
        if self.how.caller == Caller::Unit || has_valid { budget.once(call) } else { budget.run(call) }
    }

    /// A session renewed without the password, where there is one. Tried once: a refresh token works once, and
    /// whatever goes wrong, a login puts it right; but not at once where the server asks to wait.
    fn refreshed(&self, http: &dyn ApiClient, budget: &Budget<'_>) -> Result<Option<(Tokens, Answer)>, NotReady> {
        let now = self.device.moment();
        let is_ours = self.cached().is_some_and(|cache| cache.is_of_boot(&now));
        let refresh = cache::take_refresh(self.folder, &self.device.paths.run_dir())?;
        let Some(refresh) = refresh.filter(|_| is_ours) else { return Ok(None) };
        match budget.once(|limit| session::refresh(http, &refresh, limit)) {
            Ok(refreshed) => Ok(Some(refreshed)),
            Err(fault) if fault.retry_after.is_some() && fault.class().is_transient() => Err(fault.into()),
            Err(fault) => {
                log::info!("the session can't be renewed, logging in again: {}", chain(&fault));
                Ok(None)
            }
        }
    }

    fn keep(
        &self,
        tokens: Tokens,
        answer: &Answer,
        accepted: &Accepted,
        time: &TrueTime,
    ) -> Result<(TokenCache, Timestamp), NotReady> {
        let (now, moment) = (time.now(), self.device.moment());
        let memory = time.after_answer(answer, accepted, &moment);
        let known = FirstBoot::read(&self.device.paths.state_dir());
        let known = known.ready(now, self.device_conf(), &moment.boot_id, memory);
        let cache = TokenCache::new(self.conf, tokens.access, accepted, now, moment);
        cache::write(self.folder, &cache, tokens.refresh)?;
        or_warn(self.write_state(&known));
        Ok((cache, now))
    }

    fn write_state(&self, known: &FirstBoot) -> Result<(), FileError> {
        known.write(&Directory::open(&self.device.paths.state_dir(), None, Lifetime::Durable)?)
    }

    /// Remembers that the floor may be what makes the certificate look expired.
    fn note_expired(&self, fault: &Fault, time: &TrueTime) {
        let Some(time) = time.after_fault(fault, &self.device.moment()) else { return };
        let mut known = FirstBoot::read(&self.device.paths.state_dir());
        known.time = time;
        or_warn(self.write_state(&known));
    }
}

/// What `ready.json` and the loader see when a device is not ready: the reason, and no token.
pub(super) fn record_failure(folder: &Directory, conf: Option<&DeviceConf>, error: NotReady) -> NotReady {
    let held = matches!(error, NotReady::Held(_));
    let readiness = Readiness { held, ..Readiness::not_ready(conf, error.exit(), chain(&error)) };
    // In this order: `ready` always comes with a token, even if this run is killed in between.
    let recorded = readiness.write(folder);
    if let Err(other) = cache::clear(folder).and(recorded) {
        log::error!("{}", chain(&other));
    }
    error
}
