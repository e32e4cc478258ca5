//! The runs after a refusal, and the actual refusals of each generation of the API.

use anyhow::ensure;
use azaion_tests::dev_api::{Generation, Options};
use azaion_tests::station::{EMAIL, Station};

use super::{LOGIN, PASSWORD, boot, every, put_conf, status, status_with, unit};

const WRONG_PASSWORD: &str = "some-other-password-1";

fn logins(station: &Station) -> usize {
    station.api.calls(LOGIN.0, LOGIN.1)
}

// Promise: after refused credentials no later run logs in; `boot --now`, or a new device.conf, leads to exactly one
// more login.
#[test]
fn bad_answers_that_refuse_are_not_asked_for_again() {
    let refusals = [(409, Some(30)), (409, Some(38)), (401, Some(70)), (403, Some(70))];
    let check = |(code, error): &(u16, Option<u32>)| {
        let station = unit(Options::default(), "")?;
        station.api.inject(LOGIN.0, LOGIN.1, status(*code, *error), usize::MAX);
        boot(&station, &[], 77, &code.to_string())?;
        station.api.forget_requests();
        boot(&station, &[], 77, &code.to_string())?;
        ensure!(station.api.requests().is_empty(), "the second run called the API");
        boot(&station, &["--now"], 77, &code.to_string())?;
        ensure!(logins(&station) == 1, "boot --now logged in {} times", logins(&station));
        station.api.clear_faults();
        put_conf(&station, PASSWORD, &station.api.url())?;
        boot(&station, &[], 0, "")?;
        ensure!(logins(&station) == 2, "{} logins", logins(&station));
        ensure!(!station.inside("run/azaion/backoff.json").exists(), "backoff.json is still there");
        Ok(())
    };
    every(&refusals, |(code, error)| format!("{code} {error:?}"), check);
}

// Promise: a Retry-After beyond the deadline applies to later runs too, until device.conf has changed or `boot --now`.
#[test]
fn bad_answers_that_ask_to_wait_are_obeyed() {
    let check = |code: &u16| {
        let station = unit(Options::default(), "")?;
        station.api.inject(LOGIN.0, LOGIN.1, status_with(*code, "Retry-After", "600"), usize::MAX);
        boot(&station, &[], 75, &code.to_string())?;
        station.api.forget_requests();
        boot(&station, &[], 75, "boot --now")?;
        ensure!(station.api.requests().is_empty(), "the second run called the API");
        boot(&station, &["--now"], 75, &code.to_string())?;
        ensure!(logins(&station) == 1, "boot --now logged in {} times", logins(&station));
        put_conf(&station, PASSWORD, &station.api.url())?;
        boot(&station, &[], 75, &code.to_string())?;
        ensure!(logins(&station) == 2, "a new device.conf is not tried");
        Ok(())
    };
    every(&[401, 423, 429, 503], u16::to_string, check);
}

/// Makes five logins with a wrong password, the API's limit for five minutes.
fn fail_five_times(station: &Station) -> anyhow::Result<()> {
    put_conf(station, WRONG_PASSWORD, &station.api.url())?;
    (0..5).try_for_each(|_| boot(station, &["--now"], 77, "").map(drop))
}

fn limited(station: &Station) -> anyhow::Result<()> {
    fail_five_times(station)?;
    put_conf(station, PASSWORD, &station.api.url())
}

fn locked(station: &Station) -> anyhow::Result<()> {
    fail_five_times(station)?;
    station.api.shift_clock(301);
    limited(station)?;
    ensure!(station.api.is_locked(EMAIL), "the account is not locked");
    Ok(())
}

type Prepare = fn(&Station) -> anyhow::Result<()>;
/// A fault, how the test creates it, and how the agent handles it in G1, G2 and G2b.
type Trouble = (&'static str, Prepare, [(i32, &'static str); 3]);

const REFUSED: (i32, &str) = (77, "credentials are refused");
const TROUBLES: [Trouble; 6] = [
    (
        "wrong password",
        |station| put_conf(station, WRONG_PASSWORD, &station.api.url()),
        [(77, "password is wrong"), (77, "password is wrong"), REFUSED],
    ),
    (
        "no such user",
        |station| {
            station.api.delete_user(EMAIL);
            Ok(())
        },
        [(77, "no account with this e-mail"), (77, "no account with this e-mail"), REFUSED],
    ),
    (
        "disabled",
        |station| {
            station.api.disable(EMAIL, true);
            Ok(())
        },
        [(77, "account is disabled"), (77, "account is disabled"), REFUSED],
    ),
    ("limited", limited, [(75, "too many logins"), (75, "too many logins"), (75, "401")]),
    ("locked", locked, [(75, "temporarily locked"), (75, "temporarily locked"), (75, "401")]),
    (
        "second factor",
        |station| {
            station.api.require_mfa(EMAIL);
            Ok(())
        },
        [(0, ""), (77, "second factor"), (77, "second factor")],
    ),
];

// Promise: the agent recognises the refusals of all three generations in their own form.
#[test]
fn bad_answers_of_each_generation() {
    let generations = [Generation::G1, Generation::G2, Generation::G2b];
    let rows = TROUBLES.iter().flat_map(|(name, prepare, expected)| {
        let each = generations.into_iter().zip(expected);
        each.map(move |(generation, (code, says))| (*name, *prepare, generation, *code, *says))
    });
    let check = |(_, prepare, generation, code, says): &(&str, Prepare, Generation, i32, &str)| {
        let station = unit(Options { generation: *generation, limits: true, ..Options::default() }, "")?;
        prepare(&station)?;
        station.api.forget_requests();
        boot(&station, &[], *code, says)?;
        ensure!(logins(&station) == 1, "{} logins", logins(&station));
        Ok(())
    };
    every(&rows.collect::<Vec<_>>(), |(name, _, generation, ..)| format!("{name} under {generation:?}"), check);
}
