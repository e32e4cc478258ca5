//! A record of the output of all programs in all scenarios, and of the secrets they used.
//!
//! The test `secrets` searches the output for the secrets after all other tests; `tests/run` ensures that order.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use crate::programs::target_dir;

const SECRETS: &str = "secrets.txt";

/// Returns the directory of the record; `tests/run` empties it first.
pub fn folder() -> PathBuf {
    target_dir().join("scenario-record")
}

fn append(name: &str, line: &str) -> anyhow::Result<()> {
    let path = folder().join(name);
    fs::create_dir_all(folder()).context("creating the directory of the record")?;
    // One write call per line, so that parallel tests do not mix their lines.
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    file.write_all(line.as_bytes()).with_context(|| path.display().to_string())
}

/// Records the output of a program.
///
/// # Errors
/// The I/O error.
pub fn words(words: &str) -> anyhow::Result<()> {
    append(&format!("words-{}.txt", std::process::id()), words)
}

/// Records a secret that must not appear in any output.
///
/// # Errors
/// The I/O error.
pub fn secret(secret: &str) -> anyhow::Result<()> {
    append(SECRETS, &format!("{secret}\n"))
}

/// Returns the recorded output, and the secrets without duplicates.
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
