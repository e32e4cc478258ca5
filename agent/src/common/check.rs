//! One line of a preflight or status report.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::common::plain_text::{escaped, write_json};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Status {
    /// All is well.
    Ok,
    /// It works, but somebody should look.
    Warning,
    /// It will not work like this.
    Failed,
}

/// A named check with what it found; serialised as one JSON object a line.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// Stable name of the check.
    pub id: &'static str,
    /// How the check ended.
    pub status: Status,
    /// What was found, and what to do about it; without control characters.
    pub message: String,
}

impl Check {
    fn new(id: &'static str, status: Status, message: &str) -> Self {
        Self { id, status, message: escaped(message).into_owned() }
    }

    /// A check that found nothing wrong.
    pub fn ok(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Ok, &message.into())
    }

    /// A check that found something to look at.
    pub fn warning(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Warning, &message.into())
    }

    /// A check that found what will not work.
    pub fn failed(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Failed, &message.into())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
            Status::Failed => "FAILED ",
        };
        write!(f, "{mark}  {:<13}  {}", self.id, self.message)
    }
}

/// Prints checks to standard output, a line each, as JSON objects or for people.
///
/// # Errors
/// Standard output is closed.
pub fn print(checks: &[Check], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for check in checks {
        if json {
            write_json(&mut out, check)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{check}")?;
        }
    }
    Ok(())
}
