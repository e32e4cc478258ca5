//! Log for people at a terminal: level and message on standard error.

use std::io::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::common::plain_text::escaped;

/// A logger that writes the messages of our own code to standard error.
#[derive(Debug)]
pub struct StandardError;

/// Returns the log level for the number of `-v` options; `least` is the level without any.
pub fn level(least: LevelFilter, verbose: u8) -> LevelFilter {
    LevelFilter::iter().nth(least as usize + usize::from(verbose)).unwrap_or(LevelFilter::Trace)
}

/// Whether the message comes from our own code. Messages of the HTTP and TLS libraries do not help users, and may contain secrets.
pub fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("azaion")
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_ours(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            write(record.level(), &escaped(&record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Writes a message that is already [`escaped`]; it may contain newlines of the caller.
pub fn write(level: Level, text: &str) {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    };
    let _ = writeln!(io::stderr().lock(), "{level}: {text}");
}
