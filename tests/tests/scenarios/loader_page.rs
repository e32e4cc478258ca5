//! The programs of `docs/loader.md`, unchanged.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use azaion_tests::dev_api::Options;
use azaion_tests::pages::Page;
use azaion_tests::programs::{Run, output, start};
use azaion_tests::record;
use azaion_tests::station::{Station, command};
use serde_json::Value;

use crate::socket::Listener;

const PAGE: Page = Page("docs/loader.md");
const TOKEN: &str = "run/azaion/token.json";

/// Returns the command of each of the page's programs that read the socket or the file (`way`), without its path.
fn programs(station: &Station, way: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let text = |language: &str| {
        let text = PAGE.find(&format!("{language} {way}"))?;
        text.with_context(|| format!("{} has no program in {language} for the {way}", PAGE.0))
    };
    let mut programs = Vec::new();
    for (language, interpreter) in [("python", "python3"), ("sh", "sh")] {
        let name = format!("{way}.{language}");
        station.put(&name, text(language)?, 0o644)?;
        programs.push(vec![interpreter.to_owned(), station.path(&name).display().to_string()]);
    }
    let (source, built) = (station.path(&format!("{way}.cpp")), station.path(way).display().to_string());
    station.put(&format!("{way}.cpp"), text("cpp")?, 0o644)?;
    output(Command::new("g++").args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", &built]).arg(source))?;
    programs.push(vec![built]);
    Ok(programs)
}

/// Runs a program with the path of the token.
fn run(program: &[String], place: &Path) -> anyhow::Result<Run> {
    let place = place.display().to_string();
    let arguments: Vec<&str> = program[1..].iter().map(String::as_str).chain([place.as_str()]).collect();
    start(&mut command(Path::new(&program[0]), &arguments))?.wait()
}

/// Returns the cache with one field changed.
fn with(cache: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut changed = cache.clone();
    changed[field] = value.into();
    changed
}

// Promise: each of the page's programs for the file prints the valid token, and ends with 75 if there is none: before
// the first login, after it has expired, and in another boot.
#[test]
fn each_takes_the_token_of_the_file_while_it_is_valid() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let programs = programs(&station, "file")?;
    let folder = station.inside("run/azaion");
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    for program in &programs {
        run(program, &folder)?.ended_with(75)?;
    }
    station.agent(&["boot"])?.ended_with(0)?;
    let cache = station.json(TOKEN).unwrap();
    let token = cache["access_token"].as_str().unwrap().to_owned();
    record::secret(&token)?;
    let lifetime = cache["lifetime_s"].as_u64().unwrap();
    let obtained = cache["obtained_boottime_s"].as_u64().unwrap();
    for (cache, is_valid) in [
        (cache.clone(), true),
        (with(&cache, "lifetime_s", lifetime + 900), true),
        (with(&cache, "obtained_boottime_s", obtained.saturating_sub(lifetime)), false),
        (with(&cache, "lifetime_s", 0), false),
        (with(&cache, "boot_id", "00000000-0000-4000-8000-000000000000"), false),
    ] {
        station.put(&format!("rootfs/{TOKEN}"), cache.to_string(), 0o640)?;
        for program in &programs {
            let run = run(program, &folder)?.ended_with(if is_valid { 0 } else { 75 })?;
            assert_eq!(run.stdout.trim_end(), if is_valid { &token } else { "" }, "{program:?}");
        }
    }
    works(&station, &token)
}

/// Makes the page's API call with it.
fn works(station: &Station, token: &str) -> anyhow::Result<()> {
    let mut shell = command(Path::new("sh"), &["-eu", "-c", &PAGE.commands("curl")?]);
    shell.env("token", token).env("api_url", station.api.url()).env("CURL_CA_BUNDLE", station.api.ca_file());
    let user: Value = serde_json::from_str(&output(&mut shell)?)?;
    assert_eq!(user["role"], "CompanionPC", "{user}");
    Ok(())
}

// Promise: each of the page's programs for the socket prints a valid token, also if it has to be renewed first, and
// ends with 75 if there is none, or no socket.
#[test]
fn each_takes_the_token_of_the_socket() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let programs = programs(&station, "socket")?;
    for program in &programs {
        run(program, &station.path("token.sock"))?.ended_with(75)?;
    }
    let listener = Listener::new(&station)?;
    station.put_policy("")?;
    for program in &programs {
        // There is no device.conf.
        run(program, listener.path())?.ended_with(75)?;
    }
    station.device(&[])?.ended_with(0)?;
    let mut last = String::new();
    for program in &programs {
        let token = run(program, listener.path())?.ended_with(0)?.stdout.trim_end().to_owned();
        record::secret(&token)?;
        works(&station, &token).with_context(|| format!("{program:?}"))?;
        assert_ne!(token, last, "{program:?}");
        let cache = station.json(TOKEN).context("the cache")?;
        assert_eq!(cache["access_token"], token, "{program:?}");
        station.put(&format!("rootfs/{TOKEN}"), with(&cache, "lifetime_s", 0).to_string(), 0o640)?;
        last = token;
    }
    Ok(())
}
