//! The command line: parses it and runs the command.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::fault::chain;
use crate::common::exit::Exit;
use crate::common::usage;
use crate::device::announce;
use crate::device::paths::Paths;
use crate::device::privileges::become_agent;
use crate::device::readiness::Readiness;
use crate::device::run::{Caller, Device, How, NotReady, run};
use crate::device::{history, status, time_sync, token};
use clap::{Parser, Subcommand};

/// Gives a provisioned Jetson its token for the admin API, and says whether it is ready.
#[derive(Debug, Parser)]
#[command(name = "azaion-agent", version, about, after_help = EXIT_CODES)]
struct Cli {
    /// Put every path under DIR, also those that agent.toml names
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// More words; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the unit ready: read device.conf, log in, validate the token, write the cache
    Boot {
        /// Seconds to try for, where not as agent.toml says (60 if it says nothing)
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
        deadline: Option<u64>,
        /// Try at once, even if the last run was told to wait
        #[arg(long)]
        now: bool,
    },
    /// Print a valid access token, renewing it first if needed
    Token {
        /// Print all of the token cache as JSON
        #[arg(long)]
        json: bool,
        /// Answer a client of azaion-agent-token.socket, whose connection is standard output
        #[arg(long, conflicts_with = "json")]
        socket: bool,
    },
    /// Say where on the way to a token it fails, one line a check
    Status {
        /// Log in, too (counts against the API's ten logins a minute)
        #[arg(long)]
        login: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Instead of the checks, print the last changes of state, the oldest first
        #[arg(long, conflicts_with = "login")]
        history: bool,
    },
    /// Find out whether the clock is synchronised, for azaion-clock.service
    #[command(hide = true)]
    Clock,
}

/// Set by azaion-agent.service, so that it is known as the unit wherever its standard error goes.
const CALLER: &str = "AZAION_AGENT_UNIT";

const EXIT_CODES: &str = "\
Exit codes:
   0  ready
  64  wrong command line
  70  a fault of the agent's own
  75  not yet: no network, no time, or the API says later; systemd tries again
  76  the server's answer can't be accepted
  77  the credentials are refused
  78  device.conf or agent.toml is wrong, or the image is that of another unit's module";

/// Runs the command that the command line names.
pub fn run_command_line() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(error),
    };
    announce::start_log(cli.verbose);
    if matches!(cli.command, Command::Clock) {
        return note_clock(&Paths::under(&cli.root));
    }
    let device = Device::here(&cli.root);
    // Before anything else is read, and before anybody is asked anything.
    if let Err(error) = become_agent(&device.paths) {
        let error = NotReady::from(error);
        let exit = error.exit();
        match cli.command {
            Command::Boot { .. } => announce::outcome(&Err(error), None),
            Command::Token { socket: true, .. } => return token::refuse(&error),
            Command::Token { .. } | Command::Status { .. } | Command::Clock => log::error!("{}", chain(&error)),
        }
        return exit;
    }
    match cli.command {
        Command::Boot { deadline, now } => {
            let caller =
                if announce::is_unit() || std::env::var_os(CALLER).is_some() { Caller::Unit } else { Caller::Person };
            boot(&device, How { caller, deadline: deadline.map(Duration::from_secs), now, ..How::default() })
        }
        Command::Status { json, history: true, .. } => history::print(&device, json),
        Command::Status { login, json, .. } => status::print(&device, login, json),
        Command::Token { socket: true, .. } => token::answer(&device),
        Command::Token { json, .. } => token::print(&device, json),
        Command::Clock => note_clock(&device.paths),
    }
}

fn boot(device: &Device, how: How) -> Exit {
    let result = run(device, how);
    announce::outcome(&result, Readiness::read(&device.paths.run_dir()).as_ref());
    result.map_or_else(|error| error.exit(), |_| Exit::Done)
}

fn note_clock(paths: &Paths) -> Exit {
    match time_sync::note(paths) {
        Ok(is_synchronised) => log::debug!("the clock is synchronised: {is_synchronised}"),
        Err(error) => {
            log::error!("noting whether the clock is synchronised: {}", chain(&error));
            return Exit::Internal;
        }
    }
    Exit::Done
}
