//! The outcome of a run: the device is ready, or the reason why it is not.

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

/// The outcome of a run after which the device is ready.
#[derive(Debug)]
pub struct Ready {
    /// The token. `None` if it has expired and the agent renews tokens only on demand.
    pub cache: Option<TokenCache>,
    /// The content of `ready.json`.
    pub readiness: Readiness,
    /// Whether the device was not ready before this run.
    pub is_first_report: bool,
    /// Whether this run got a new token.
    pub is_renewed: bool,
    /// Why the renewal failed, if it did. The token is still valid.
    pub renewal_error: Option<String>,
}

/// The reason why the device is not ready.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum NotReady {
    #[error("cannot use the device's configuration")]
    Conf(#[from] DeviceConfError),
    #[error("this device was flashed with another device's image")]
    Board(#[from] WrongBoard),
    #[error("cannot use the fleet's policy")]
    Settings(#[from] SettingsError),
    #[error("cannot create the HTTP client")]
    Http(#[from] HttpError),
    #[error("no token from the admin API")]
    Fault(#[source] Box<Fault>),
    #[error(
        "no login is tried for another {} s; run `azaion-agent boot --now` to try at once; the last run reported: {reason}",
        left.as_secs()
    )]
    Waiting { exit: Exit, left: Duration, reason: String },
    #[error(
        "the API refused the credentials {refusals} times in a row; no login is tried for another {} s, so that the API does not lock \
         the account",
        left.as_secs()
    )]
    Gated { refusals: usize, left: Duration },
    #[error("held: no call is made to the API {0}")]
    Held(String),
    #[error("another azaion-agent run has just failed: {reason}")]
    Shared { exit: Exit, reason: String },
    #[error("another azaion-agent run is still in progress")]
    Busy,
    #[error("only root can renew the token; run this as root, or wait for azaion-agent.timer")]
    NotRoot(#[source] DeviceConfError),
    #[error("cannot use a file of the agent")]
    File(#[from] FileError),
    #[error("cannot give up root, so the agent stops")]
    Privileges(#[from] PrivilegesError),
}

impl From<Fault> for NotReady {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl NotReady {
    /// Returns whether a token that is still valid stays in use: the API has not refused the credentials, and the
    /// configuration is valid.
    pub fn keeps_valid_token(&self) -> bool {
        !matches!(self.exit(), Exit::Refused | Exit::Config)
    }

    /// Returns the exit code for this reason.
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

    /// Returns whether this run found the reason itself. The other errors repeat the reason of an earlier run.
    pub fn is_first_report(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Gated { .. } | Self::Shared { .. } | Self::Busy | Self::NotRoot(_))
    }
}

/// A failed attempt, and when the next one may succeed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: NotReady,
    /// The wait before the next attempt. `None`: the unit ends, and the timer starts it again.
    pub(super) retry: Option<Box<Retry>>,
}

/// The wait before the next attempt.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) wait: Duration,
    /// Whether `backoff.json` records the wait for later runs.
    pub(super) is_kept: bool,
    /// The network of the machine at the last call. Something new ends the wait.
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
