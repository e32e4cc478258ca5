//! Trying again, as a value: exponential back-off with full jitter, `Retry-After` obeyed, one deadline for all.

use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::clock::Clock;
use crate::fault::Fault;

/// How often and how long to try.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The longest first wait; the longest wait doubles with each try.
    pub first: Duration,
    /// The longest wait ever, but for a longer `Retry-After`.
    pub cap: Duration,
    /// The time that one call may take.
    pub call: Duration,
}

/// Half a second doubles to ten in five tries: a station or a unit alone is soon served when the API comes back,
/// and fifty behind one address do not ask in step, since each waits a random part of it.
pub const POLICY: Policy =
    Policy { first: Duration::from_millis(500), cap: Duration::from_secs(10), call: Duration::from_secs(10) };

/// The waits of one call that is made again and again.
#[derive(Clone, Debug)]
pub struct Waits {
    longest: Duration,
    cap: Duration,
    /// The deadline on the boot clock.
    until: Duration,
}

impl Waits {
    /// From the first try on, until the boot clock says `until`.
    pub fn new(policy: Policy, until: Duration) -> Self {
        Self { longest: policy.first, cap: policy.cap, until }
    }

    /// How long to wait after this fault; none if it is for good, or the wait would pass the deadline.
    ///
    /// What the server asks for is the least; of a tenth of it a random part comes on top, so that those who were told
    /// the same do not come back in step.
    pub fn after(&mut self, fault: &Fault, now: Duration) -> Option<Duration> {
        if !fault.class().is_transient() {
            return None;
        }
        let asked = fault.retry_after.unwrap_or_default();
        let wait = asked + part_of(self.longest.max(asked / 10));
        self.longest = (self.longest * 2).min(self.cap);
        Some(wait).filter(|wait| now + *wait < self.until)
    }
}

/// The time left, and how it is spent.
#[derive(Debug)]
pub struct Retry<'a> {
    policy: Policy,
    clock: &'a dyn Clock,
    /// The deadline on the boot clock.
    until: Duration,
}

impl<'a> Retry<'a> {
    /// Tries from now on for `deadline`.
    pub fn within(deadline: Duration, policy: Policy, clock: &'a dyn Clock) -> Self {
        Self { policy, clock, until: clock.boot().saturating_add(deadline) }
    }

    /// Makes the call until it succeeds, fails for good, or would have to wait past the deadline. The call is
    /// told how long it may take.
    ///
    /// # Errors
    /// The last fault.
    pub fn run<T>(&self, mut call: impl FnMut(Duration) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut waits = Waits::new(self.policy, self.until);
        let mut level = log::Level::Warn;
        loop {
            let fault = match call(self.limit()) {
                Err(fault) => fault,
                done => return done,
            };
            let Some(wait) = waits.after(&fault, self.clock.boot()) else { return Err(fault) };
            log::log!(level, "{}; trying again in {:.1} s", crate::fault::chain(&fault), wait.as_secs_f32());
            level = log::Level::Info;
            self.clock.sleep(wait);
        }
    }

    /// The time that one call may take now. Even a run that is at its deadline makes one call, and gives it a moment.
    pub fn limit(&self) -> Duration {
        self.until.saturating_sub(self.clock.boot()).clamp(Duration::from_millis(100), self.policy.call)
    }
}

