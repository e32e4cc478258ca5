//! `docs/admin-api.yaml` against the development API, by schemathesis, and against what both programs make of answers.
//!
//! Schemathesis comes from `PyPI`, in the versions of `tests/data/contract-requirements.txt`, into a virtual environment below
//! the target folder.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use azaion_agent::fault::{Class, class_of};
use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, Casing, Generation, Hashing, Options};
use azaion_tests::programs::{output, target_dir, workspace};
use azaion_tests::record;
use azaion_tests::station::Station;
use serde_json::{Value, json};

/// Inputs for each call; the kinds that the document itself leads to come on top.
const EXAMPLES: &str = "40";

fn document() -> PathBuf {
    workspace().join("docs/admin-api.yaml")
}

/// The virtual environment with schemathesis, made once.
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

/// A token of the admin, by the call that the document begins with.
fn admin_token(station: &Station) -> anyhow::Result<String> {
    let body = json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD }).to_string();
    station.put("login.json", body, 0o600)?;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "-H", "content-type: application/json", "--cacert"]);
    curl.arg(station.api.ca_file()).arg("--data-binary").arg(format!("@{}", station.path("login.json").display()));
    let answer: Value = serde_json::from_str(&output(curl.arg(format!("{}/login", station.api.url())))?)?;
    let token = answer["token"].as_str().context("a token")?.to_owned();
    record::secret(&token)?;
    Ok(token)
}

/// Has schemathesis try everything that the document says, and that it does not allow.
fn conforms(generation: Generation, venv: &Path) -> anyhow::Result<()> {
    let options =
        Options { generation, casing: Casing::Camel, hashing: Hashing::Cheap, limits: false, ..Options::default() };
    let station = Station::new(options)?;
    // Not on the command line, which all can read.
    station.put("schemathesis.toml", "headers = { Authorization = \"Bearer ${ADMIN_TOKEN}\" }\n", 0o600)?;
    let mut run = Command::new(venv.join("bin/st"));
    run.current_dir(station.path("")).args(["--config-file", "schemathesis.toml", "run"]).arg(document());
    run.args(["--url", &station.api.url(), "--tls-verify"]).arg(station.api.ca_file());
    run.args(["--checks", "all", "--phases", "examples,coverage,fuzzing", "--continue-on-failure"]);
    run.args(["--max-examples", EXAMPLES, "--seed", "1", "--no-color"]);
    if generation == Generation::G1 {
        // Not there, whatever the method.
        run.args(["--exclude-path", "/token/refresh", "--exclude-path", "/.well-known/jwks.json"]);
        run.args(["--exclude-path-regex", "^/sessions/"]);
    }
    let said = output(run.env("ADMIN_TOKEN", admin_token(&station)?))?;
    let last = said.lines().rev().find(|line| line.contains("generated")).unwrap_or_default();
    println!("{generation:?}: {}", last.trim());
    ensure!(last.contains("generated"), "nothing was tried:\n{said}");
    Ok(())
}

// Promise: the development API, which all else here is tested against, is what the document says, in each generation: status
// codes, forms of answers, headers, methods; what the document does not allow is refused, without a token nothing is done.
#[test]
fn the_development_api_is_as_documented() -> anyhow::Result<()> {
    let venv = environment().context("schemathesis can't be installed; is PyPI in reach, is python3-venv there?")?;
    for generation in [Generation::G1, Generation::G2, Generation::G2b] {
        conforms(generation, &venv).with_context(|| format!("{generation:?}"))?;
    }
    Ok(())
}

fn named(class: Class) -> &'static str {
    match class {
        Class::Later => "later",
        Class::Unacceptable => "unacceptable",
        Class::Refused => "refused",
        Class::Unreachable | Class::Garbled | Class::Interrupted => "no answer",
    }
}

// Promise: what the document says of an answer (`x-class`) is what both programs make of it, by status, code, and whether it asks
// to wait.
#[test]
fn answers_mean_what_the_document_says() -> anyhow::Result<()> {
    let convert = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let text = output(Command::new("python3").args(["-c", convert]).arg(document()))?;
    let document: Value = serde_json::from_str(&text)?;
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().context("paths")? {
        for (method, operation) in methods.as_object().context("methods")? {
            for (status, response) in operation["responses"].as_object().context("responses")? {
                let pointer = response["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
                let response = pointer.map_or(response, |pointer| document.pointer(pointer).expect("it is there"));
                let status: u16 = status.parse()?;
                if status < 300 {
                    continue;
                }
                let is = |code, waits| named(class_of(status, code, waits));
                let at = format!("{method} {path} {status}");
                assert_eq!(response["x-class"], is(None, false), "{at}");
                let waits = response.get("x-class-with-retry-after").unwrap_or(&response["x-class"]);
                assert_eq!(*waits, is(None, true), "{at} with Retry-After");
                for (code, class) in response["x-class-by-code"].as_object().into_iter().flatten() {
                    assert_eq!(*class, is(Some(code.parse()?), false), "{at} with code {code}");
                }
                seen += 1;
            }
        }
    }
    ensure!(seen > 20, "only {seen} answers are documented");
    Ok(())
}
