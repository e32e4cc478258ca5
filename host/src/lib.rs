//! `azaion-provision`: creates a Jetson's account on the admin API and writes its credentials into the root file system
//! that is about to be flashed.
//!
//! The steps are serial → identity → intent in the target → API → report; [`device`] starts them. The code is a library so that
//! benchmarks and fuzzing can use targets without one process each, and tests can compare documents with the command line.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "the tests' own files"))]

mod admin_api;
mod cli;
mod commands;
mod error;
mod interrupt;
#[cfg(test)]
mod model;
mod provision;
mod resolved_path;
#[cfg(feature = "schema")]
pub mod schema;
mod strict_modes;
pub mod target;
#[cfg(test)]
mod test_server;
mod ui;

use azaion_agent::common::exit::Exit;
use azaion_agent::common::failures::{self, Failures};
use azaion_agent::common::stderr_log::level;
use azaion_agent::common::usage;
use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use commands::{batch, check, clear, device, inspect};
use ui::log::DeviceLog;

/// What can go wrong, for `explain`, the runbook and the man page.
pub const FAILURES: Failures = Failures { program: "azaion-provision", table: include_str!("failures.tsv") };

/// Returns the definition of the command line, for completions and for tests that compare documents with it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs its command.
pub fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(error),
    };
    // This is the first logger, so it can't fail.
    let _ = log::set_logger(&DeviceLog);
    log::set_max_level(level(log::LevelFilter::Warn, cli.verbose));
    if cli.no_strict_modes {
        strict_modes::disable();
    }
    let result = interrupt::listen().map_err(|error| error::io_failure(error, "listening for signals")).and_then(
        |()| match &cli.command {
            Command::Device(options) => device::run(options, cli.json),
            Command::Batch(options) => batch::run(options, cli.json),
            Command::Inspect { targets } => Ok(inspect::run(targets, cli.json)),
            Command::Clear { targets, if_serial } => clear::run(targets, if_serial.as_deref(), cli.json),
            Command::Check(options) => check::run(options, cli.json),
            Command::Explain { id } => Ok(failures::print(FAILURES.explain(id.as_deref()))),
        },
    );
    let exit = result.unwrap_or_else(|error| error::report(&error));
    // Also after a completed run: a script must not continue after Ctrl-C.
    if interrupt::is_requested() { Exit::Interrupted } else { exit }
}