/// A random part of `longest` (full jitter).
pub fn part_of(longest: Duration) -> Duration {
    // Without a random source the whole wait is right, too.
    let random = SysRng.try_next_u32().unwrap_or(u32::MAX);
    longest.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::virtual_clock::VirtualClock;
    use crate::fault::{Class, Problem};

    fn fault(class: Class, retry_after: Option<u64>) -> Fault {
        let problem = Problem::Status { status: 503, code: None, class };
        Fault {
            step: "POST /login".into(),
            host: "h".into(),
            retry_after: retry_after.map(Duration::from_secs),
            problem,
        }
    }

    fn run(deadline: u64, faults: &[(Class, Option<u64>)]) -> (Result<usize, Fault>, Vec<Duration>, usize) {
        let clock = VirtualClock::at("2026-05-03T10:00:00Z");
        let mut calls = 0;
        let result = Retry::within(Duration::from_secs(deadline), POLICY, &clock).run(|_| {
            calls += 1;
            match faults.get(calls - 1) {
                Some(&(class, wait)) => Err(fault(class, wait)),
                None => Ok(calls),
            }
        });
        (result, clock.sleeps(), calls)
    }

    // Promise: transient faults are tried again with growing, jittered waits; the others never.
    #[test]
    fn tries_again_only_where_it_helps() {
        let (result, sleeps, _) = run(60, &[(Class::Unreachable, None), (Class::Garbled, None), (Class::Later, None)]);
        assert_eq!(result.unwrap(), 4);
        assert!(sleeps.iter().zip([500, 1000, 2000]).all(|(s, most)| s.as_millis() <= most), "{sleeps:?}");
        for class in [Class::Unacceptable, Class::Refused] {
            assert_eq!(run(60, &[(class, Some(1))]).2, 1);
        }
    }

    // Promise: Retry-After is a lower bound of the wait, and one beyond the deadline ends the run at once.
    #[test]
    fn obeys_retry_after() {
        let (result, sleeps, _) = run(60, &[(Class::Later, Some(7))]);
        assert_eq!(result.unwrap(), 2);
        assert!(sleeps[0] >= Duration::from_secs(7) && sleeps[0] <= Duration::from_millis(7700));
        let (result, sleeps, calls) = run(60, &[(Class::Later, Some(61))]);
        assert_eq!((sleeps.len(), calls), (0, 1));
        assert_eq!(result.unwrap_err().retry_after, Some(Duration::from_secs(61)));
    }

    // Promise: the deadline holds, and no single wait exceeds the cap.
    #[test]
    fn ends_at_the_deadline() {
        let (result, sleeps, calls) = run(60, &[(Class::Later, None); 100]);
        assert!(result.is_err());
        assert!(sleeps.iter().sum::<Duration>() < Duration::from_mins(1));
        assert!(sleeps.iter().all(|s| *s <= POLICY.cap));
        assert!((7..=100).contains(&calls), "{calls}");
    }

    // Promise: a call is given no more time than is left.
    #[test]
    fn calls_are_bounded_by_what_is_left() {
        let clock = VirtualClock::at("2026-05-03T10:00:00Z");
        let mut limits = Vec::new();
        let _ = Retry::within(Duration::from_secs(15), POLICY, &clock).run(|limit| {
            limits.push(limit);
            clock.advance(limit);
            Err::<(), _>(fault(Class::Unreachable, None))
        });
        assert_eq!(limits[0], Duration::from_secs(10));
        assert!(limits.iter().all(|l| *l >= Duration::from_millis(100)), "{limits:?}");
        assert!(limits[1..].iter().all(|l| *l <= Duration::from_secs(5)), "{limits:?}");
    }

    // Promise: whoever is at the deadline does not try again, even without a wait.
    #[test]
    fn nothing_is_tried_at_the_deadline() {
        let (policy, until) = (Policy { first: Duration::ZERO, ..POLICY }, Duration::from_secs(20));
        for (now, again) in [(19_999, true), (20_000, false), (20_001, false)] {
            let wait = Waits::new(policy, until).after(&fault(Class::Later, None), Duration::from_millis(now));
            assert_eq!(wait.is_some(), again, "{now}");
        }
    }

    // Promise: many that wait do not come back in step: the waits are spread over all of the time.
    #[test]
    fn waits_are_spread() {
        let longest = Duration::from_secs(100);
        let parts: Vec<u64> =
            (0..400).map(|_| part_of(longest)).inspect(|p| assert!(*p <= longest)).map(|p| p.as_secs()).collect();
        assert!((0..10).all(|tenth| parts.iter().any(|p| p / 10 == tenth)), "{parts:?}");
    }
}
