//! Only the API's own error object is a refusal: every answer of the 401, 403, 407 and 409 family, at first login and
//! at renewal.

use std::time::Duration;

use anyhow::{Context, ensure};
use azaion_agent::device::run::How;
use azaion_tests::dev_api::{Body, Casing, Generation, Intermediary, Options, family};
use azaion_tests::station::EMAIL;

use crate::bad_answers::every;
use crate::virtual_device::{BY_PERSON, BY_PROGRAM, BY_TIMER, READY, TIMER, TOKEN, VirtualDevice};

const LOGIN: &str = "/login";
const REFRESH: &str = "/token/refresh";
/// Age at which a token of 15 minutes is due, and still valid.
const DUE: Duration = Duration::from_mins(11);

/// The contract's exit code for an answer to a login.
fn exit_of(answer: &Intermediary) -> i32 {
    match (answer.status, answer.body, answer.retry_after) {
        (401, _, Some(_)) | (407, ..) => 75,
        (_, Body::Api(10 | 30 | 37 | 38 | 70), _) => 77,
        _ => 76,
    }
}

fn named(answer: &Intermediary) -> String {
    format!("{answer:?}")
}

/// The options of a server; each row has another casing of errors.
fn options(answer: &Intermediary) -> Options {
    let casings = [Casing::Camel, Casing::Snake, Casing::Pascal];
    let row = family().iter().position(|other| other == answer).unwrap_or_default();
    Options { generation: Generation::G2, error_casing: casings[row % casings.len()], ..Options::default() }
}

fn is_not_ready(device: &VirtualDevice, code: i32) -> anyhow::Result<()> {
    let state = (device.field(READY, "ready"), device.field(READY, "code"));
    ensure!(state == (false.into(), code.into()), "ready.json: {:?}", device.station.json(READY));
    ensure!(device.station.json(TOKEN).is_none(), "there is a token");
    let reason = device.field(READY, "reason");
    let reason = reason.as_str().context("ready.json has no reason")?;
    ensure!(!reason.contains("hush"), "the answer is quoted: {reason}");
    Ok(())
}

// Promise: at first login each answer leads to its exit code; permanent failures are requested once.
#[test]
fn refusals_at_first_login() {
    every(&family(), named, |answer| {
        let device = VirtualDevice::new(options(answer), "")?;
        device.station.api.inject("POST", LOGIN, answer.fault(), usize::MAX);
        let code = device.exit(BY_PERSON);
        ensure!(code == exit_of(answer), "ended with {code}");
        is_not_ready(&device, code)?;
        let [logins, _] = device.calls();
        let is_tried_again = code == 75 && answer.retry_after.is_none();
        ensure!((logins > 1) == is_tried_again, "{logins} logins");
        Ok(())
    });
}

// Promise: at a renewal only the API's own refusal invalidates the token, at once; with any other answer the device
// stays ready with its token.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn refusals_at_renewal() {
    every(&family(), named, |answer| {
        let device = VirtualDevice::ready(options(answer), "")?;
        let token = device.station.json(TOKEN);
        device.wait(DUE);
        for path in [LOGIN, REFRESH] {
            device.station.api.inject("POST", path, answer.fault(), usize::MAX);
        }
        let code = device.exit(BY_TIMER);
        if exit_of(answer) == 77 {
            ensure!(code == 77, "ended with {code}");
            return is_not_ready(&device, 77);
        }
        ensure!(code == 0 && device.field(READY, "ready") == true, "ended with {code}");
        ensure!(device.station.json(TOKEN) == token, "the token was replaced or removed");
        Ok(())
    });
}

// Promise: no answer to the refresh alone invalidates a token: a login follows, at once or after the requested wait.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn refusals_of_a_refresh() {
    every(&family(), named, |answer| {
        let device = VirtualDevice::ready(options(answer), "")?;
        let token = device.field(TOKEN, "access_token");
        device.wait(DUE);
        device.station.api.inject("POST", REFRESH, answer.fault(), usize::MAX);
        ensure!(device.exit(BY_TIMER) == 0, "not ready with a valid token");
        device.timer_for(DUE);
        ensure!(device.field(READY, "ready") == true, "ready.json: {:?}", device.station.json(READY));
        ensure!(device.field(TOKEN, "access_token") != token, "no new token");
        Ok(())
    });
}

