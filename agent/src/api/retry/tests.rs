use super::*;
use crate::api::fault::Class;
use crate::common::clock::virtual_clock::VirtualClock;

fn fault(class: Class, retry_after: Option<u64>) -> Fault {
    let problem = Problem::Status { status: 503, code: None, class };
    Fault { step: "POST /login".into(), host: "h".into(), retry_after: retry_after.map(Duration::from_secs), problem }
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

// Promise: transient faults are retried with growing, jittered waits; other faults are not retried.
#[test]
fn only_transient_faults_are_retried() {
    let (result, sleeps, _) = run(60, &[(Class::Unreachable, None), (Class::Garbled, None), (Class::Later, None)]);
    assert_eq!(result.unwrap(), 4);
    assert!(sleeps.iter().zip([500, 1000, 2000]).all(|(s, most)| s.as_millis() <= most), "{sleeps:?}");
    for class in [Class::Protocol, Class::Refused] {
        assert_eq!(run(60, &[(class, Some(1))]).2, 1);
    }
}

// Promise: Retry-After is a lower bound of the wait, and a value beyond the deadline ends the run at once.
#[test]
fn respects_retry_after() {
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

/// The host's policy: each call gets at least five seconds.
const PATIENT: Policy = Policy { least: Duration::from_secs(5), ..POLICY };

// Promise: a call gets at most the time that is left, and at least the minimum; there is no retry with less.
#[test]
fn calls_are_limited_by_the_time_left() {
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

// Promise: without retries, only an answer with an outdated key list is retried.
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

// Promise: work between calls is not counted, and a call with little time left gets the minimum; once the time is used up, no call
// is made.
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

// Promise: without time for another wait and call, the last fault is returned; a slow server is not called again with less than
// the minimum time.
#[test]
fn no_retry_without_time() {
    let policy = Policy { first: Duration::ZERO, ..PATIENT };
    for (time, takes, calls) in [(1, 1, 1), (4, 1, 4), (12, 10, 1), (14, 10, 1), (15, 10, 2), (25, 10, 3), (20, 10, 2)]
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

/// A clock whose sleeps take five seconds too long.
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

// Promise: if the last wait takes longer than the time left, the result is still the last fault of a call.
#[test]
fn a_late_wait_hides_no_fault() {
    let clock = Late(VirtualClock::at("2026-05-03T10:00:00Z"));
    let ended = Budget::new(Duration::from_secs(4), POLICY, &clock).run(|_| Err::<(), _>(fault(Class::Later, None)));
    assert!(matches!(ended.unwrap_err().problem, Problem::Status { .. }));
}

// Promise: waits are spread over the whole range, so that many devices do not return at the same time.
#[test]
fn waits_are_spread() {
    let longest = Duration::from_secs(100);
    let parts: Vec<u64> =
        (0..400).map(|_| part_of(longest)).inspect(|p| assert!(*p <= longest)).map(|p| p.as_secs()).collect();
    assert!((0..10).all(|tenth| parts.iter().any(|p| p / 10 == tenth)), "{parts:?}");
}
