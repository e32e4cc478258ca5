//! Tables of bad answers of the server, and how agent and host tool handle each.

mod answers;
mod below_http;
mod host;
mod later;
mod tokens;

use std::ops::RangeInclusive;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use azaion_agent::common::clock::Timestamp;
use azaion_tests::dev_api::{BadToken, Fault, Generation, Options};
use azaion_tests::programs::Run;
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::Value;

use answers::{bodies, connections, headers, key_sets, pages, statuses};
use tokens::{older_tokens, tokens};

const LOGIN: (&str, &str) = ("POST", "/login");
const KEYS: (&str, &str) = ("GET", "/.well-known/jwks.json");
const DEVICE_CONF: &str = "rootfs/etc/azaion/device.conf";
const PASSWORD: &str = "device-password-0042";

/// One bad answer to the agent, repeated for every request.
#[derive(Clone)]
struct Row {
    route: (&'static str, &'static str),
    fault: Fault,
    code: i32,
    /// A part of the message.
    says: &'static str,
    logins: RangeInclusive<usize>,
    generation: Generation,
    policy: &'static str,
}

/// An answer to the login: permanent failures are requested once, others at most as often as the API allows.
fn login(fault: Fault, code: i32, says: &'static str) -> Row {
    let logins = if code == 75 { 1..=10 } else { 1..=1 };
    Row { route: LOGIN, fault, code, says, logins, generation: Generation::G2, policy: "" }
}

/// An answer to the request for keys: however often that is repeated, one login of the ten a minute is used.
fn keys(fault: Fault, code: i32, says: &'static str) -> Row {
    Row { route: KEYS, logins: 1..=1, ..login(fault, code, says) }
}

fn status(code: u16, error: Option<u32>) -> Fault {
    Fault::Status { code, error, headers: Vec::new() }
}

fn status_with(code: u16, name: &str, value: &str) -> Fault {
    Fault::Status { code, error: None, headers: vec![(name.into(), value.into())] }
}

fn answer(content_type: &str, body: impl Into<String>) -> Fault {
    Fault::Answer { status: 200, content_type: content_type.into(), body: body.into(), headers: Vec::new() }
}

/// A body with the correct content type.
fn body(body: &str) -> Fault {
    answer("application/json", body)
}

fn portal() -> Fault {
    answer("text/html", "<html><body>hush: please log in to the hotel's network</body></html>")
}

fn token(bad: BadToken, code: i32, says: &'static str) -> Row {
    login(Fault::Token(bad), code, says)
}

/// Creates a host with a device's device.conf, a matching user, and a policy.
fn unit(options: Options, policy: &str) -> anyhow::Result<Station> {
    let station = Station::new(options)?;
    station.api.add_user(EMAIL, PASSWORD, "CompanionPC");
    put_conf(&station, PASSWORD, &station.api.url())?;
    station.put_policy(policy)?;
    Ok(station)
}

fn put_conf(station: &Station, password: &str, url: &str) -> anyhow::Result<()> {
    // A certificate that has expired before is never accepted.
    let now = Timestamp::from(SystemTime::now());
    let lines = format!(
        "AZAION_DEVICE_SERIAL={SERIAL}\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={password}\nAZAION_API_URL={url}\n\
         AZAION_PROVISIONED_AT={now}\n"
    );
    station.put(DEVICE_CONF, lines, 0o600)
}

/// Runs `boot` briefly and checks that it ends not ready in exactly this way, or ready with 0.
fn boot(station: &Station, options: &[&str], code: i32, says: &str) -> anyhow::Result<Run> {
    let run = station.agent(&[&["boot", "--deadline", "2"], options].concat())?.ended_with(code)?;
    let ready = station.json("run/azaion/ready.json").context("there is no ready.json")?;
    let has = |file: &str| station.inside(file).exists();
    if code == 0 {
        ensure!(ready.get("ready") == Some(&true.into()) && has("run/azaion/token.json"), "not ready: {ready}");
        return Ok(run);
    }
    let says_so = ready.get("ready") == Some(&false.into()) && ready.get("code") == Some(&code.into());
    ensure!(says_so, "ready.json: {ready}");
    ensure!(!has("run/azaion/token.json") && !has("run/azaion/refresh.json"), "there is a token");
    let reason = ready.get("reason").and_then(Value::as_str).context("ready.json has no reason")?;
    // The deadline may cut the last of several attempts to read an answer that is too large.
    let is_cut = says == "larger than" && reason.contains("no answer in time");
    let is_said = reason.contains(says) || is_cut;
    ensure!(is_said && run.stderr.contains(says), "{says:?} is not in {reason:?} or\n{}", run.stderr);
    ensure!(!format!("{reason}{}", run.words()).contains("hush"), "the answer is quoted: {}", run.stderr);
    Ok(run)
}

fn check(row: &Row) -> anyhow::Result<()> {
    let station = unit(Options { generation: row.generation, ..Options::default() }, row.policy)?;
    station.api.inject(row.route.0, row.route.1, row.fault.clone(), usize::MAX);
    boot(&station, &[], row.code, row.says)?;
    let logins = station.api.calls("POST", "/login");
    ensure!(row.logins.contains(&logins), "{logins} logins, not {:?}", row.logins);
    let elsewhere = station.api.requests().into_iter().find(|call| ![KEYS.1, LOGIN.1].contains(&call.path.as_str()));
    ensure!(elsewhere.is_none(), "another call was made: {elsewhere:?}");
    Ok(())
}

/// Runs all rows, several at a time since most of them wait, and reports all failures together.
pub(crate) fn every<T: Sync>(
    rows: &[T],
    name: impl Fn(&T) -> String + Sync,
    check: impl Fn(&T) -> anyhow::Result<()> + Sync,
) {
    const AT_ONCE: usize = 24;
    let wrong = |row| check(row).err().map(|error| format!("{}: {error:#}", name(row)));
    let share = |start| rows.iter().skip(start).step_by(AT_ONCE).filter_map(wrong).collect::<Vec<String>>();
    let share = &share;
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|start| scope.spawn(move || share(start))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|_| vec!["a row panicked".into()])).collect()
    });
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

fn described(row: &Row) -> String {
    let fault: String = format!("{:?}", row.fault).chars().take(150).collect();
    format!("{:?} {} {fault}, expected {}", row.generation, row.route.1, row.code)
}

// Promise: each bad answer leads to its exit code, an understandable reason, no token, and no unnecessary call.
#[test]
fn bad_answers_of_the_login() {
    every(&[statuses(), headers(), pages(), bodies(), connections()].concat(), described, check);
}

// Promise: keys that are unreachable or unusable lead to their exit code, and no login is used before there are keys.
#[test]
fn bad_answers_of_the_keys() {
    every(&key_sets(), described, check);
}

// Promise: a token that fails validation is refused with 76 after one login, and is never cached.
#[test]
fn bad_answers_with_bad_tokens() {
    every(&[tokens(), older_tokens()].concat(), described, check);
}
