//! Gets a new token from the API: refresh or login, validation of the token, and the cache.

use std::sync::Arc;

use crate::api::fault::{Fault, NotCalled, chain};
use crate::api::http::{Answer, ApiClient};
use crate::api::keys;
use crate::api::retry::{Budget, POLICY};
use crate::api::session::{self, Tokens};
use crate::api::token::Accepted;
use crate::common::clock::Timestamp;

use super::Attempt;
use crate::device::backoff::Backoff;
use crate::device::cache::{self, TokenCache};
use crate::device::files::or_warn;
use crate::device::outcome::NotReady;
use crate::device::readiness::FirstBoot;
use crate::device::request::Caller;
use crate::device::true_time::TrueTime;
use crate::device::wait::AlertClock;

impl Attempt<'_> {
    /// Requests a token, validates and caches it. Returns it with the best known true time.
    ///
    /// The login comes before the keys, so that refused credentials are reported as such whatever else is wrong. A
    /// failed request for the keys is repeated without another login.
    pub(super) fn request_token(
        &self,
        clock: &AlertClock<'_>,
        has_valid: bool,
    ) -> Result<(TokenCache, Timestamp), NotReady> {
        let time = Arc::new(self.device.true_time(Some(self.conf)));
        let overtaken = Some(clock.overtaken());
        let http = self.device.client(&self.conf.api_url, self.settings, Arc::clone(&time), overtaken)?;
        let http = http.as_ref();
        let gate = || self.held().map(|_| NotCalled::Held);
        // A run that has reached its deadline still makes one call.
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

    /// Whether the API has been unreachable for so long that this run makes a single call.
    fn is_long_outage(&self, clock: &AlertClock<'_>) -> bool {
        let known = Backoff::read(&self.device.paths.run_dir());
        known
            .is_some_and(|known| known.is_long_outage(&self.device.moment(), self.device_conf(), &clock.surroundings()))
    }

    /// Logs in with the password.
    ///
    /// The unit, and a caller that still has a valid token, makes one try; it waits after the run lock is released.
    /// Other callers make a few tries right away.
    fn log_in(&self, http: &dyn ApiClient, budget: &Budget<'_>, has_valid: bool) -> Result<(Tokens, Answer), Fault> {
        let call = |limit| session::login(http, &self.conf.email, &self.conf.password, limit);
        if self.how.caller == Caller::Unit || has_valid { budget.once(call) } else { budget.run(call) }
    }

    /// Renews the session with the refresh token, if there is one. `None`: log in instead.
    ///
    /// There is one try, since a refresh token works once. After a failure the caller logs in, unless the server asks
    /// for a wait (`Retry-After`).
    fn refreshed(&self, http: &dyn ApiClient, budget: &Budget<'_>) -> Result<Option<(Tokens, Answer)>, NotReady> {
        let now = self.device.moment();
        let is_ours = self.cached().is_some_and(|cache| cache.is_of_boot(&now));
        let refresh = cache::take_refresh(self.directory, &self.device.paths.run_dir())?;
        let Some(refresh) = refresh.filter(|_| is_ours) else { return Ok(None) };
        match budget.once(|limit| session::refresh(http, &refresh, limit)) {
            Ok(refreshed) => Ok(Some(refreshed)),
            Err(fault) if fault.retry_after.is_some() && fault.class().is_transient() => Err(fault.into()),
            Err(fault) => {
                log::info!("cannot renew the session, logging in again: {}", chain(&fault));
                Ok(None)
            }
        }
    }

    /// Writes the accepted token to the cache, and the time of the server to `first-boot.json`.
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
        cache::write(self.directory, &cache, tokens.refresh)?;
        or_warn(self.write_state(&known));
        Ok((cache, now))
    }

    /// Records in `first-boot.json` that a time floor that is too high may be why the certificate looks expired.
    fn note_expired(&self, fault: &Fault, time: &TrueTime) {
        let Some(time) = time.after_fault(fault, &self.device.moment()) else { return };
        let mut known = FirstBoot::read(&self.device.paths.state_dir());
        known.time = time;
        or_warn(self.write_state(&known));
    }
}
