//! Retries of API calls: exponential backoff with full jitter, respects `Retry-After`, one time budget for all calls.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::api::fault::{Fault, Limit, NotCalled, Problem};
use crate::common::clock::Clock;

/// Limits of waits and calls.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Maximum first wait; the maximum doubles with each attempt.
    pub first: Duration,
    /// Maximum wait, unless `Retry-After` is longer.
    pub cap: Duration,
    /// Maximum time of one call.
    pub call: Duration,
    /// Minimum time of one call. The server may still carry out a call that was aborted.
    pub least: Duration,
}

/// The policy of the agent: the maximum wait doubles from half a second to ten seconds in five attempts.
///
/// A single host or device is served soon after the API comes back, and fifty devices behind one address do not call at the same
/// time, because each waits a random part of the maximum.
pub const POLICY: Policy = Policy {
    first: Duration::from_millis(500),
    cap: Duration::from_secs(10),
    call: Duration::from_secs(10),
    least: Duration::from_millis(100),
};

/// The waits between the attempts of one call.
#[derive(Clone, Debug)]
pub struct Waits {
    longest: Duration,
    cap: Duration,
}

impl Waits {
    /// Creates the state before the first attempt.
    pub fn new(policy: Policy) -> Self {
        Self { longest: policy.first, cap: policy.cap }
    }

    /// Returns how long to wait after this fault; `None` if it is permanent, or if the wait is not shorter than the time `left`.
    ///
    /// The wait is at least what the server asks for, plus a random part of up to a tenth of it, so that devices with the same
    /// `Retry-After` do not return at the same time.
    pub fn after(&mut self, fault: &Fault, left: Duration) -> Option<Duration> {
        if !fault.class().is_transient() {
            return None;
        }
        let asked = fault.retry_after.unwrap_or_default();
        let wait = asked + part_of(self.longest.max(asked / 10));
        self.longest = (self.longest * 2).min(self.cap);
        Some(wait).filter(|wait| *wait < left)
    }
}

/// The total time for calls and the waits between them. Other work of the program is not counted.
pub struct Budget<'a> {
    policy: Policy,
    clock: &'a dyn Clock,
    /// Returns why no call may be made now.
    gate: Option<&'a Gate<'a>>,
    /// Whether each call is made only once.
    is_single: bool,
    left: Cell<Duration>,
}

/// Returns why no call may be made now; `None` if it may.
pub type Gate<'a> = dyn Fn() -> Option<NotCalled> + 'a;

impl fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("policy", &self.policy).field("left", &self.left).finish_non_exhaustive()
    }
}

impl<'a> Budget<'a> {
    /// Creates a budget of `time`.
    pub fn new(time: Duration, policy: Policy, clock: &'a dyn Clock) -> Self {
        Self { policy, clock, gate: None, is_single: false, left: Cell::new(time) }
    }

    /// Checks `gate` before each call.
    #[must_use]
    pub fn gated(self, gate: &'a Gate<'a>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Disables retries, except when the server answers with an outdated key list.
    #[must_use]
    pub fn single(self) -> Self {
        Self { is_single: true, ..self }
    }

    /// Repeats the call until it succeeds, fails permanently, or there is no time for another wait and call.
    ///
    /// After the wait, the time that the last call took must be left, at most [`Policy::least`]: a server that answers at once is
    /// called until the budget is used up.
    ///
    /// # Errors
    /// The last fault.
    pub fn run<T>(&self, mut call: impl FnMut(Limit) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut waits = Waits::new(self.policy);
        let mut level = log::Level::Warn;
        loop {
            let before = self.left.get();
            let fault = match self.once(&mut call) {
                Err(fault) if self.is_repeated(&fault) => fault,
                done => return done,
            };
            let took = before.saturating_sub(self.left.get());
            let wait = waits.after(&fault, self.left.get());
            let has_time = |wait: &Duration| self.left.get().saturating_sub(*wait) >= took.min(self.policy.least);
            let Some(wait) = wait.filter(has_time) else { return Err(fault) };
            log::log!(level, "{}; trying again in {:.1} s", crate::api::fault::chain(&fault), wait.as_secs_f32());
            level = log::Level::Info;
            self.spend(|| self.clock.sleep(wait));
            // A wait may take longer than requested. Report the fault of the call then, not that the time is used up.
            if self.left.get().is_zero() {
                return Err(fault);
            }
        }
    }

    /// Whether a call may be repeated after this fault. A server that answers with an outdated key list is reachable.
    fn is_repeated(&self, fault: &Fault) -> bool {
        match fault.problem {
            Problem::NotCalled(_) => false,
            Problem::KeyNotListed => true,
            _ => !self.is_single,
        }
    }

    /// Makes the call once.
    ///
    /// # Errors
    /// The fault of the call.
    pub fn once<T>(&self, call: impl FnOnce(Limit) -> Result<T, Fault>) -> Result<T, Fault> {
        let limit = self.limit();
        self.spend(|| call(limit))
    }

    /// Returns the time limit of the next call, or why it must not be made.
    fn limit(&self) -> Limit {
        if self.clock.is_stopped() {
            return Err(NotCalled::Interrupted);
        }
        if let Some(why) = self.gate.and_then(|gate| gate()) {
            return Err(why);
        }
        match self.left.get() {
            Duration::ZERO => Err(NotCalled::NoTime),
            left => Ok(left.clamp(self.policy.least, self.policy.call)),
        }
    }

    /// Runs an action and subtracts the time that it takes.
    fn spend<T>(&self, action: impl FnOnce() -> T) -> T {
        let start = self.clock.boot();
        let done = action();
        self.left.set(self.left.get().saturating_sub(self.clock.boot().saturating_sub(start)));
        done
    }
}

/// Returns a random part of `longest` (full jitter).
pub fn part_of(longest: Duration) -> Duration {
    longest.mul_f64(f64::from(random()) / f64::from(u32::MAX))
}

fn random() -> u32 {
    #[cfg(feature = "simulation")]
    if let Some(random) = crate::simulation::random() {
        return random;
    }
    // Without a random source, the maximum wait is acceptable.
    SysRng.try_next_u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
