//! `azaion-provision`: makes a Jetson's account on the admin API and puts its credentials into the root file system
//! that is about to be flashed.
//!
//! serial → identity → intent in the target → API → report: [`device`] is that way. A library so that the targets can be
//! measured and fuzzed without a process each, and documents held to the command line.

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
mod ui;

use azaion_agent::common::exit::Exit;
use azaion_agent::common::stderr_log::level;
use azaion_agent::common::usage;
use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use commands::{batch, check, clear, device, inspect};
use ui::log::DeviceLog;

/// The command line as it is defined, for what is made of that: completions, checks of documents.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line says.
pub fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(error),
    };
    // Nobody else has set a logger yet.
    let _ = log::set_logger(&DeviceLog);
    log::set_max_level(level(log::LevelFilter::Warn, cli.verbose));
    if cli.no_strict_modes {
        strict_modes::switch_off();
    }
    let done =
        interrupt::listen().map_err(|error| error::io_failure(error, "listening for signals")).and_then(
            |()| match &cli.command {
                Command::Device(options) => device::run(options, cli.json),
                Command::Batch(options) => batch::run(options, cli.json),
                Command::Inspect { targets } => Ok(inspect::run(targets, cli.json)),
                Command::Clear { targets, if_serial } => clear::run(targets, if_serial.as_deref(), cli.json),
                Command::Check(options) => check::run(options, cli.json),
            },
        );
    let exit = done.unwrap_or_else(|error| error::report(&error));
    // Also after a run that completed: a script must not go on after Ctrl-C.
    if interrupt::is_requested() { Exit::Interrupted } else { exit }
}
