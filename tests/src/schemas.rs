//! JSON Schema of what the programs print and write: generates the files in `docs/schema`, and validates output against
//! them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use azaion_agent::common::schema::Document;
use jsonschema::Validator;
use serde_json::Value;

use crate::programs::{Run, workspace};

/// The directories of a device that the agent writes JSON files into, each named after its schema.
const DIRECTORIES: [&str; 2] = ["run/azaion", "var/lib/azaion"];

/// Returns the schemas of both programs.
pub fn documents() -> Vec<Document> {
    [azaion_provision::schema::documents(), azaion_agent::device::schema::documents()].concat()
}

fn folder() -> PathBuf {
    workspace().join("docs/schema")
}

/// Returns the paths in `docs/schema` with their expected content.
///
/// # Errors
/// A schema can't be written as JSON.
pub fn files() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let file = |Document { name, schema }: Document| {
        Ok((folder().join(format!("{name}.json")), format!("{}\n", serde_json::to_string_pretty(&schema)?)))
    };
    documents().into_iter().map(file).collect()
}

/// Returns the compiled schemas of `docs/schema`, loaded once per process.
fn validators() -> anyhow::Result<&'static BTreeMap<String, Validator>> {
    static VALIDATORS: OnceLock<Result<BTreeMap<String, Validator>, String>> = OnceLock::new();
    let validators = VALIDATORS.get_or_init(|| load().map_err(|error| format!("{error:#}")));
    validators.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn load() -> anyhow::Result<BTreeMap<String, Validator>> {
    let mut validators = BTreeMap::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        if let Some(name) = name_of(&path) {
            let schema = serde_json::from_slice(&fs::read(&path)?)?;
            let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema);
            validators.insert(name, validator.with_context(|| path.display().to_string())?);
        }
    }
    Ok(validators)
}

/// Returns the name of a JSON file without its extension.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    (!name.starts_with('.')).then(|| name.to_owned())
}

/// Validates a value against the schema `name`.
///
/// # Errors
/// There is no such schema, or the value does not match it. The message names the field, and quotes no value, which may
/// be a token.
pub fn check(name: &str, value: &Value) -> anyhow::Result<()> {
    let path = || folder().join(format!("{name}.json")).display().to_string();
    let validator = validators()?.get(name).with_context(|| format!("there is no {}", path()))?;
    let faults: Vec<String> = validator.iter_errors(value).map(|error| error.masked().to_string()).collect();
    ensure!(faults.is_empty(), "an output does not agree with {}: {}", path(), faults.join("; "));
    Ok(())
}

/// Validates the output of our programs if it is JSON; ignores other programs.
///
/// # Errors
/// A line is not JSON, or does not match the schema of its verb.
pub fn check_output(run: &Run) -> anyhow::Result<()> {
    let words: Vec<&str> = run.command_line.split_whitespace().collect();
    let program = |word: &&str| ["azaion-provision", "azaion-agent"].contains(&word.rsplit('/').next().unwrap_or(word));
    let Some(start) = words.iter().rposition(program) else { return Ok(()) };
    let words = words.split_at(start).1;
    let is_there = |option: &str| words.contains(&option);
    check_report(words, run)?;
    if !(is_there("--json") || is_there("--socket")) || is_there("--help") {
        return Ok(());
    }
    for line in whole_lines(run) {
        let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {}", run.command_line))?;
        let name = schema_of(words, &value).with_context(|| format!("no schema for {}", run.command_line))?;
        check(name, &value).with_context(|| run.command_line.clone())?;
    }
    Ok(())
}

/// Validates the report of a batch if it is in JSON Lines and exists: a batch without output has not begun one.
fn check_report(words: &[&str], run: &Run) -> anyhow::Result<()> {
    let report = words.iter().skip_while(|word| **word != "--report").nth(1).map(Path::new);
    let report = report.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let report = report.filter(|_| !run.stdout.is_empty());
    let Some(text) = report.and_then(|path| fs::read_to_string(path).ok()) else { return Ok(()) };
    let name = if words.contains(&"--dry-run") { "batch-dry-run" } else { "batch" };
    for line in text.lines() {
        let value = serde_json::from_str(line).with_context(|| format!("the report of {}", run.command_line))?;
        check(name, &value).with_context(|| format!("the report of {}", run.command_line))?;
    }
    Ok(())
}

/// Returns the lines of standard output; for a killed program only the complete lines.
fn whole_lines(run: &Run) -> impl Iterator<Item = &str> {
    let end = if run.code.is_some() { run.stdout.len() } else { run.stdout.rfind('\n').unwrap_or_default() };
    run.stdout.split_at(end).0.lines()
}

/// Returns the schema of a line that a command printed.
fn schema_of(words: &[&str], line: &Value) -> Option<&'static str> {
    const VERBS: [&str; 8] = ["device", "batch", "inspect", "clear", "check", "status", "token", "boot"];
    let is_there = |option: &str| words.contains(&option);
    match VERBS.into_iter().find(|verb| is_there(verb))? {
        "batch" if line.get("units").is_some() => Some("batch-summary"),
        "batch" if is_there("--dry-run") => Some("batch-dry-run"),
        "status" if is_there("--history") => Some("status-history"),
        "token" => Some(socket_answer(line)),
        "boot" => None,
        verb => Some(verb),
    }
}

/// Returns the schema of a socket answer.
pub fn socket_answer(answer: &Value) -> &'static str {
    if answer.get("access_token").is_some() { "token" } else { "refusal" }
}

/// Validates all JSON files of the agent in a root file system, except those that a test has put there: `is_planted`
/// identifies them by path and content.
///
/// # Errors
/// A file is not JSON, does not match its schema, or has none.
pub fn check_files(root: &Path, is_planted: impl Fn(&Path, &[u8]) -> bool) -> anyhow::Result<()> {
    for directory in DIRECTORIES {
        let Ok(entries) = fs::read_dir(root.join(directory)) else { continue };
        for path in entries.map(|entry| entry.map(|entry| entry.path())) {
            let path = path?;
            if let Some(name) = name_of(&path).filter(|_| path.is_file()) {
                let content = fs::read(&path)?;
                if is_planted(&path, &content) {
                    continue;
                }
                let value = serde_json::from_slice(&content).with_context(|| path.display().to_string())?;
                check(&name, &value).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(())
}
