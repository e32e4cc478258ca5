//! Cases that the scenario tests do not distinguish: real directories, and an API with prepared responses.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use azaion_agent::common::clock::SystemClock;
use azaion_agent::common::device_conf::PATH;
use tempfile::TempDir;

use super::*;
use crate::admin_api::Admin;
use crate::admin_api::connection;
use crate::admin_api::login::AdminLogin;
use crate::cli::ApiOptions;
use crate::error::{Error, Result};
use crate::target;
use crate::target::Owner;
use crate::test_server;

const SERIAL: &str = "AZJN-0042";
const EMAIL: &str = "azaion-jetson-0042@azaion.com";
/// Password of an existing file.
const EARLIER: &str = "EarlierPassword00000000000000001";
const LOGIN: &str = "POST /login";
const CREATE: &str = "POST /users";
const UPDATE: &str = "PATCH /users/password";
const DELETE: &str = "DELETE /users/azaion-jetson-0042@azaion.com";
/// Response: the account exists.
const EXISTS: &str = r#"{"ErrorCode":20,"Message":"m"}"#;
/// Response: the credentials are refused.
const REFUSED: &str = r#"{"ErrorCode":70,"Message":"Invalid credentials."}"#;
const TOKEN: &str = r#"{"token":"t"}"#;

/// An expected request, and the status and body of its response.
type Answer = (&'static str, u16, &'static str);

/// Result of a run.
struct Ran {
    outcome: Result<Outcome>,
    calls: Vec<String>,
    /// Content of the targets afterwards.
    confs: Vec<String>,
}

/// Serves the prepared responses, one connection each. Returns the address and the requests.
fn serve(answers: &[Answer]) -> (String, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let mut answers: VecDeque<Answer> = answers.iter().copied().collect();
    let seen = Arc::clone(&calls);
    let url = test_server::serve(move |request| {
        let (_, status, body) = answers.pop_front()?;
        seen.lock().unwrap().push(request.to_owned());
        Some((status, body.to_owned()))
    });
    (url, calls)
}

/// Provisions a device with one directory for each of these files; an empty text means that there is no file.
fn run(confs: &[&str], answers: &[Answer]) -> Ran {
    run_with(OnExisting::Update, confs, answers)
}

fn run_with(on_existing: OnExisting, confs: &[&str], answers: &[Answer]) -> Ran {
    let (api_url, calls) = serve(answers);
    let dir = TempDir::new().unwrap();
    let file = |path: &Path, text: &str| {
        let private = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        private.unwrap().write_all(text.as_bytes()).unwrap();
    };
    let roots: Vec<PathBuf> = (0..confs.len()).map(|number| dir.path().join(number.to_string())).collect();
    for (root, conf) in roots.iter().zip(confs) {
        fs::create_dir_all(root.join("etc/azaion")).unwrap();
        if !conf.is_empty() {
            let api =
                if conf.contains("AZAION_API_URL") { String::new() } else { format!("AZAION_API_URL={api_url}\n") };
            file(&root.join(PATH), &format!("{conf}{api}"));
        }
    }
    let admin_password = dir.path().join("admin");
    file(&admin_password, "p");
    let options = ApiOptions {
        api_url,
        ca_file: None,
        proxy: None,
        admin_email: Some("a@azaion.com".into()),
        admin_password_file: Some(admin_password),
        admin_token_file: None,
        deadline: Some(2),
    };
    let (serial, clock) = (SERIAL.parse().unwrap(), SystemClock);
    let http = connection::http(&connection::api_url(&options).unwrap(), &options).unwrap();
    let targets = target::open_all(roots.iter().map(|root| target::find(root).unwrap()).collect()).unwrap();
    let budget = connection::budget(&options, connection::USUAL_DEADLINE, &clock);
    let login = AdminLogin::new(&options, &clock);
    let job = Job {
        targets: &targets,
        owner: Owner::Current,
        replace: false,
        module_serial: None,
        http: &http,
        budget: &budget,
        admin: Admin::new(&http, &budget, &login),
        clock: &clock,
    };
    let outcome = Provisioning { job: &job, serial: &serial, on_existing, uses_confirmations: false }.run();
    let calls = calls.lock().unwrap().clone();
    let confs = roots.iter().map(|root| fs::read_to_string(root.join(PATH)).unwrap_or_default()).collect();
    Ran { outcome, calls, confs }
}

