//! Results on standard output: an object a line for machines, a sentence for people.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// Prints `record` as JSON, or `text`.
pub(crate) fn print(json: bool, record: &impl Serialize, text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = if json {
        serde_json::to_writer(&mut out, record).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        writeln!(out, "{text}")
    };
    written.context("writing to standard output")
}
