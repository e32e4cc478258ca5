//! The log for people at a terminal: level and message on standard error.

use std::io::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::common::plain_text::escaped;

/// Writes what our own code logs to standard error.
#[derive(Debug)]
pub struct StandardError;

/// How much is logged with so many `-v`, where `least` is logged without one.
pub fn level(least: LevelFilter, verbose: u8) -> LevelFilter {
    LevelFilter::iter().nth(least as usize + usize::from(verbose)).unwrap_or(LevelFilter::Trace)
}

/// Whether our own code says it. What the HTTP and TLS libraries say is of no use to people, and is not ours to keep
/// free of secrets.
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

/// Writes a message that is [`escaped`] already; its line ends are the caller's own.
pub fn write(level: Level, text: &str) {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    };
    let _ = writeln!(io::stderr().lock(), "{level}: {text}");
}
