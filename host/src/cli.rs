//! Definition of the command line.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is no Markdown")]

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::target::Owner;

/// Creates a Jetson's account on the admin API and writes its credentials into the root file system to be flashed.
#[derive(Debug, Parser)]
#[command(name = "azaion-provision", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Print one JSON object per line on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Increase verbosity on standard error (repeatable)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// As root, also accept paths that users other than root and the sudo user can change
    #[arg(long, global = true)]
    pub(crate) no_strict_modes: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the device's account and write device.conf into its targets; safe to repeat
    Device(DeviceOptions),
    /// Provision a list of devices, each with its own targets; when repeated, it does the remaining devices
    Batch(BatchOptions),
    /// Print the content of targets: serial, e-mail, API, time, mode, owner, last states of the agent; never the password
    Inspect {
        /// Root file systems to inspect
        #[arg(value_name = "TARGET", required = true)]
        targets: Vec<PathBuf>,
    },
    /// Remove device.conf from targets, after flashing
    Clear {
        /// Root file systems to clear
        #[arg(value_name = "TARGET", required = true)]
        targets: Vec<PathBuf>,
        /// Clear only the file of this device; fail for another device's file and keep it
        #[arg(long, value_name = "SERIAL")]
        if_serial: Option<String>,
    },
    /// Check the prerequisites: privileges, targets, API, admin login
    Check(CheckOptions),
    /// Explain a failure: its cause, and what to do; without ID, list all
    Explain {
        /// The id of a failure, an exit code, or a printed message
        id: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DeviceOptions {
    /// Serial of the device, such as AZJN-0042
    #[arg(required_unless_present = "server_assigned")]
    pub(crate) serial: Option<String>,
    /// Use an identity that the server creates (POST /devices) instead of one derived from a serial. A target that holds an
    /// identity with a working password keeps it
    #[arg(long, conflicts_with_all = ["serial", "on_existing"])]
    pub(crate) server_assigned: bool,
    /// Root file system to write into (repeatable, for A/B layouts)
    #[arg(long, value_name = "TARGET", required = true)]
    pub(crate) rootfs: Vec<PathBuf>,
    /// Serial number of the device's module, as in its /proc/device-tree/serial-number; on another module the agent does not
    /// use the credentials. Default: the number that the target already has
    #[arg(long, value_name = "SERIAL")]
    pub(crate) module_serial: Option<String>,
    #[command(flatten)]
    pub(crate) job: JobOptions,
}

/// Options of one provisioning job, for a single device or each device of a batch.
#[derive(Debug, Args)]
pub(crate) struct JobOptions {
    /// What to do if the account exists and its password is unknown
    #[arg(long, value_enum, default_value = "update", value_name = "ACTION")]
    pub(crate) on_existing: OnExisting,
    /// Replace another device's device.conf in the target
    #[arg(long)]
    pub(crate) replace: bool,
    /// Log in as the device afterwards and validate the token as the device will
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) owner: OwnerOption,
    #[command(flatten)]
    pub(crate) api: ApiOptions,
}

#[derive(Debug, Args)]
pub(crate) struct BatchOptions {
    /// The devices: a range such as AZJN-0001..AZJN-0050, a file with one serial per line, a CSV file with a column `serial`,
    /// or - for standard input
    pub(crate) list: String,
    /// Path of a device's root file system, with {serial} in place of its serial (repeatable, for A/B layouts)
    #[arg(long, value_name = "PATTERN", required = true)]
    pub(crate) rootfs: Vec<String>,
    /// Template that missing root file systems are copied from: a directory, an image or an archive
    #[arg(long, value_name = "TARGET")]
    pub(crate) base: Option<PathBuf>,
    /// Number of devices provisioned at the same time
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// Write the result for each device to this file; its name must end in .csv or .jsonl
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Print what would be done, without writing files or calling the API
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) job: JobOptions,
}

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Root file system to check (repeatable)
    #[arg(long, value_name = "TARGET")]
    pub(crate) rootfs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) owner: OwnerOption,
    #[command(flatten)]
    pub(crate) api: ApiOptions,
}

#[derive(Debug, Args)]
pub(crate) struct OwnerOption {
    /// Owner of the files written into a directory: root (needs root), or the caller, for a staging tree whose owners the image
    /// builder maps
    #[arg(long, value_enum, default_value = "root", value_name = "OWNER")]
    pub(crate) owner: Owner,
}

/// Options about the API, as unparsed text: clap would repeat a value that it refuses, and that may be a misplaced secret.
#[derive(Debug, Args)]
pub(crate) struct ApiOptions {
    /// URL of the admin API; https, or plain http to a loopback address
    #[arg(long, env = "AZAION_API_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) api_url: String,
    /// PEM file with CA certificates, in addition to the built-in roots
    #[arg(long, env = "AZAION_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// HTTP proxy that tunnels connections to the API (CONNECT). Other proxy variables are ignored
    #[arg(long, env = "AZAION_PROXY", hide_env_values = true, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// E-mail of the admin; required unless --admin-token-file is given
    #[arg(long, env = "AZAION_ADMIN_EMAIL", hide_env_values = true, value_name = "EMAIL")]
    pub(crate) admin_email: Option<String>,
    /// File with the admin's password. Default: AZAION_ADMIN_PASSWORD, or a prompt on the terminal
    #[arg(long, env = "AZAION_ADMIN_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) admin_password_file: Option<PathBuf>,
    /// File with an access token of an admin, instead of a login
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Time limit in seconds for all API calls for one device and the waits between them [default: 30; in a batch 300, because the
    /// API may ask a host to wait]. Copies, checks and the password prompt do not count
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) deadline: Option<u64>,
}

impl ValueEnum for Owner {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Root, Self::Current]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Root => PossibleValue::new("root").help("Root (0:0)"),
            Self::Current => PossibleValue::new("current").help("The caller"),
        })
    }
}

/// What to do if the account exists and its password is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnExisting {
    /// Set a new password; a device flashed earlier with this serial can no longer log in
    Update,
    /// Change nothing and fail
    Refuse,
    /// Delete the account and create it with another id, for servers that can't set a password; never if the target's password works
    Recreate,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  done
  64  command line error
  65  invalid serial, or invalid data in the target
  66  target missing, or of an unsupported kind
  69  the API is unreachable
  70  internal error
  73  the target holds another device's file, or the account exists and may not be changed
  74  I/O error
  75  try again later: the API is busy, or another run uses the target
  76  protocol error: the server's response is invalid
  77  permission denied: not root, or the API refuses the admin
  78  configuration error
 130  interrupted; a batch finishes the devices in progress";
