//! A record of all that the programs said in all scenarios, and of the secrets that were in play.
//!
//! The test `secrets` searches it for them when all other tests are through; `tests/run` keeps that order.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use crate::programs::target_dir;

const SECRETS: &str = "secrets.txt";

/// The folder of the record; `tests/run` empties it first.
pub fn folder() -> PathBuf {
    target_dir().join("scenario-record")
}

fn append(name: &str, line: &str) -> anyhow::Result<()> {
    let path = folder().join(name);
    fs::create_dir_all(folder()).context("making the record's folder")?;
    // One write a line, so that tests in many threads and processes do not mix theirs.
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    file.write_all(line.as_bytes()).with_context(|| path.display().to_string())
}

/// Notes what a program said.
///
/// # Errors
/// The I/O error.
pub fn words(words: &str) -> anyhow::Result<()> {
    append(&format!("words-{}.txt", std::process::id()), words)
}

/// Notes a secret that must not be said.
///
/// # Errors
/// The I/O error.
pub fn secret(secret: &str) -> anyhow::Result<()> {
    append(SECRETS, &format!("{secret}\n"))
}

/// All that was said, and the secrets, each once.
///
/// # Errors
/// There is no record: no scenario has run.
pub fn read() -> anyhow::Result<(String, Vec<String>)> {
    let advice = "no scenario has run yet; use ./tests/run";
    let mut secrets: Vec<String> =
        fs::read_to_string(folder().join(SECRETS)).context(advice)?.lines().map(str::to_owned).collect();
    secrets.sort();
    secrets.dedup();
    let mut words = String::new();
    for entry in fs::read_dir(folder()).context(advice)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("words-")) {
            words.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok((words, secrets))
}
