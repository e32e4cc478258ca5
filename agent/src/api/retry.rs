//! Trying again: exponential back-off with full jitter, `Retry-After` obeyed, one budget of time for all calls.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::api::fault::{Fault, Limit, NotCalled, Problem};
use crate::common::clock::Clock;

/// How often and how long to try.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The longest first wait; the longest wait doubles with each try.
    pub first: Duration,
    /// The longest wait ever, but for a longer `Retry-After`.
    pub cap: Duration,
    /// The most time that one call gets.
    pub call: Duration,
    /// The least time that one call gets. A call that is given up may be carried out all the same.
    pub least: Duration,
}

/// Half a second doubles to ten in five tries: a host or a device alone is soon served when the API comes back,
/// and fifty behind one address do not ask in step, since each waits a random part of it.
pub const POLICY: Policy = Policy {
    first: Duration::from_millis(500),
    cap: Duration::from_secs(10),
    call: Duration::from_secs(10),
    least: Duration::from_millis(100),
};

/// The waits of one call that is made again and again.
#[derive(Clone, Debug)]
pub struct Waits {
    longest: Duration,
    cap: Duration,
}

impl Waits {
    /// Before the first try.
    pub fn new(policy: Policy) -> Self {
        Self { longest: policy.first, cap: policy.cap }
    }

    /// How long to wait after this fault; none if it is for good, or if that is not less than what is `left`.
    ///
    /// What the server asks for is the least; of a tenth of it a random part comes on top, so that devices that were told the
    /// same do not come back in step.
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

/// The time that calls and the waits between them may take together. What the program does in between is not counted.
pub struct Budget<'a> {
    policy: Policy,
    clock: &'a dyn Clock,
    /// Why no call may be made now.
    gate: Option<&'a Gate<'a>>,
    /// Whether each call is made once.
    is_single: bool,
    left: Cell<Duration>,
}

/// Says why no call may be made now, if that is so.
pub type Gate<'a> = dyn Fn() -> Option<NotCalled> + 'a;

impl fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("policy", &self.policy).field("left", &self.left).finish_non_exhaustive()
    }
}

impl<'a> Budget<'a> {
    /// A budget of `time`.
    pub fn new(time: Duration, policy: Policy, clock: &'a dyn Clock) -> Self {
        Self { policy, clock, gate: None, is_single: false, left: Cell::new(time) }
    }

    /// The same, where `gate` is asked before each call.
    #[must_use]
    pub fn gated(self, gate: &'a Gate<'a>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// The same, where each call is made once, but for one that an old list of keys answers.
    #[must_use]
    pub fn single(self) -> Self {
        Self { is_single: true, ..self }
    }

    /// Makes the call until it succeeds, fails for good, or there is no time for another wait and call: of a server that answers
    /// at once, until the end; of one that does not, [`Policy::least`] must be left.
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
            // A wait may take longer than it should. The reason is what went wrong then, not that the time is used up.
            if self.left.get().is_zero() {
                return Err(fault);
            }
        }
    }

    /// Whether a call may be made again after this fault. A server that answers with an old list of keys is not out of reach.
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
    /// Its fault.
    pub fn once<T>(&self, call: impl FnOnce(Limit) -> Result<T, Fault>) -> Result<T, Fault> {
        let limit = self.limit();
        self.spend(|| call(limit))
    }

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

    fn spend<T>(&self, what: impl FnOnce() -> T) -> T {
        let start = self.clock.boot();
        let done = what();
        self.left.set(self.left.get().saturating_sub(self.clock.boot().saturating_sub(start)));
        done
    }
}

/// A random part of `longest` (full jitter).
pub fn part_of(longest: Duration) -> Duration {
    longest.mul_f64(f64::from(random()) / f64::from(u32::MAX))
}

