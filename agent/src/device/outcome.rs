//! How a run ends: ready, or why not.

use std::time::Duration;

use crate::api::fault::Fault;
use crate::api::http::HttpError;
use crate::common::device_conf::DeviceConfError;
use crate::common::exit::Exit;

use super::board::WrongBoard;
use super::cache::TokenCache;
use super::files::FileError;
use super::privileges::PrivilegesError;
use super::readiness::Readiness;
use super::settings::SettingsError;
use super::surroundings::Surroundings;

/// The device is ready.
#[derive(Debug)]
pub struct Ready {
    /// The token; none if the last one has ended, and the next one is only got for somebody who asks.
    pub cache: Option<TokenCache>,
    /// What `ready.json` says.
    pub readiness: Readiness,
    /// Whether it was not before this run.
    pub is_first_report: bool,
    /// Whether the token is a new one.
    pub is_renewed: bool,
    /// What kept the token from being renewed, though it is still valid.
    pub renewal_error: Option<String>,
}

/// The device is not ready.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum NotReady {
    #[error("the device's configuration can't be used")]
    Conf(#[from] DeviceConfError),
    #[error("this unit was flashed with another unit's image")]
    Board(#[from] WrongBoard),
    #[error("the fleet's policy can't be used")]
    Settings(#[from] SettingsError),
    #[error("the HTTP client can't be made")]
    Http(#[from] HttpError),
    #[error("no token from the admin API")]
    Fault(#[source] Box<Fault>),
    #[error(
        "no login is tried for another {} s, `azaion-agent boot --now` tries at once; the last run said: {reason}",
        left.as_secs()
    )]
    Waiting { exit: Exit, left: Duration, reason: String },
    #[error(
        "the credentials were refused {refusals} times in a row; no login is tried for another {} s, so that the API does not lock \
         the account",
        left.as_secs()
    )]
    Gated { refusals: usize, left: Duration },
    #[error("held: no call is made to the API {0}")]
    Held(String),
    #[error("another run has just tried: {reason}")]
    Shared { exit: Exit, reason: String },
    #[error("another azaion-agent run is still in progress")]
    Busy,
    #[error("only root can renew the token; run this as root, or wait for azaion-agent.timer")]
    NotRoot(#[source] DeviceConfError),
    #[error("a file of the agent's own can't be used")]
    File(#[from] FileError),
    #[error("the agent does not go on as root")]
    Privileges(#[from] PrivilegesError),
}

impl From<Fault> for NotReady {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl NotReady {
    /// Whether a token that is still valid may be used on: the API itself has not refused the credentials, and the
    /// configuration can be used.
    pub fn keeps_valid_token(&self) -> bool {
        !matches!(self.exit(), Exit::Refused | Exit::Config)
    }

    /// The exit code that tells why.
    pub fn exit(&self) -> Exit {
        match self {
            Self::File(error) if error.is_gone() => Exit::Later,
            Self::Http(HttpError::Client(_)) | Self::File(_) | Self::Privileges(_) => Exit::Internal,
            Self::Conf(_) | Self::Board(_) | Self::Settings(_) | Self::Http(_) => Exit::Config,
            Self::Fault(fault) => fault.class().on_device(),
            Self::Waiting { exit, .. } | Self::Shared { exit, .. } => *exit,
            Self::Gated { .. } => Exit::Refused,
            Self::Held(_) | Self::Busy | Self::NotRoot(_) => Exit::Later,
        }
    }

    /// Whether this run has found out something; the others repeat what an earlier one did.
    pub fn is_first_report(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Gated { .. } | Self::Shared { .. } | Self::Busy | Self::NotRoot(_))
    }
}

/// Why a turn failed, and when the next one may succeed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: NotReady,
    /// What the unit waits for; nothing where it ends instead, and the timer starts it again.
    pub(super) retry: Option<Box<Retry>>,
}

/// What a new try waits for.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) wait: Duration,
    /// Whether later runs know of it.
    pub(super) is_kept: bool,
    /// What the machine had when the last call was made: something new ends the wait.
    pub(super) surroundings: Surroundings,
}

impl Failed {
    pub(super) fn new(error: NotReady, retry: Option<Retry>) -> Self {
        Self { error, retry: retry.map(Box::new) }
    }
}

impl<E: Into<NotReady>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), retry: None }
    }
}
