//! Errors of API calls, and whether a retry helps: one table for both programs.

mod status;

use std::error::Error;
use std::time::Duration;

use crate::api::token::error::TokenError;
pub use crate::api::transport::OutsideValidity;
use crate::api::transport::Transport;
use crate::common::clock::Timestamp;
use crate::common::exit::Exit;
use crate::common::plain_text::escaped;

pub use status::class_of;
pub(crate) use status::needs_error_object;
use status::{code_text, hint};

/// The class of a fault, which determines retries and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No answer came: a retry may help.
    Unreachable,
    /// The answer is damaged, or comes from something else than the API: a retry may help.
    Garbled,
    /// The API asks to try again later.
    Later,
    /// The answer is complete but invalid, or reports an error that a retry does not fix.
    Protocol,
    /// The API refuses the credentials; a retry does harm, because ten failures lock an account.
    Refused,
    /// A signal asked the program to end before the call.
    Interrupted,
}

impl Class {
    /// Whether a retry of the same call may succeed.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Garbled | Self::Later)
    }

    /// Returns the agent's exit code for this class.
    pub fn on_device(self) -> Exit {
        match self {
            Self::Unreachable | Self::Garbled | Self::Later => Exit::Later,
            Self::Protocol => Exit::Protocol,
            Self::Refused => Exit::Refused,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// Returns the host tool's exit code for this class.
    pub fn on_host(self) -> Exit {
        match self {
            Self::Unreachable => Exit::Unreachable,
            Self::Later => Exit::Later,
            Self::Garbled | Self::Protocol => Exit::Protocol,
            Self::Refused => Exit::Refused,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

/// The time limit of a call, or the reason why it is not made.
pub type Limit = Result<Duration, NotCalled>;

/// The reason why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCalled {
    /// The time for calls is used up.
    #[error("the time for calls is used up; run this again, or give it more time (--deadline)")]
    NoTime,
    /// A signal asked the program to end.
    #[error("interrupted; run this again")]
    Interrupted,
    /// The device's hold file exists.
    #[error("the device is held")]
    Held,
}

/// A failed API call. Names the host and the step, never content.
#[derive(Debug, thiserror::Error)]
#[error("{step} at {host}{}", retry_after.map_or(String::new(), |wait| format!(" (asks to wait {} s)", wait.as_secs())))]
pub struct Fault {
    /// The call, such as `POST /login`.
    pub step: String,
    /// Host and port.
    pub host: String,
    /// How long the API asked to wait.
    pub retry_after: Option<Duration>,
    /// What went wrong.
    #[source]
    pub problem: Problem,
}

/// The reason why a call failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum Problem {
    #[error("{kind} ({}{detail})", proxy.as_ref().map_or(String::new(), |proxy| format!("proxy {proxy}: ")))]
    Transport { kind: Transport, detail: Box<str>, before_request: bool, proxy: Option<Box<str>> },
    #[error("the call was not made")]
    NotCalled(#[source] NotCalled),
    #[error("the network has changed during the call")]
    Overtaken,
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error(
        "the answer is not JSON, so it may come from a captive portal or another server; check the network and the API URL"
    )]
    NotJson,
    #[error("the answer does not have the expected form: {0}")]
    Form(&'static str),
    #[error("HTTP {status}{}{}", code_text(*code), hint(*status, *code, *class))]
    Status { status: u16, code: Option<u32>, class: Class },
    #[error(
        "HTTP {status}: a web page came instead of the API's answer, so a proxy, a firewall or a captive portal may intercept the \
         connection; have it let this machine through, or correct the API URL"
    )]
    Page { status: u16, class: Class },
    #[error(
        "HTTP {0}: redirects are not followed, because the password is sent only to the configured URL; correct the API URL"
    )]
    Redirect(u16),
    #[error(
        "the server's Date header says {date}, and its certificate {why}; its clock is wrong, or its certificate has expired"
    )]
    OutsideCertificate { date: Timestamp, why: OutsideValidity },
    #[error(
        "the answer has no Date header, and the clock is not reliable, so the server's certificate can't be validated; set the clock, \
         or make the server send Date"
    )]
    NoDate,
    #[error("the account requires a second factor, which a device can't provide; disable MFA for this account")]
    Mfa,
    #[error("the token is refused")]
    Token(#[source] TokenError),
    #[error("the token's key is not in the server's key list, which may be outdated in a cache")]
    KeyNotListed,
}

impl Problem {
    /// Converts an error below HTTP.
    pub(crate) fn of_transport(error: &reqwest::Error) -> Self {
        let (kind, detail) = Transport::of(error);
        Self::Transport { kind, detail: detail.into(), before_request: error.is_connect(), proxy: None }
    }
}

impl Fault {
    /// Returns the class of this fault.
    pub fn class(&self) -> Class {
        match &self.problem {
            Problem::NotCalled(NotCalled::Interrupted) => Class::Interrupted,
            Problem::Transport { .. } | Problem::Overtaken | Problem::NotCalled(NotCalled::NoTime) => {
                Class::Unreachable
            }
            Problem::NotCalled(NotCalled::Held) | Problem::KeyNotListed => Class::Later,
            Problem::TooLarge(_) | Problem::NotJson => Class::Garbled,
            Problem::Status { class, .. } | Problem::Page { class, .. } => *class,
            Problem::Form(_)
            | Problem::Redirect(_)
            | Problem::OutsideCertificate { .. }
            | Problem::NoDate
            | Problem::Token(_) => Class::Protocol,
            Problem::Mfa => Class::Refused,
        }
    }

    /// Whether the server certainly did not carry out the call: there was no connection, or the answer says so.
    pub fn is_surely_undone(&self) -> bool {
        match self.problem {
            Problem::Transport { before_request, .. } => before_request,
            Problem::NotCalled(_) => true,
            Problem::Status { status, .. } | Problem::Page { status, .. } => {
                (400..500).contains(&status) && status != 408
            }
            _ => false,
        }
    }

    /// Returns when the server's certificate expired, if that is why the call failed.
    pub fn certificate_ended(&self) -> Option<Timestamp> {
        match self.problem {
            Problem::Transport { kind: Transport::Expired { until }, .. } => until,
            _ => None,
        }
    }

    /// Returns the code of the API's error object, if the answer has one.
    pub fn code(&self) -> Option<u32> {
        match self.problem {
            Problem::Status { code, .. } => code,
            _ => None,
        }
    }

    /// Returns the HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self.problem {
            Problem::Status { status, .. } | Problem::Page { status, .. } | Problem::Redirect(status) => Some(status),
            _ => None,
        }
    }
}

/// Formats an error and its causes as one line for messages and the journal, without control characters.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |e| (*e).source());
    escaped(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")).into_owned()
}

#[cfg(test)]
mod tests;