fn conf(serial: Option<&str>, email: &str) -> String {
    let serial = serial.map_or(String::new(), |serial| format!("AZAION_DEVICE_SERIAL={serial}\n"));
    format!("{serial}AZAION_DEVICE_EMAIL={email}\nAZAION_DEVICE_PASSWORD={EARLIER}\n")
}

// Promise: a file belongs to this device if its e-mail and its serial, if it has one, match; any other file is refused before the first
// request, with the device's name.
#[test]
fn files_of_other_devices_are_refused() {
    for (serial, email, other) in [
        (Some(SERIAL), EMAIL, None),
        (None, EMAIL, None),
        (Some("AZJN-0041"), EMAIL, Some("AZJN-0041")),
        (Some(SERIAL), "azaion-jetson-0041@azaion.com", Some(SERIAL)),
        (None, "azaion-jetson-0041@azaion.com", Some("azaion-jetson-0041@azaion.com")),
    ] {
        let ran = run(&[&conf(serial, email)], &[(LOGIN, 200, TOKEN)]);
        match (ran.outcome, other) {
            (Ok(outcome), None) => assert_eq!((outcome, ran.calls), (Outcome::Reused, vec![LOGIN.to_owned()])),
            (Err(error), Some(other)) => {
                assert_eq!((error.exit(), ran.calls.len()), (Exit::Exists, 0));
                assert!(error.to_string().contains(&format!("the device.conf of {other};")), "{error:?}");
            }
            (outcome, _) => panic!("{serial:?} {email}: {outcome:?}"),
        }
    }
}

// Promise: if the account exists, a password that was not tried before is tried, because a device between the host and the API may have
// repeated the request. A refused password is not tried again, because failed logins lock the account.
#[test]
fn a_password_is_tried_once() {
    let exists = r#"{"errorCode":20}"#;
    let earlier = conf(Some(SERIAL), EMAIL);
    for (conf, answers, expected) in [
        ("", &[(LOGIN, 200, TOKEN), (CREATE, 409, exists), (LOGIN, 200, TOKEN)][..], Outcome::Reused),
        (
            "",
            &[
                (LOGIN, 200, TOKEN),
                (CREATE, 409, exists),
                (LOGIN, 401, REFUSED),
                (UPDATE, 200, ""),
                (LOGIN, 200, TOKEN),
            ],
            Outcome::Updated,
        ),
        (
            earlier.as_str(),
            &[
                (LOGIN, 401, REFUSED),
                (LOGIN, 200, TOKEN),
                (CREATE, 409, exists),
                (UPDATE, 200, ""),
                (LOGIN, 200, TOKEN),
            ],
            Outcome::Updated,
        ),
        (&earlier, &[(LOGIN, 401, REFUSED), (LOGIN, 200, TOKEN), (CREATE, 201, "")], Outcome::Created),
    ] {
        let ran = run(&[conf], answers);
        assert_eq!(ran.calls, answers.iter().map(|(call, ..)| *call).collect::<Vec<_>>());
        assert_eq!(ran.outcome.unwrap(), expected);
        assert!(ran.confs[0].contains(SERIAL));
    }
}

// Promise: if two targets have different passwords, each is tried, and both targets get the one that works.
#[test]
fn one_password_for_all_targets() {
    let earlier = conf(Some(SERIAL), EMAIL);
    let other = earlier.replace(EARLIER, "AnotherPassword00000000000000001");
    for (confs, logins, works) in [
        ([&earlier, &other], &[200][..], EARLIER),
        ([&earlier, &other], &[401, 200], "AnotherPassword00000000000000001"),
        ([&earlier, &earlier], &[200], EARLIER),
    ] {
        let body = |status| if status == 200 { TOKEN } else { REFUSED };
        let answers: Vec<Answer> = logins.iter().map(|&status| (LOGIN, status, body(status))).collect();
        let ran = run(&confs.map(String::as_str), &answers);
        assert_eq!((ran.outcome.unwrap(), ran.calls.len()), (Outcome::Reused, logins.len()));
        let line = format!("AZAION_DEVICE_PASSWORD={works}\n");
        assert!(ran.confs.iter().all(|conf| conf.contains(&line)), "{works}");
    }
}

