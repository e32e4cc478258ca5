use crate::api::fault::Problem;
use crate::common::private_file::Lifetime;

use super::*;

fn at(boot: &str, seconds: u64) -> BootMoment {
    BootMoment { boot_id: boot.into(), since_boot: Duration::from_secs(seconds) }
}

fn fault(class: Class, retry_after: Option<u64>) -> Fault {
    let problem = Problem::Status { status: 599, code: None, class };
    let retry_after = retry_after.map(Duration::from_secs);
    Fault { step: "POST /login".into(), host: "h".into(), retry_after, problem }
}

fn with(words: &[&str]) -> Surroundings {
    serde_json::from_value(words.into()).unwrap()
}

/// Returns the backoff after this failure with the device.conf `c`, `seconds` after the boot `b`.
fn after(before: Option<Backoff>, fault: &Fault, seconds: u64) -> Backoff {
    let (now, surroundings) = (at("b", seconds), with(&["link a"]));
    let call = FailedCall { fault, now: &now, surroundings: &surroundings, device_conf: "c" };
    Backoff::after(before, call, Some(Failure::Refused { in_a_row: 1, was_ready: false })).unwrap().0
}

const CALLERS: [Caller; 3] = [Caller::Unit, Caller::Program, Caller::Person];

// Promise: a wait applies to its boot, its time and its device.conf only.
#[test]
fn applies_to_its_boot_time_and_device_conf_only() {
    let backoff = after(None, &fault(Class::Refused, None), 100);
    let is_in_force = |now: &BootMoment, conf| backoff.is_in_force(Caller::Unit, now, conf, &with(&["link a"]));
    for (now, conf, expected) in [
        (at("b", 100), "c", true),
        (at("b", 160), "c", true),
        (at("b", 161), "c", false),
        (at("b2", 100), "c", false),
        (at("b", 100), "d", false),
    ] {
        assert_eq!(is_in_force(&now, conf), expected, "{now:?} {conf}");
    }
}

// Promise: the cause of a wait decides which callers it applies to: a `Retry-After` and refused credentials apply to
// all, an outage to the unit and, once it is long, to programs; a person may try at once.
#[test]
fn the_cause_decides_which_callers_wait() {
    for (class, retry_after, seconds, expected) in [
        (Class::Later, Some(600), 101, [true, true, true]),
        (Class::Refused, None, 101, [true, true, true]),
        (Class::Protocol, None, 101, [true, true, false]),
        (Class::Garbled, None, 100, [true, false, false]),
    ] {
        let backoff = after(None, &fault(class, retry_after), 100);
        let is_for = |caller| backoff.is_in_force(caller, &at("b", seconds), "c", &with(&["link a"]));
        assert_eq!(CALLERS.map(is_for), expected, "{class:?}");
    }
    // The same outage, ten minutes later.
    let mut backoff = after(None, &fault(Class::Unreachable, None), 100);
    backoff = after(Some(backoff), &fault(Class::Unreachable, None), 701);
    let is_for = |caller| backoff.is_in_force(caller, &at("b", 710), "c", &with(&["link a"]));
    assert_eq!(CALLERS.map(is_for), [true, true, false]);
    assert!(backoff.left(&at("b", 701)) >= Duration::from_secs(225));
}

// Promise: something new on the machine ends each wait, except after a refusal, and resets the count of the outage.
#[test]
fn a_new_network_ends_a_wait() {
    let (before, now) = (with(&["link a"]), at("b", 100));
    for (class, retry_after, is_ended) in [
        (Class::Unreachable, None, true),
        (Class::Later, Some(600), true),
        (Class::Protocol, None, true),
        (Class::Refused, None, false),
    ] {
        let backoff = after(None, &fault(class, retry_after), 100);
        for (surroundings, expected) in [(&before, false), (&with(&["dns 1", "link a"]), is_ended), (&with(&[]), false)]
        {
            assert_eq!(backoff.is_ended_by(surroundings), expected, "{class:?} {surroundings:?}");
            let is_in_force = backoff.is_in_force(Caller::Unit, &now, "c", surroundings);
            assert!(!is_in_force || !expected, "{class:?} {surroundings:?}");
        }
    }
    let first = after(None, &fault(Class::Unreachable, None), 100);
    let (second, third) = (with(&["link a", "dns 1"]), at("b", 900));
    let fault = fault(Class::Unreachable, None);
    let call = FailedCall { fault: &fault, now: &third, surroundings: &second, device_conf: "c" };
    let (backoff, wait) = Backoff::after(Some(first), call, None).unwrap();
    assert_eq!(backoff.outage.unwrap().length(third.since_boot), Duration::ZERO);
    assert!(wait <= Duration::from_millis(500));
}

// Promise: a call that ignored a `Retry-After` and got no answer does not end that wait; a refusal, another
// `Retry-After` and a new network do.
#[test]
fn a_retry_after_stays_in_force() {
    let asked = || after(None, &fault(Class::Later, Some(600)), 100);
    for (class, retry_after, device, is_kept) in [
        (Class::Unreachable, None, with(&[]), true),
        (Class::Garbled, None, with(&[]), true),
        (Class::Protocol, None, with(&[]), true),
        (Class::Later, Some(7), with(&[]), false),
        (Class::Refused, None, with(&[]), false),
        (Class::Unreachable, None, with(&["link a", "dns 1"]), false),
    ] {
        let (now, fault) = (at("b", 200), fault(class, retry_after));
        let call = FailedCall { fault: &fault, now: &now, surroundings: &device, device_conf: "c" };
        let before = asked();
        let refused = Some(Failure::Refused { in_a_row: 1, was_ready: false });
        let (backoff, wait) = Backoff::after(Some(before.clone()), call, refused).unwrap();
        let kept = (before.until_boottime_s, Cause::Asked, before.left(&now));
        assert_eq!((backoff.until_boottime_s, backoff.cause, wait) == kept, is_kept, "{class:?} {retry_after:?}");
    }
}

// Promise: the file is read as it was written, and gives later runs the exit code of the run that wrote it.
#[test]
fn is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path(), None, Lifetime::ThisBoot).unwrap();
    for (class, exit) in [
        (Class::Refused, Exit::Refused),
        (Class::Protocol, Exit::Protocol),
        (Class::Later, Exit::Later),
        (Class::Unreachable, Exit::Later),
    ] {
        let backoff = after(None, &fault(class, None), 100);
        backoff.write(&directory).unwrap();
        let read = Backoff::read(dir.path()).unwrap();
        assert_eq!((&read, read.exit(), read.code), (&backoff, exit, exit.code()));
    }
    Backoff::clear(&directory).unwrap();
    assert_eq!(Backoff::read(dir.path()), None);
}

// Promise: a call that was not made, or was interrupted, causes no wait.
#[test]
fn an_interrupted_call_causes_no_wait() {
    let (now, surroundings) = (at("b", 1), with(&[]));
    let fault = fault(Class::Interrupted, None);
    let call = FailedCall { fault: &fault, now: &now, surroundings: &surroundings, device_conf: "c" };
    assert_eq!(Backoff::after(None, call, None), None);
}
