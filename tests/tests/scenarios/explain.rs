//! `explain`, and the files that are generated from the same tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use azaion_agent::common::exit::Exit;
use azaion_tests::dev_api::Options;
use azaion_tests::generated;
use azaion_tests::programs::workspace;
use azaion_tests::provoked::both;
use azaion_tests::station::Station;

/// What libraries and the operating system print.
const OTHERS: [&str; 6] = [
    "warning:",
    "panicked",
    "No space left on device",
    "Input/output error",
    "Read-only file system",
    "Usage: azaion-agent",
];

/// Returns the text of all sources, with line continuations in strings joined.
fn sources(folder: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            text += &sources(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(path)?;
            let mut pieces = source.split("\\\n");
            text += pieces.next().unwrap_or_default();
            pieces.for_each(|piece| text += piece.trim_start());
        }
    }
    Ok(text)
}

// Promise: an error on the host names the id of its failure, and `explain` knows it, its exit code and its message.
#[test]
fn an_error_leads_to_its_explanation() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let error = station
        .provision(&["device", "AZJN_0042", "--rootfs", &station.rootfs().display().to_string()])?
        .ended_with(65)?
        .stderr;
    ensure!(error.contains(" (azaion-provision explain invalid-serial)"), "{error}");
    for subject in ["invalid-serial", "65", &error] {
        let run = station.provision_offline(&["explain", subject])?.ended_with(0)?;
        ensure!(
            run.stdout.contains("invalid-serial (exit code 65)\n  message  invalid serial"),
            "{subject}: {}",
            run.stdout
        );
    }
    let unknown = station.provision_offline(&["explain", "no-such-failure"])?.ended_with(64)?;
    ensure!(unknown.stderr.contains("`azaion-provision explain` lists all ids"), "{}", unknown.stderr);

    let run = station.agent(&["explain", "77"])?.ended_with(0)?;
    ensure!(run.stdout.contains("credentials-refused (exit code 77)"), "{}", run.stdout);
    let all = station.agent(&["explain"])?.ended_with(0)?.stdout;
    assert_eq!(all.lines().count(), azaion_agent::cli::FAILURES.all().count());
    Ok(())
}

// Promise: the tables have exactly the exit codes of both programs.
#[test]
fn the_tables_have_all_exit_codes() {
    let shared = [Exit::Done, Exit::Usage, Exit::Internal, Exit::Later, Exit::Protocol, Exit::Refused, Exit::Config];
    let of_host = [Exit::Data, Exit::Target, Exit::Unreachable, Exit::Exists, Exit::Io, Exit::Interrupted];
    let expected = [[&shared[..], &of_host].concat(), shared.to_vec()];
    for (failures, exits) in both().into_iter().zip(expected) {
        let codes: BTreeSet<String> =
            failures.all().flat_map(|failure| failure.codes.split(',')).map(str::to_owned).collect();
        assert_eq!(codes, exits.iter().map(|exit| exit.code().to_string()).collect(), "{}", failures.program);
    }
}

// Promise: each row of the tables is complete, its id is used once, and the programs print its messages so.
#[test]
fn the_tables_are_complete() -> anyhow::Result<()> {
    let sources = sources(&workspace().join("host/src"))? + &sources(&workspace().join("agent/src"))?;
    for failures in both() {
        let mut ids = BTreeSet::new();
        for failure in failures.all() {
            ensure!(ids.insert(failure.id), "{} is there twice", failure.id);
            ensure!(!failure.cause.is_empty() && !failure.remedy.is_empty(), "{}", failure.id);
            let messages: Vec<_> = failure.messages().collect();
            ensure!(!messages.is_empty(), "{} has no message", failure.id);
            for part in messages.concat().iter().filter(|part| !OTHERS.contains(part)) {
                ensure!(sources.contains(part), "{}: no program prints: {part}", failure.id);
            }
        }
        let rows = failures.table.lines().filter(|line| !line.starts_with('#')).count() - 1;
        assert_eq!(ids.len(), rows, "a row has not five cells");
    }
    Ok(())
}

// Promise: each generated file is what the code says, and no other file is beside the schemas.
#[test]
fn generated_files_are_current() -> anyhow::Result<()> {
    let files = generated::files()?;
    for (path, text) in &files {
        let kept = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        ensure!(kept == *text, "{} is outdated: run `cargo run -p azaion-tests --bin generate`", path.display());
    }
    for entry in fs::read_dir(workspace().join("docs/schema"))? {
        let path = entry?.path();
        let is_schema = path.extension().is_some_and(|extension| extension == "json");
        ensure!(
            !is_schema || files.iter().any(|(file, _)| *file == path),
            "no type has this schema: {}",
            path.display()
        );
    }
    Ok(())
}
