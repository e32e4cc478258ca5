//! What `azaion-provision device` makes of bad answers.

use std::time::Duration;

use anyhow::ensure;
use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::Run;
use azaion_tests::station::{EMAIL, SERIAL, Station};

use super::{LOGIN, body, every, portal, status, status_with};

const CREATE: (&str, &str) = ("POST", "/users");
/// Asked only where the user exists with a password that nobody knows.
const UPDATE: (&str, &str) = ("PATCH", "/users/password");

/// What is said where the API may have taken the password all the same, and the target keeps it.
const UNKNOWN: &str = "run this again";

/// Route, the answer that is always given, exit code, a part of the message.
type Row = ((&'static str, &'static str), Fault, i32, &'static str);

fn rows() -> Vec<Row> {
    let mfa = body("{\"mfa_required\":true,\"mfa_token\":\"hush\",\"expires_in\":300}");
    vec![
        (LOGIN, status(401, Some(70)), 77, "check the admin's e-mail and password"),
        (LOGIN, status(403, Some(38)), 77, "check the admin's e-mail and password"),
        (LOGIN, status(409, Some(30)), 77, "check the admin's e-mail and password"),
        // Who answers so knows nothing of the admin's password.
        (LOGIN, status(401, None), 76, "not an error of the API"),
        (LOGIN, status(403, None), 76, "not an error of the API"),
        (LOGIN, page(401), 76, "captive portal"),
        (LOGIN, page(403), 76, "captive portal"),
        (LOGIN, page(409), 76, "captive portal"),
        (LOGIN, page(407), 75, "a proxy requires its own login"),
        (LOGIN, mfa, 77, "MFA"),
        (LOGIN, status(400, None), 76, "400"),
        (LOGIN, status(404, None), 76, "URL"),
        (LOGIN, Fault::Redirect("/elsewhere".into()), 76, "redirect"),
        (LOGIN, portal(), 76, "is not JSON"),
        (LOGIN, body("{}"), 76, "token"),
        (LOGIN, Fault::Huge(1_000_000), 76, "larger than"),
        (LOGIN, status_with(429, "Retry-After", "600"), 75, "too many logins"),
        (LOGIN, status_with(401, "Retry-After", "600"), 75, "401"),
        (LOGIN, status(503, None), 75, "temporarily unavailable"),
        (LOGIN, status_with(503, "Retry-After", "Tue, 31 Dec 2199 23:59:59 GMT"), 75, "asks to wait"),
        (LOGIN, status(423, Some(50)), 75, "locked"),
        (LOGIN, status(511, None), 75, "511"),
        (LOGIN, status(407, None), 75, "a proxy requires its own login"),
        (LOGIN, status_with(302, "Location", "https://hush.example/portal"), 76, "redirect"),
        (LOGIN, Fault::Endless, 76, "larger than"),
        (LOGIN, body("[["), 76, "is not JSON"),
        (LOGIN, Fault::DropAfter, 69, "closed before the answer"),
        (LOGIN, Fault::Truncate, 69, "closed before the answer"),
        (LOGIN, Fault::Drip(Duration::from_millis(300)), 69, "no answer in time"),
        (LOGIN, Fault::DropBefore, 69, "closed before the answer"),
        (LOGIN, Fault::Hang, 69, "no answer in time"),
        (CREATE, status(401, None), 77, "ApiAdmin"),
        (CREATE, status(403, None), 77, "ApiAdmin"),
        (CREATE, page(401), 76, "captive portal"),
        (CREATE, page(403), 76, "captive portal"),
        // Not that the user exists.
        (CREATE, page(409), 76, "captive portal"),
        (CREATE, page(407), 75, "a proxy requires its own login"),
        (CREATE, status(400, Some(35)), 76, "400"),
        // By its name and by its number, the role is not what is wrong.
        (CREATE, status(400, None), 76, "no error code says why"),
        (CREATE, page(400), 76, "400"),
        (CREATE, status(404, None), 76, "URL"),
        (CREATE, Fault::Redirect("/elsewhere".into()), 76, "redirect"),
        // A web page for every route: the user was not made, so this must not end with 0.
        (CREATE, portal(), 76, UNKNOWN),
        (CREATE, status(204, None), 76, "204"),
        (CREATE, status(429, None), 75, "too many"),
        (CREATE, status(500, None), 75, UNKNOWN),
        (CREATE, Fault::Hang, 69, UNKNOWN),
        (CREATE, Fault::DropBefore, 69, UNKNOWN),
        (UPDATE, status(404, None), 76, "delete the account"),
        (UPDATE, status(405, None), 76, "delete the account"),
        (UPDATE, status(404, None), 76, "--on-existing recreate"),
        (UPDATE, status(403, None), 77, "ApiAdmin"),
        (UPDATE, status(500, None), 75, UNKNOWN),
    ]
}

fn page(status: u16) -> Fault {
    let body = "<html><body>hush: please log in to the hotel's network</body></html>".to_owned();
    Fault::Answer { status, content_type: "text/html".into(), body, headers: Vec::new() }
}

fn check((route, fault, code, says): &Row) -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    if *route == UPDATE {
        station.api.add_user(EMAIL, "nobody-knows-this-1", "CompanionPC");
    }
    let users = station.api.users();
    station.api.inject(route.0, route.1, fault.clone(), usize::MAX);
    let run = station.device(&["--deadline", "2"])?;
    failed(&run, *code, says)?;
    ensure!(station.api.users() == users, "a user was created");
    ensure!(*says == UNKNOWN || station.password().is_none(), "the target was not restored");
    Ok(())
}

pub(super) fn failed(run: &Run, code: i32, says: &str) -> anyhow::Result<()> {
    let all = run.words();
    ensure!(run.code == Some(code), "ended with {:?}: {all}", run.code);
    ensure!(run.stderr.contains(says), "{says:?} is not in: {all}");
    ensure!(run.stdout.is_empty() && !all.contains("hush"), "the output has a secret: {all}");
    Ok(())
}

// Promise: a web page in the place of the API's answer is never taken for wrong credentials of the admin, neither the password nor
// a token that was given.
#[test]
fn bad_answers_are_not_the_admins_fault() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.put("admin-token", "some-token\n", 0o600)?;
    let (token, rootfs) = (station.path("admin-token").display().to_string(), station.rootfs().display().to_string());
    let (url, ca) = (station.api.url(), station.api.ca_file().display().to_string());
    let with_token = ["--api-url", &url, "--ca-file", &ca, "--admin-token-file", &token];
    let device = ["device", SERIAL, "--rootfs", &rootfs, "--owner", "current"];
    for status in [401, 403] {
        for route in [LOGIN, ("GET", "/users/current")] {
            station.api.inject(route.0, route.1, page(status), usize::MAX);
        }
        let runs = [
            station.provision(&device)?,
            station.provision(&["check"])?,
            station.provision_offline(&[&device[..], &with_token].concat())?,
            station.provision_offline(&[&["check"], &with_token[..]].concat())?,
        ];
        for run in runs {
            let said = run.ended_with(76)?.words();
            ensure!(
                said.contains("captive portal")
                    && !said.contains("e-mail and password")
                    && !said.contains("check the API URL")
                    && !said.contains("ApiAdmin"),
                "{said}"
            );
        }
        station.api.clear_faults();
    }
    Ok(())
}

// Promise: each bad answer leads to its exit code and a message; where the API can't have taken the password, the
// target is as it was.
#[test]
fn bad_answers_to_the_station() {
    every(&rows(), |(route, fault, code, _)| format!("{route:?} {fault:?}, expected {code}"), check);
}
