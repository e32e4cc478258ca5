//! Results on standard output: one JSON object per line for programs, or text for people. Both are without control characters.

use crate::error::{Result, io_failure};
use std::io::{self, Write};

use azaion_agent::common::plain_text::{escaped, write_json};
use serde::Serialize;

/// Prints `record` as JSON, or `text`. Keeps the line breaks of `text`, so callers must apply [`escaped`] to paths and messages in a text
/// with several lines.
pub(crate) fn print(json: bool, record: &impl Serialize, text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = if json {
        write_json(&mut out, record).and_then(|()| writeln!(out))
    } else {
        text.split('\n').try_for_each(|line| writeln!(out, "{}", escaped(line)))
    };
    written.map_err(|error| io_failure(error, "writing to standard output"))
}
