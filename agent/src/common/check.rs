//! A check of a preflight or status report, printed as one line.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::common::plain_text::{escaped, write_json};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Status {
    /// No problem found.
    Ok,
    /// It works, but needs attention.
    Warning,
    /// It will not work in this state.
    Failed,
}

/// A named check with its result; serialised as one JSON object per line.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// Stable name of the check.
    pub id: &'static str,
    /// The result of the check.
    pub status: Status,
    /// What the check found, and what to do about it; without control characters.
    pub message: String,
}

impl Check {
    fn new(id: &'static str, status: Status, message: &str) -> Self {
        Self { id, status, message: escaped(message).into_owned() }
    }

    /// Creates a check that found no problem.
    pub fn ok(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Ok, &message.into())
    }

    /// Creates a check that found something that needs attention.
    pub fn warning(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Warning, &message.into())
    }

    /// Creates a check that found something that will not work.
    pub fn failed(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Failed, &message.into())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = match self.status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
            Status::Failed => "FAILED ",
        };
        write!(f, "{label}  {:<13}  {}", self.id, self.message)
    }
}

/// Prints checks to standard output, one per line, as JSON objects or as text.
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