fn random() -> u32 {
    #[cfg(feature = "simulation")]
    if let Some(random) = crate::simulation::random() {
        return random;
    }
    // Without a random source the whole wait is right, too.
    SysRng.try_next_u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fault::Class;
    use crate::common::clock::virtual_clock::VirtualClock;

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
        let result = Budget::new(Duration::from_secs(deadline), POLICY, &clock).run(|_| {
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
        for class in [Class::Protocol, Class::Refused] {
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

    /// The host's: no call gets less than five seconds.
    const PATIENT: Policy = Policy { least: Duration::from_secs(5), ..POLICY };

    // Promise: a call is given no more time than is left, and no less than the least; none is tried again with less.
    #[test]
    fn calls_are_bounded_by_what_is_left() {
        let clock = VirtualClock::at("2026-05-03T10:00:00Z");
        let mut limits = Vec::new();
        let _ = Budget::new(Duration::from_secs(18), PATIENT, &clock).run(|limit| {
            limits.push(limit.unwrap());
            clock.advance(limit.unwrap());
            Err::<(), _>(fault(Class::Unreachable, None))
        });
        assert_eq!((limits.len(), limits[0]), (2, Duration::from_secs(10)));
        assert!((Duration::from_secs(7)..=Duration::from_secs(8)).contains(&limits[1]), "{limits:?}");
    }

    // Promise: where each call is made once, an old list of keys is asked for again all the same, and nothing else is.
    #[test]
    fn single_calls() {
        let clock = VirtualClock::at("2026-05-03T10:00:00Z");
        let problem = |is_old_list| if is_old_list { Problem::KeyNotListed } else { Problem::NotJson };
        for (is_old_list, calls) in [(true, 2), (false, 1)] {
            let mut made = 0;
            let _ = Budget::new(Duration::from_mins(1), POLICY, &clock).single().run(|_| {
                made += 1;
                let fault = Fault { problem: problem(is_old_list), ..fault(Class::Later, None) };
                if made == 2 { Ok(()) } else { Err(fault) }
            });
            assert_eq!(made, calls);
        }
    }

    // Promise: work between calls costs nothing, and a call that is begun with little left gets the least all the same; once
    // all is spent, none is made.
    #[test]
    fn only_calls_and_waits_are_counted() {
        let clock = VirtualClock::at("2026-05-03T10:00:00Z");
        let budget = Budget::new(Duration::from_secs(7), PATIENT, &clock);
        let call = |seconds| {
            clock.advance(Duration::from_mins(10));
            let mut given = None;
            let _ = budget.run(|limit| {
                given = Some(limit);
                clock.advance(Duration::from_secs(if limit.is_ok() { seconds } else { 0 }));
                Ok::<_, Fault>(())
            });
            given.unwrap().map(|limit| limit.as_secs())
        };
        assert_eq!([call(3), call(3), call(4), call(0)], [Ok(7), Ok(5), Ok(5), Err(NotCalled::NoTime)]);
    }

    // Promise: without time for a further wait and call, the last fault is the end; a server that is slow to answer is not asked
    // again with less than the least.
    #[test]
    fn nothing_is_tried_at_the_end() {
        let policy = Policy { first: Duration::ZERO, ..PATIENT };
        for (time, takes, calls) in
            [(1, 1, 1), (4, 1, 4), (12, 10, 1), (14, 10, 1), (15, 10, 2), (25, 10, 3), (20, 10, 2)]
        {
            let clock = VirtualClock::at("2026-05-03T10:00:00Z");
            let mut made = 0;
            let _ = Budget::new(Duration::from_secs(time), policy, &clock).run(|_| {
                made += 1;
                clock.advance(Duration::from_secs(takes));
                Err::<(), _>(fault(Class::Later, None))
            });
            assert_eq!(made, calls, "{time} {takes}");
        }
    }

    /// Wakes up too late.
    #[derive(Debug)]
    struct Late(VirtualClock);

    impl Clock for Late {
        fn wall(&self) -> crate::common::clock::Timestamp {
            self.0.wall()
        }

        fn boot(&self) -> Duration {
            self.0.boot()
        }

        fn sleep(&self, time: Duration) {
            self.0.sleep(time + Duration::from_secs(5));
        }
    }

    // Promise: also where the last wait takes longer than the time that is left, the end is the last fault of a call.
    #[test]
    fn a_late_wait_hides_no_fault() {
        let clock = Late(VirtualClock::at("2026-05-03T10:00:00Z"));
        let ended =
            Budget::new(Duration::from_secs(4), POLICY, &clock).run(|_| Err::<(), _>(fault(Class::Later, None)));
        assert!(matches!(ended.unwrap_err().problem, Problem::Status { .. }));
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
