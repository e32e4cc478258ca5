//! The files that are generated from the code: `cargo run -p azaion-tests --bin generate` writes them, a test compares
//! them.
//!
//! - the shell completions, from the command line
//! - the JSON Schemas, from the types
//! - the journal's catalog, from the states of a device
//! - the tables of failures in the runbook and the exit codes in the man pages, from the tables of failures

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use azaion_agent::common::failures::{Failure, Failures};
use azaion_agent::device::states::{HELD, STATES, State};

use crate::programs::workspace;
use crate::{completions, schemas};

/// A generated file: its path and its content.
type File = (PathBuf, String);

/// The width of the catalog's text.
const WIDTH: usize = 80;

/// Returns all generated files as they should be.
///
/// # Errors
/// A file with a generated part can't be read, or has no place for it.
pub fn files() -> anyhow::Result<Vec<File>> {
    let mut files = completions::files();
    files.extend(schemas::files()?);
    files.push((workspace().join("systemd/azaion-agent.catalog"), catalog()));
    files.push(runbook()?);
    files.push(man_page("docs/man/azaion-provision.1", &azaion_provision::command(), azaion_provision::FAILURES)?);
    files.push(man_page("docs/man/azaion-agent.8", &azaion_agent::cli::command(), azaion_agent::cli::FAILURES)?);
    Ok(files)
}

/// Writes all generated files.
///
/// # Errors
/// A file can't be read or written.
#[expect(clippy::disallowed_methods, reason = "no secrets are in them")]
pub fn write() -> anyhow::Result<()> {
    for (path, text) in files()? {
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn catalog() -> String {
    let mut text = String::from("# Generated from agent/src/device/states.rs.\n");
    for (exit, state) in STATES.into_iter().chain([(STATES[1].0, HELD)]) {
        let State { message_id, subject, explanation, .. } = state;
        // Writing to a string cannot fail.
        let _ = write!(text, "\n-- {message_id}\nSubject: {subject}\nDefined-By: azaion-agent\n");
        let advice = format!("`azaion-agent explain {}` lists the causes.", exit.code());
        let has_causes = exit.code() != 0 && state != HELD;
        for paragraph in explanation.iter().copied().chain(has_causes.then_some(advice.as_str())) {
            let _ = write!(text, "\n{}", wrapped(paragraph));
        }
    }
    text
}

/// Returns a paragraph as lines.
fn wrapped(paragraph: &str) -> String {
    let (mut text, mut length) = (String::new(), 0);
    for word in paragraph.split(' ') {
        let is_full = length + 1 + word.len() > WIDTH;
        text += if text.is_empty() {
            ""
        } else if is_full {
            "\n"
        } else {
            " "
        };
        text += word;
        length = if is_full { word.len() } else { length + 1 + word.len() };
    }
    text + "\n"
}

/// Returns the runbook with the tables of failures below their headings.
fn runbook() -> anyhow::Result<File> {
    let path = workspace().join("docs/runbook.md");
    let mut page = fs::read_to_string(&path)?;
    let host = azaion_provision::FAILURES.all().map(|failure| row(&failure, &failure.codes.replace(',', ", ")));
    page = with_table(&page, "### On the host", "| exit code | id | message | cause | remedy |", host)?;

    let states: BTreeMap<String, State> =
        STATES.into_iter().map(|(exit, state)| (exit.code().to_string(), state)).collect();
    let device = azaion_agent::cli::FAILURES.all().map(|failure| {
        let state = states.get(failure.codes);
        let [name, id] = state.map_or([String::new(), String::new()], |state| {
            [format!(" `{}`", state.name), format!("`{}`", state.message_id)]
        });
        row(&failure, &format!("{}{name} | {id}", failure.codes))
    });
    let header = "| exit code, `AZAION_STATE` | `MESSAGE_ID` | id | message | cause | remedy |";
    Ok((path, with_table(&page, "### On the device", header, device)?))
}

fn row(failure: &Failure, first: &str) -> String {
    let Failure { id, messages, cause, remedy, .. } = failure;
    format!("| {first} | `{id}` | {messages} | {cause} | {remedy} |\n")
}

/// Replaces the first table below a heading.
fn with_table(page: &str, heading: &str, header: &str, rows: impl Iterator<Item = String>) -> anyhow::Result<String> {
    let start = page.find(heading).with_context(|| heading.to_owned())?;
    let start = start + page[start..].find("\n|").context("a table")? + 1;
    let end = start + page[start..].find("\n\n").context("the end of the table")? + 1;
    let line = "|---".repeat(header.matches('|').count() - 1) + "|\n";
    let table = format!("{header}\n{line}{}", rows.collect::<String>());
    Ok(format!("{}{table}{}", &page[..start], &page[end..]))
}

/// Returns a man page with the exit codes of the command's help, each with the ids of its failures.
fn man_page(path: &str, command: &clap::Command, failures: Failures) -> anyhow::Result<File> {
    const HEADING: &str = "\n.SH EXIT STATUS\n";
    let path = workspace().join(path);
    let page = fs::read_to_string(&path)?;
    let (before, after) = page.split_once(HEADING).context("a heading")?;
    let (_, after) = after.split_once("\n.SH ").context("a heading after it")?;
    let help = command.get_after_help().context("the exit codes")?.to_string();
    let mut text = String::new();
    for line in help.lines().skip(1) {
        let (code, meaning) = line.trim_start().split_once("  ").context("a code and its meaning")?;
        let ids: Vec<&str> = failures.all().filter(|f| f.codes.split(',').any(|c| c == code)).map(|f| f.id).collect();
        let _ = write!(text, ".TP\n.B {code}\n{}{}.\n", meaning[..1].to_uppercase(), &meaning[1..]);
        if !ids.is_empty() && code != "0" {
            let _ = writeln!(text, "Failures: {}.", ids.join(", ").replace('-', "\\-"));
        }
    }
    let _ = writeln!(
        text,
        ".PP\n.B {} explain\n.I ID\nexplains a failure: its cause, and what to do.",
        failures.program.replace('-', "\\-")
    );
    Ok((path, format!("{before}{HEADING}{}\n.SH {after}", text.trim_end())))
}
