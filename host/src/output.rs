//! Results on standard output: an object a line for machines, a sentence for people. Neither has a control character.

use std::io::{self, Write};

use anyhow::Context;
use azaion_agent::plain_text::{escaped, write_json};
use serde::Serialize;

/// Prints `record` as JSON, or `text`, whose line ends are the caller's: what a path or a message says has to be
/// [`escaped`] before it becomes a part of several lines.
pub(crate) fn print(json: bool, record: &impl Serialize, text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = if json {
        write_json(&mut out, record).and_then(|()| writeln!(out))
    } else {
        text.split('\n').try_for_each(|line| writeln!(out, "{}", escaped(line)))
    };
    written.context("writing to standard output")
}
