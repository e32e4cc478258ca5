//! The programs of `docs/loader.md`, as they stand there.

use std::path::Path;
use std::process::Command;

use azaion_tests::dev_api::Options;
use azaion_tests::pages::Page;
use azaion_tests::programs::{Run, output, start};
use azaion_tests::record;
use azaion_tests::station::{Station, command};
use serde_json::Value;

const PAGE: Page = Page("docs/loader.md");
const TOKEN: &str = "run/azaion/token.json";

/// What starts each of the programs, without the folder that it is to look into.
fn programs(station: &Station) -> anyhow::Result<Vec<Vec<String>>> {
    let mut programs = Vec::new();
    for (language, name, interpreter) in [("python", "loader.py", "python3"), ("sh", "loader.sh", "sh")] {
        let text = PAGE.find(language)?.expect("the program is in the page");
        station.put(name, text, 0o644)?;
        programs.push(vec![interpreter.to_owned(), station.path(name).display().to_string()]);
    }
    let (source, built) = (station.path("loader.cpp"), station.path("loader").display().to_string());
    station.put("loader.cpp", PAGE.find("cpp")?.expect("the program is in the page"), 0o644)?;
    output(Command::new("g++").args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", &built]).arg(source))?;
    programs.push(vec![built]);
    Ok(programs)
}

fn run(program: &[String], station: &Station) -> anyhow::Result<Run> {
    let folder = station.inside("run/azaion").display().to_string();
    let arguments: Vec<&str> = program[1..].iter().map(String::as_str).chain([folder.as_str()]).collect();
    start(&mut command(Path::new(&program[0]), &arguments))?.wait()
}

/// Changes one field of the cache.
fn with(cache: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut changed = cache.clone();
    changed[field] = value.into();
    changed
}

// Promise: each of the page's programs prints the token that is valid, and ends with 75 where there is none: before the first
// login, after it has run out, and in another boot.
#[test]
fn each_takes_the_token_while_it_is_valid() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let programs = programs(&station)?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    for program in &programs {
        run(program, &station)?.ended_with(75)?;
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
            let run = run(program, &station)?.ended_with(if is_valid { 0 } else { 75 })?;
            assert_eq!(run.stdout.trim_end(), if is_valid { &token } else { "" }, "{program:?}");
        }
    }
    works(&station, &token)
}

/// The page's call with it.
fn works(station: &Station, token: &str) -> anyhow::Result<()> {
    let mut shell = command(Path::new("sh"), &["-eu", "-c", &PAGE.commands("curl")?]);
    shell.env("token", token).env("api_url", station.api.url()).env("CURL_CA_BUNDLE", station.api.ca_file());
    let user: Value = serde_json::from_str(&output(&mut shell)?)?;
    assert_eq!(user["role"], "CompanionPC", "{user}");
    Ok(())
}
