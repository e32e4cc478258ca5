//! The command line.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is no Markdown")]

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::target::Owner;

/// Makes a Jetson's account on the admin API and puts its credentials into the root file system to be flashed.
#[derive(Debug, Parser)]
#[command(name = "azaion-provision", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// One JSON object a line on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// More words on standard error; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// As root, use paths that others than root and the user who called sudo can change, too
    #[arg(long, global = true)]
    pub(crate) no_strict_modes: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the device's user and write device.conf into the target; safe to run again
    Device(DeviceOptions),
    /// The same for a list of devices, each with a target of its own; run again, it does what is left
    Batch(BatchOptions),
    /// Say what is in a target: serial, e-mail, API, when, mode, owner, the last states of a device; never the password
    Inspect {
        /// Root file systems to look into
        #[arg(value_name = "TARGET", required = true)]
        targets: Vec<PathBuf>,
    },
    /// Take device.conf out of a target again, after flashing
    Clear {
        /// Root file systems to clear
        #[arg(value_name = "TARGET", required = true)]
        targets: Vec<PathBuf>,
        /// Clear only what is this device's; another one's file is left alone
        #[arg(long, value_name = "SERIAL")]
        if_serial: Option<String>,
    },
    /// Say whether all is in place: privileges, target, API, admin login
    Check(CheckOptions),
}

#[derive(Debug, Args)]
pub(crate) struct DeviceOptions {
    /// The device's serial, as in AZJN-0042
    #[arg(required_unless_present = "server_assigned")]
    pub(crate) serial: Option<String>,
    /// Take an identity that the server makes (POST /devices) instead of one that follows from a serial. A target that holds an
    /// identity whose password works keeps it
    #[arg(long, conflicts_with_all = ["serial", "on_existing"])]
    pub(crate) server_assigned: bool,
    /// Root file system to write into; more than once for A/B layouts
    #[arg(long, value_name = "TARGET", required = true)]
    pub(crate) rootfs: Vec<PathBuf>,
    /// The module that the device is for, by what is in /proc/device-tree/serial-number there; on another one the agent
    /// does not use the credentials. Without it, what the target says already stays
    #[arg(long, value_name = "SERIAL")]
    pub(crate) module_serial: Option<String>,
    #[command(flatten)]
    pub(crate) job: JobOptions,
}

/// How a device is provisioned, whether alone or as one of many.
#[derive(Debug, Args)]
pub(crate) struct JobOptions {
    /// What to do if the user exists and its password is not known here
    #[arg(long, value_enum, default_value = "update", value_name = "ACTION")]
    pub(crate) on_existing: OnExisting,
    /// Replace another device's file in the target
    #[arg(long)]
    pub(crate) replace: bool,
    /// Log in as the device afterwards and judge the token as the device will
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) owner: OwnerOption,
    #[command(flatten)]
    pub(crate) api: ApiOptions,
}

#[derive(Debug, Args)]
pub(crate) struct BatchOptions {
    /// The units: a range such as AZJN-0001..AZJN-0050, a file with a serial a line or a CSV file with a column `serial`,
    /// or - for standard input
    pub(crate) list: String,
    /// Root file system of a unit, with {serial} where its serial stands in the path; more than once for A/B layouts
    #[arg(long, value_name = "TEMPLATE", required = true)]
    pub(crate) rootfs: Vec<String>,
    /// What a root file system that is missing is copied from: a directory, an image or an archive
    #[arg(long, value_name = "TARGET")]
    pub(crate) base: Option<PathBuf>,
    /// Units that are worked on at the same time
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// Write what became of each unit into this file, which must end in .csv or .jsonl
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Say what would be done, without a write or a call
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) job: JobOptions,
}

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Root file system to check; may be given more than once
    #[arg(long, value_name = "TARGET")]
    pub(crate) rootfs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) owner: OwnerOption,
    #[command(flatten)]
    pub(crate) api: ApiOptions,
}

#[derive(Debug, Args)]
pub(crate) struct OwnerOption {
    /// IdentitySource owns what is written into a directory: root (needs root), or the caller, for a staging tree whose owners
    /// the image builder maps
    #[arg(long, value_enum, default_value = "root", value_name = "OWNER")]
    pub(crate) owner: Owner,
}

/// Texts, judged later: clap would repeat a value that it refuses, and that may be a secret in the wrong place.
#[derive(Debug, Args)]
pub(crate) struct ApiOptions {
    /// The admin API; https, or plain http to a loopback address
    #[arg(long, env = "AZAION_API_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) api_url: String,
    /// PEM file with CA certificates, added to the usual roots
    #[arg(long, env = "AZAION_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// HTTP proxy that connections to the API are tunnelled through (CONNECT). No other variable about proxies is obeyed
    #[arg(long, env = "AZAION_PROXY", hide_env_values = true, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// The admin's e-mail; needed unless --admin-token-file is given
    #[arg(long, env = "AZAION_ADMIN_EMAIL", hide_env_values = true, value_name = "EMAIL")]
    pub(crate) admin_email: Option<String>,
    /// File with the admin's password; else AZAION_ADMIN_PASSWORD; else it is asked for on a terminal
    #[arg(long, env = "AZAION_ADMIN_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) admin_password_file: Option<PathBuf>,
    /// File with an admin's access token, instead of a login
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Seconds for all calls to the API for one device and the waits between them [default: 30; in a batch 300, for the API may
    /// ask a host to wait]. Copies, checks and a password that is typed do not count
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) deadline: Option<u64>,
}

impl ValueEnum for Owner {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Root, Self::Current]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Root => PossibleValue::new("root").help("Root, by number"),
            Self::Current => PossibleValue::new("current").help("The caller"),
        })
    }
}

/// What to do if the user exists and its password is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnExisting {
    /// Set a new password; a unit flashed earlier with this serial can no longer log in
    Update,
    /// Change nothing and fail
    Refuse,
    /// Delete the user and make it again, with another id, where a password can't be set; never one whose password in the target works
    Recreate,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  done
  64  wrong command line
  65  bad serial, or bad data in the target
  66  target missing, or of a kind that can't take a device.conf
  69  the API is out of reach
  70  a fault of the tool's own
  73  another device's file is there, or the user exists and may not be changed
  74  reading or writing failed
  75  the API says later, or another run holds the target
  76  the server's answer can't be accepted
  77  not permitted: not root, or the admin is refused
  78  configuration
 130  interrupted; of a batch, what was begun is finished";
