//! `azaion-provision`: makes a Jetson's account on the admin API and puts its credentials into the root file system
//! that is about to be flashed.
//!
//! serial → identity → intent in the target → API → report: [`device`] is that way.

mod admin;
mod check;
mod clear;
mod cli;
mod connection;
mod device;
mod failure;
mod inspect;
mod output;
mod provision;
mod target;

use std::process::ExitCode;

use azaion_agent::exit::{Exit, exit_on_panic};
use azaion_agent::hardening::no_core_dumps;
use azaion_agent::stderr_log::{StandardError, level};
use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    exit_on_panic();
    no_core_dumps();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    // Nobody else has set a logger yet.
    let _ = log::set_logger(&StandardError);
    log::set_max_level(level(log::LevelFilter::Warn, cli.verbose));
    let done = match &cli.command {
        Command::Device(options) => device::run(options, cli.json),
        Command::Inspect { targets } => Ok(inspect::run(targets, cli.json)),
        Command::Clear { targets } => Ok(clear::run(targets, cli.json)),
        Command::Check(options) => check::run(options, cli.json),
    };
    done.unwrap_or_else(|error| failure::report(&error)).into()
}
