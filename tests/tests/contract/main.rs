//! Tests `docs/admin-api.yaml`: against the development API, by schemathesis, in combinations of the API's unknowns;
//! against how both programs classify answers; and that each statement says how certain it is.
//!
//! Schemathesis is installed from `PyPI`, in the versions of `tests/data/contract-requirements.txt`, into a virtual
//! environment below the target directory.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod combinations;
mod document;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use azaion_agent::api::fault::{Class, class_of};
use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, Request};
use azaion_tests::programs::{output, target_dir, workspace};
use azaion_tests::record;
use azaion_tests::station::Station;
use combinations::Combination;
use serde_json::{Value, json};

/// Random inputs per call for a few combinations, and for all; in addition to the cases that follow from the document.
const EXAMPLES: [&str; 2] = ["8", "2"];

/// An existing device with a number in the server's form and the admin's password.
const DEVICE: &str = "azj-0041@azaion.com";

/// If set to `all`, every combination is tested, otherwise a few that cover each pair of choices.
const WHICH: &str = "AZAION_COMBINATIONS";

/// Returns the virtual environment with schemathesis, created once.
fn environment() -> anyhow::Result<PathBuf> {
    let (venv, wanted) = (target_dir().join("contract"), workspace().join("tests/data/contract-requirements.txt"));
    let made = venv.join("requirements.txt");
    if fs::read(&made).ok() != Some(fs::read(&wanted)?) {
        output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = venv.join("bin/pip");
        output(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&wanted))?;
        fs::copy(&wanted, &made)?;
    }
    Ok(venv)
}

/// Returns the answer to a login by the call that the document begins with.
fn log_in(station: &Station, email: &str) -> anyhow::Result<Value> {
    let body = json!({ "email": email, "password": ADMIN_PASSWORD }).to_string();
    station.put("login.json", body, 0o600)?;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "-H", "content-type: application/json", "--cacert"]);
    curl.arg(station.api.ca_file()).arg("--data-binary").arg(format!("@{}", station.path("login.json").display()));
    Ok(serde_json::from_str(&output(curl.arg(format!("{}/login", station.api.url())))?)?)
}

/// The configuration of schemathesis for one operation: after a user of another form each call fails, as documented.
const CONFIG: &str = r#"
[[operations]]
include-operation-id = "addDevice"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", "500"]
"#;

/// The calls that must succeed at least once, if the server has them: random inputs of schemathesis never do.
const SUCCEED: [&str; 3] = ["/login", "/token/refresh", "/sessions/mission"];

/// Runs schemathesis with inputs that the document allows and forbids for a server of this form.
fn conforms(document: &Value, of: Combination, examples: &str, venv: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    let station = Station::new(of.options())?;
    station.api.add_user(DEVICE, ADMIN_PASSWORD, "CompanionPC");
    let (of_admin, of_device) = (log_in(&station, ADMIN_EMAIL)?, log_in(&station, DEVICE)?);
    let field = |name| of.casing.spell(name);
    let token = of_admin[field("token")].as_str().context("a token")?;
    record::secret(token)?;
    // In a file, because all users can read the command line.
    station.put("schemathesis.toml", format!("headers = {{ Authorization = \"Bearer {token}\" }}\n{CONFIG}"), 0o600)?;
    let known = [
        ("Credentials", json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD })),
        ("RefreshRequest", json!({ field("refreshToken"): of_device[field("refreshToken")] })),
        ("NewMission", json!({ "aircraft_id": station.api.id_of(DEVICE) })),
    ];
    let document = document::with_examples(document::variant(document, of)?, known);
    station.put("admin-api.json", document.to_string(), 0o600)?;
    station.api.forget_requests();
    let mut run = Command::new(venv.join("bin/st"));
    run.current_dir(station.path("")).args(["--config-file", "schemathesis.toml", "run", "admin-api.json"]);
    run.args(["--url", &station.api.url(), "--tls-verify"]).arg(station.api.ca_file());
    run.args(["--checks", "all", "--phases", "coverage,fuzzing", "--continue-on-failure"]);
    run.args(["--max-examples", examples, "--seed", "1", "--no-color"]);
    let said = output(&mut run)?;
    let last = said.lines().rev().find(|line| line.contains("generated")).unwrap_or_default();
    println!("{of}: {}, {} s", last.trim(), began.elapsed().as_secs());
    ensure!(last.contains("generated"), "no call was made:\n{said}");
    for path in SUCCEED.into_iter().filter(|path| document["paths"].get(path).is_some()) {
        let is_success = |request: &Request| request.path == path && request.status == Some(200);
        ensure!(station.api.requests().iter().any(is_success), "no POST {path} succeeded");
    }
    Ok(())
}

