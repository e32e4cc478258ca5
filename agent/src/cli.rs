//! The command line: parses it and runs the command.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::fault::chain;
use crate::common::exit::Exit;
use crate::common::failures::{self, Failures};
use crate::common::usage;
use crate::device::announce;
use crate::device::paths::Paths;
use crate::device::privileges::become_agent;
use crate::device::readiness::Readiness;
use crate::device::run::{Caller, Device, How, NotReady, run};
use crate::device::{history, status, time_sync, token};
use clap::{Parser, Subcommand};

/// Gets the token of a provisioned Jetson for the admin API, and reports whether the device is ready.
#[derive(Debug, Parser)]
#[command(name = "azaion-agent", version, about, after_help = EXIT_CODES)]
struct Cli {
    /// Resolve all paths below DIR, including those in agent.toml
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Increase verbosity (repeatable)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the device ready: read device.conf, log in, validate the token, write the cache
    Boot {
        /// Give up after SECONDS; the default is that of agent.toml, or 60
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
        deadline: Option<u64>,
        /// Try at once, even if the last run requires a wait
        #[arg(long)]
        now: bool,
    },
    /// Print a valid access token, renewing it first if needed
    Token {
        /// Print the whole token cache as JSON
        #[arg(long)]
        json: bool,
        /// Answer a client of azaion-agent-token.socket, whose connection is standard output
        #[arg(long, conflicts_with = "json")]
        socket: bool,
    },
    /// Check each step from device.conf to a valid token, one line per check
    Status {
        /// Also log in (counts against the API's ten logins a minute)
        #[arg(long)]
        login: bool,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        /// Print the last changes of state, oldest first, instead of the checks
        #[arg(long, conflicts_with = "login")]
        history: bool,
    },
    /// Explain a failure: its cause, and what to do; without ID, list all
    Explain {
        /// The id of a failure, an exit code, or a printed message
        id: Option<String>,
    },
    /// Record whether the clock is synchronised, for azaion-clock.service
    #[command(hide = true)]
    Clock,
}

/// Environment variable that azaion-agent.service sets, so that the program knows its caller even if a drop-in
/// redirects standard error.
const UNIT_VARIABLE: &str = "AZAION_AGENT_UNIT";

/// What can go wrong, for `explain`, the runbook and the man page.
pub const FAILURES: Failures = Failures { program: "azaion-agent", table: include_str!("device/failures.tsv") };

const EXIT_CODES: &str = "\
Exit codes:
   0  ready
  64  command line error
  70  internal error
  75  not yet: no network, no time, or the API says later; systemd tries again
  76  protocol error: the server's response is invalid
  77  the credentials are refused
  78  device.conf or agent.toml is wrong, or the image is for another device's module";

/// Returns the definition of the command line, for tests and documents.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the command that the command line names.
pub fn run_command_line() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(error),
    };
    announce::start_log(cli.verbose);
    if matches!(cli.command, Command::Clock) {
        return record_clock(&Paths::under(&cli.root));
    }
    if let Command::Explain { id } = &cli.command {
        return failures::print(FAILURES.explain(id.as_deref()));
    }
    let device = Device::here(&cli.root);
    // Give up root before reading anything else, and before any network access.
    if let Err(error) = become_agent(&device.paths) {
        let error = NotReady::from(error);
        let exit = error.exit();
        match cli.command {
            Command::Boot { .. } => announce::outcome(&Err(error), None),
            Command::Token { socket: true, .. } => return token::refuse(&error),
            Command::Token { .. } | Command::Status { .. } | Command::Explain { .. } | Command::Clock => {
                log::error!("{}", chain(&error));
            }
        }
        return exit;
    }
    match cli.command {
        Command::Boot { deadline, now } => {
            let caller = if announce::is_unit() || std::env::var_os(UNIT_VARIABLE).is_some() {
                Caller::Unit
            } else {
                Caller::Person
            };
            boot(&device, How { caller, deadline: deadline.map(Duration::from_secs), now, ..How::default() })
        }
        Command::Status { json, history: true, .. } => history::print(&device, json),
        Command::Status { login, json, .. } => status::print(&device, login, json),
        Command::Token { socket: true, .. } => token::answer(&device),
        Command::Token { json, .. } => token::print(&device, json),
        Command::Explain { .. } | Command::Clock => Exit::Done,
    }
}

fn boot(device: &Device, how: How) -> Exit {
    let result = run(device, how);
    announce::outcome(&result, Readiness::read(&device.paths.run_dir()).as_ref());
    result.map_or_else(|error| error.exit(), |_| Exit::Done)
}

fn record_clock(paths: &Paths) -> Exit {
    match time_sync::record(paths) {
        Ok(is_synchronised) => log::debug!("the clock is synchronised: {is_synchronised}"),
        Err(error) => {
            log::error!("cannot record whether the clock is synchronised: {}", chain(&error));
            return Exit::Internal;
        }
    }
    Exit::Done
}