// Promise: none of these answers to the request for keys, which carries no credentials, is a refusal; the device waits
// for the keys, and keeps a valid token.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn refusals_of_the_keys() {
    const KEYS: &str = "/.well-known/jwks.json";
    every(&family(), named, |answer| {
        let device = VirtualDevice::new(options(answer), "")?;
        device.station.api.inject("GET", KEYS, answer.fault(), usize::MAX);
        // A validation error (400) is not in the family; each of these statuses comes from an intermediary there.
        let code = device.exit(BY_PERSON);
        ensure!(code == 75, "first login: {code}");
        is_not_ready(&device, code)?;
        ensure!(device.calls() == [1, 0], "{:?} calls", device.calls());

        let device = VirtualDevice::ready(options(answer), "")?;
        let token = device.station.json(TOKEN);
        device.wait(DUE);
        device.station.api.inject("GET", KEYS, answer.fault(), usize::MAX);
        let code = device.exit(BY_TIMER);
        ensure!(code == 0 && device.station.json(TOKEN) == token, "renewal: {code}");
        Ok(())
    });
}

/// A schedule of a device with a wrong password, and its duration.
type Schedule = (&'static str, fn(&VirtualDevice) -> anyhow::Result<()>);

const HOUR: Duration = Duration::from_hours(1);

fn each(device: &VirtualDevice, number: u32, pause: Duration, how: How) {
    for _ in 0..number {
        device.exit(how);
        device.wait(pause);
    }
}

/// A person who retries immediately, again and again.
const NOW: How = How { now: true, ..BY_PERSON };

const SCHEDULES: [Schedule; 4] = [
    ("the timer, five hours", |device| {
        device.timer_for(5 * HOUR);
        Ok(())
    }),
    ("a boot every two minutes, an hour", |device| {
        for _ in 0..30 {
            device.reboot()?;
            each(device, 2, TIMER, BY_TIMER);
        }
        Ok(())
    }),
    ("programs that ask for a token every ten seconds, an hour", |device| {
        each(device, 360, Duration::from_secs(10), BY_PROGRAM);
        Ok(())
    }),
    ("a person who says boot --now every ten seconds, half an hour, beside the timer and boots", |device| {
        for _ in 0..10 {
            device.exit(BY_TIMER);
            each(device, 18, Duration::from_secs(10), NOW);
            device.reboot()?;
        }
        Ok(())
    }),
];

// Promise: no schedule of runs, boots and people with a wrong password makes the API count ten consecutive failures, or
// more in 300 s than the five that it permits; the account is never locked, and the correct password works as soon as
// the API allows logins.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn no_schedule_locks_the_account() {
    let generations = [Generation::G1, Generation::G2, Generation::G2b];
    let rows: Vec<_> = SCHEDULES.iter().flat_map(|row| generations.map(|generation| (row, generation))).collect();
    let name = |((name, _), generation): &(&Schedule, Generation)| format!("{generation:?}: {name}");
    every(&rows, name, |((_, schedule), generation)| {
        let options = Options { generation: *generation, limits: true, ..Options::default() };
        let device = VirtualDevice::new(options, "")?;
        device.station.api.set_password(EMAIL, "another-password");
        schedule(&device)?;
        let failures = device.station.api.failures(EMAIL);
        ensure!(failures.total > 0, "the password was never tried");
        ensure!(failures.most_in_a_row < 10 && failures.most_in_300_s <= 5, "{failures:?}");
        ensure!(!device.station.api.is_locked(EMAIL), "the account is locked");
        device.put_conf("another-password")?;
        device.timer_for(Duration::from_mins(5));
        ensure!(device.field(READY, "ready") == true, "with the correct password: {:?}", device.station.json(READY));
        Ok(())
    });
}