/// Returns the errors of all combinations, each with its name. Each has its own server, so as many run at once as there
/// are processors.
fn failures(document: &Value, all: &[Combination], examples: &str, venv: &Path) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(&of) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = conforms(document, of, examples, venv) {
                failures.push(format!("{of}: {error:#}"));
            }
        }
        failures
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    })
}

// Promise: the development API, against which all other tests run, matches the document in each possible form: status
// codes, answer bodies, headers, methods; it refuses what the document does not allow, and does nothing without a
// token.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn the_development_api_is_as_documented() -> anyhow::Result<()> {
    let venv = environment().context("cannot install schemathesis; is PyPI reachable, and python3-venv installed?")?;
    let is_all = std::env::var(WHICH).is_ok_and(|which| which == "all");
    let (combinations, examples) =
        if is_all { (combinations::all(), EXAMPLES[1]) } else { (combinations::pairwise(), EXAMPLES[0]) };
    let failures = failures(&document::read()?, &combinations, examples, &venv);
    ensure!(failures.is_empty(), "{} of {}:\n{}", failures.len(), combinations.len(), failures.join("\n"));
    Ok(())
}

// Promise: each operation, request body, response and schema of the document says how certain it is, in one of three
// words; the check finds one that does not.
#[test]
fn each_statement_says_how_sure_it_is() -> anyhow::Result<()> {
    let mut document = document::read()?;
    assert_eq!(document::without_status(&document), [""; 0]);
    assert_eq!(document::odd_statuses(&document, ""), [""; 0]);
    for (at, name) in [
        ("/paths/~1login/post", "post /login"),
        ("/paths/~1users/post/requestBody", "post /users requestBody"),
        ("/paths/~1users/post/responses/201", "post /users 201"),
        ("/components/schemas/Revocation", "schemas Revocation"),
    ] {
        let part = document.pointer_mut(at).and_then(Value::as_object_mut).context(at)?;
        let status = part.insert("x-status".to_owned(), "sure".into()).context(at)?;
        assert!(document::without_status(&document).contains(&name.to_owned()), "{at}");
        assert_eq!(document::odd_statuses(&document, ""), [format!("{at}/x-status").replace("~1", "/")]);
        document.pointer_mut(at).context(at)?["x-status"] = status;
    }
    Ok(())
}

fn named(class: Class) -> &'static str {
    match class {
        Class::Later => "later",
        Class::Protocol => "unacceptable",
        Class::Refused => "refused",
        Class::Unreachable | Class::Garbled | Class::Interrupted => "no answer",
    }
}

// Promise: both programs classify an answer as the document says (`x-class`), by status, code, and `Retry-After`.
#[test]
fn answers_mean_what_the_document_says() -> anyhow::Result<()> {
    let document = document::read()?;
    let mut seen = 0;
    for (at, operation) in document::operations(&document) {
        for (status, response) in document::entries(&operation["responses"]) {
            let response = document::resolved(&document, response);
            let status: u16 = status.parse()?;
            if status < 300 {
                continue;
            }
            let is = |code, waits| named(class_of(status, code, waits));
            let at = format!("{at} {status}");
            assert_eq!(response["x-class"], is(None, false), "{at}");
            let waits = response.get("x-class-with-retry-after").unwrap_or(&response["x-class"]);
            assert_eq!(*waits, is(None, true), "{at} with Retry-After");
            for (code, class) in document::entries(&response["x-class-by-code"]) {
                assert_eq!(*class, is(Some(code.parse()?), false), "{at} with code {code}");
            }
            seen += 1;
        }
    }
    ensure!(seen > 20, "only {seen} answers are documented");
    Ok(())
}