// Promise: only a refusal means that the password is wrong; after any other response nothing is changed, and an account with a second
// factor does not get another password.
#[test]
fn only_a_refusal_means_a_wrong_password() {
    let before = conf(Some(SERIAL), EMAIL);
    for (status, body, exit) in [
        (400, "", Exit::Protocol),
        (302, "", Exit::Protocol),
        (200, "{}", Exit::Protocol),
        (401, "", Exit::Protocol),
        (403, "<html>", Exit::Protocol),
        (409, r#"{"code":30}"#, Exit::Protocol),
        (200, r#"{"mfa_required":true}"#, Exit::Refused),
    ] {
        let ran = run(&[&before], &[(LOGIN, status, body)]);
        assert_eq!(ran.outcome.unwrap_err().exit(), exit, "{status} {body}");
        assert_eq!(ran.calls, [LOGIN]);
        assert!(ran.confs[0].starts_with(&before));
    }
}

// Promise: an update succeeds even if the API is too busy for a login afterwards; a refused login makes it fail.
#[test]
fn an_update_is_checked_by_a_login() {
    for (status, body, exit) in [
        (200, TOKEN, None),
        (503, "", None),
        (401, REFUSED, Some(Exit::Refused)),
        (401, "", Some(Exit::Protocol)),
        (404, "", Some(Exit::Protocol)),
    ] {
        let answers =
            [(LOGIN, 401, REFUSED), (LOGIN, 200, TOKEN), (CREATE, 409, ""), (UPDATE, 204, ""), (LOGIN, status, body)];
        let ran = run(&[&conf(Some(SERIAL), EMAIL)], &answers);
        assert_eq!(ran.outcome.as_ref().err().map(Error::exit), exit, "{status} {body}");
        assert_eq!(ran.calls.len(), answers.len());
    }
}

// Promise: after a 400 without an error code, the request is repeated once with the role's number; one with an error code is final. The
// role of an account created with the number is checked.
#[test]
fn the_role_is_sent_by_name_or_by_number() {
    let length = r#"{"errorCode":35,"message":"m"}"#;
    let problem = r#"{"type":"about:blank","title":"One or more validation errors occurred.","status":400}"#;
    let other = "eyJhbGciOiJFUzI1NiJ9.eyJyb2xlIjoiQXBpQWRtaW4ifQ.AA";
    let other = format!("{{\"token\":\"{other}\"}}").leak() as &str;
    for (answers, exit) in [
        (&[(CREATE, 400, problem), (CREATE, 201, ""), (LOGIN, 200, TOKEN)][..], None),
        (&[(CREATE, 400, ""), (CREATE, 200, ""), (LOGIN, 302, "")], Some(Exit::Protocol)),
        (&[(CREATE, 400, ""), (CREATE, 200, ""), (LOGIN, 401, REFUSED)], Some(Exit::Refused)),
        (&[(CREATE, 400, ""), (CREATE, 200, ""), (LOGIN, 200, other)], Some(Exit::Protocol)),
        (&[(CREATE, 400, problem), (CREATE, 400, problem)], Some(Exit::Protocol)),
        (&[(CREATE, 400, problem), (CREATE, 409, EXISTS), (LOGIN, 200, TOKEN)], None),
        (&[(CREATE, 400, length)], Some(Exit::Protocol)),
        (&[(CREATE, 404, "")], Some(Exit::Protocol)),
    ] {
        let answers = [&[(LOGIN, 200, TOKEN)][..], answers].concat();
        let ran = run(&[""], &answers);
        assert_eq!(ran.outcome.as_ref().err().map(Error::exit), exit, "{answers:?}");
        let calls: Vec<_> = answers.iter().map(|(call, ..)| *call).collect();
        assert_eq!(ran.calls[..calls.len()], calls);
        // A created account keeps its password.
        let is_created = answers.iter().any(|&(call, status, _)| call == CREATE && status < 300);
        assert_eq!(ran.confs[0].contains(SERIAL), exit.is_none() || is_created, "{answers:?}");
    }
}

// Promise: `recreate` deletes the account and creates it again, except if the password in a target works, even in a file that is not used
// for another reason, and except if the account is disabled; in doubt, nothing is deleted.
#[test]
fn only_a_lost_account_is_recreated() {
    let ours = conf(Some(SERIAL), EMAIL);
    let doubtful = ours.replace(EARLIER, "of-another-form");
    let disabled = r#"{"ErrorCode":38,"Message":"m"}"#;
    let (admin, exists) = ((LOGIN, 200, TOKEN), (CREATE, 409, EXISTS));
    let (refused, made, lets_in) = ((LOGIN, 401, REFUSED), (CREATE, 201, ""), (LOGIN, 200, TOKEN));
    let elsewhere = doubtful.clone() + "AZAION_API_URL=https://other.example\n";
    let gone = (DELETE, 409, r#"{"errorCode":10,"message":"m"}"#);
    for (conf, answers, expected) in [
        ("", &[admin, exists, refused, (DELETE, 204, ""), made, lets_in][..], Ok(Outcome::Created)),
        ("", &[admin, exists, refused, (DELETE, 204, ""), made, refused], Err(Exit::Refused)),
        ("", &[admin, exists, refused, gone, made, lets_in], Ok(Outcome::Created)),
        ("", &[admin, exists, (LOGIN, 409, disabled)], Err(Exit::Refused)),
        ("", &[admin, exists, refused, (DELETE, 502, "")], Err(Exit::Later)),
        (&ours, &[refused, admin, exists, (DELETE, 200, ""), made, lets_in], Ok(Outcome::Created)),
        (&ours, &[refused, admin, exists, (DELETE, 404, "")], Err(Exit::Protocol)),
        (&ours, &[refused, admin, exists, (DELETE, 403, "")], Err(Exit::Refused)),
        (&ours, &[refused, admin, exists, (DELETE, 200, ""), exists, refused], Err(Exit::Refused)),
        (&ours, &[refused, admin, exists, (DELETE, 200, ""), exists, lets_in], Ok(Outcome::Created)),
        (&ours, &[lets_in], Ok(Outcome::Reused)),
        (&ours, &[(LOGIN, 403, "<html>")], Err(Exit::Protocol)),
        (&ours, &[(LOGIN, 409, disabled)], Err(Exit::Refused)),
        (&doubtful, &[refused, admin, exists, refused, (DELETE, 200, ""), made, lets_in], Ok(Outcome::Created)),
        (&doubtful, &[lets_in], Err(Exit::Exists)),
        (&doubtful, &[(LOGIN, 409, disabled)], Err(Exit::Refused)),
        (&elsewhere, &[], Err(Exit::Exists)),
    ] {
        let ran = run_with(OnExisting::Recreate, &[conf], answers);
        let calls: Vec<_> = answers.iter().map(|(call, ..)| *call).collect();
        assert_eq!(ran.calls[..calls.len()], calls, "{answers:?}");
        let deleted = ran.calls.iter().any(|call| call == DELETE);
        assert_eq!(deleted, calls.contains(&DELETE), "{answers:?}");
        assert_eq!(ran.outcome.as_ref().map_err(Error::exit).copied(), expected, "{answers:?}");
    }
}

// Promise: if an earlier request may still create the account after its deletion, or another host may have created it, the password stays
// in the target until a login decides. (Two traces of the model check.)
#[test]
fn a_password_that_may_be_set_stays() {
    let (admin, exists, refused) = ((LOGIN, 200, TOKEN), (CREATE, 409, EXISTS), (LOGIN, 401, REFUSED));
    for (answers, exit) in [
        (&[admin, (CREATE, 500, ""), exists, refused, (DELETE, 502, "")][..], Exit::Later),
        // The last login gets no response.
        (&[admin, exists, refused, (DELETE, 200, ""), exists], Exit::Unreachable),
    ] {
        let ran = run_with(OnExisting::Recreate, &[""], answers);
        assert_eq!(ran.outcome.as_ref().map_err(Error::exit).copied(), Err(exit), "{answers:?}");
        assert!(ran.confs[0].contains("AZAION_DEVICE_PASSWORD="), "{answers:?}");
    }
}

// Promise: if no password can be set, the message names the account, the request that deletes it, and the option that does both.
#[test]
fn advice_without_a_password_route() {
    let lost = [(LOGIN, 200, TOKEN), (CREATE, 409, EXISTS), (LOGIN, 401, REFUSED), (UPDATE, 405, "")];
    let line = run(&[""], &lost).outcome.unwrap_err().line();
    for part in [
        "--on-existing recreate",
        "delete the account azaion-jetson-0042",
        "DELETE http://127.0.0.1:",
        "another id",
        "405",
    ] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}

// Promise: each outcome has a fixed name in text and JSON.
#[test]
fn outcomes_have_fixed_names() {
    let outcomes = [Outcome::Created, Outcome::Reused, Outcome::Updated, Outcome::Assigned];
    assert_eq!(outcomes.map(|outcome| outcome.to_string()), ["created", "reused", "updated", "assigned"]);
    assert_eq!(
        outcomes.map(|outcome| serde_json::to_value(outcome).unwrap()),
        ["created", "reused", "updated", "assigned"]
    );
}
