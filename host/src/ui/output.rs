//! Results on standard output: an object a line for machines, a sentence for people. Neither has a control character.

use crate::error::{Result, io_failure};
use std::io::{self, Write};

use azaion_agent::common::plain_text::{escaped, write_json};
use serde::Serialize;

/// Prints `record` as JSON, or `text`, whose line ends are the caller's: what a path or a message says has to be
/// [`escaped`] before it becomes a part of several lines.
pub(crate) fn print(json: bool, record: &impl Serialize, text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = if json {
        write_json(&mut out, record).and_then(|()| writeln!(out))
    } else {
        text.split('\n').try_for_each(|line| writeln!(out, "{}", escaped(line)))
    };
    written.map_err(|error| io_failure(error, "writing to standard output"))
}
