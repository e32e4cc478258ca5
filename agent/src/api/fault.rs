//! What can go wrong when talking to the API, and whether trying again helps: one table for both programs.

use std::error::Error;
use std::time::Duration;

use crate::api::token::error::TokenError;
pub use crate::api::transport::OutsideValidity;
use crate::api::transport::Transport;
use crate::common::clock::Timestamp;
use crate::common::exit::Exit;
use crate::common::plain_text::escaped;

/// What a fault means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No answer came: trying again may help.
    Unreachable,
    /// An answer came damaged, or from something that is not the API: trying again may help.
    Garbled,
    /// The API says to come back later.
    Later,
    /// The answer was clear, and can't be accepted.
    Protocol,
    /// The API itself refuses the credentials; trying again does harm, ten failures lock an account.
    Refused,
    /// A signal asked the program to end before the call was made.
    Interrupted,
}

impl Class {
    /// Whether the same call may succeed if made again.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Garbled | Self::Later)
    }

    /// The agent's exit code.
    pub fn on_device(self) -> Exit {
        match self {
            Self::Unreachable | Self::Garbled | Self::Later => Exit::Later,
            Self::Protocol => Exit::Protocol,
            Self::Refused => Exit::Refused,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// The host tool's exit code.
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

/// The time that a call may take; or why it is not made.
pub type Limit = Result<Duration, NotCalled>;

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCalled {
    /// The time for calls is used up.
    #[error("the time for calls is used up; run this again, or give it more time (--deadline)")]
    NoTime,
    /// A signal asked the program to end.
    #[error("interrupted; run this again")]
    Interrupted,
    /// The device's hold file is there.
    #[error("the device is held")]
    Held,
}

/// A call that did not give what was asked for. Names host and step, never content.
#[derive(Debug, thiserror::Error)]
#[error("{step} at {host}{}", retry_after.map_or(String::new(), |wait| format!(" (asks to wait {} s)", wait.as_secs())))]
pub struct Fault {
    /// The call, as in `POST /login`.
    pub step: String,
    /// Host and port.
    pub host: String,
    /// How long the API asked to wait.
    pub retry_after: Option<Duration>,
    /// What went wrong.
    #[source]
    pub problem: Problem,
}

/// What went wrong with a call.
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
    #[error("the answer is not JSON; is this the API, or a captive portal?")]
    NotJson,
    #[error("the answer has not the expected form: {0}")]
    Form(&'static str),
    #[error("HTTP {status}{}{}", code_text(*code), hint(*status, *code, *class))]
    Status { status: u16, code: Option<u32>, class: Class },
    #[error(
        "HTTP {status}: a web page came instead of the API's answer, so a proxy, a firewall or a captive portal stands in between; \
         let this machine through it, or correct the API URL"
    )]
    Page { status: u16, class: Class },
    #[error(
        "HTTP {0}: a redirect is not followed, a password goes to the configured address alone; correct the API URL"
    )]
    Redirect(u16),
    #[error(
        "the server says that it is {date}, and its certificate {why}; its clock is wrong, or its certificate has expired"
    )]
    OutsideCertificate { date: Timestamp, why: OutsideValidity },
    #[error(
        "the answer has no Date header; the server's certificate is valid at some time only, and nobody knows the time here; set the \
         clock, or let the server send Date"
    )]
    NoDate,
    #[error("the account asks for a second factor, which a device can't give; switch MFA off for it")]
    Mfa,
    #[error("the token is refused")]
    Token(#[source] TokenError),
    #[error("the key of the token is not in the server's list, which may be an old one from a cache")]
    KeyNotListed,
}

impl Fault {
    /// What this fault means for the caller.
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

    /// Whether the server certainly has not done what it was asked: no connection came about, or it said so.
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

    /// When the server's certificate ended, where that is why no answer came.
    pub fn certificate_ended(&self) -> Option<Timestamp> {
        match self.problem {
            Problem::Transport { kind: Transport::Expired { until }, .. } => until,
            _ => None,
        }
    }

    /// The code of the API's error object, where one came.
    pub fn code(&self) -> Option<u32> {
        match self.problem {
            Problem::Status { code, .. } => code,
            _ => None,
        }
    }

    /// The HTTP status, where one came.
    pub fn status(&self) -> Option<u16> {
        match self.problem {
            Problem::Status { status, .. } | Problem::Page { status, .. } | Problem::Redirect(status) => Some(status),
            _ => None,
        }
    }
}

/// What an error status means; `code` is that of the API's error object (`json::error_code`), where the answer is one.
///
/// Only the API's own word is a refusal: proxies, firewalls and portals answer with 401, 403 and 409, too, and know nothing about
/// the credentials. The codes are: 10 no such e-mail, 30 wrong password, 37 wrong e-mail, 38 disabled, 70 any of these. They are
/// known with 409 (until 13 May 2026) and 401 (70, since 14 May); for 37, and for a validation (400), a missing user (404) or a
/// disabled one (403), no source names the status, so each of the five counts. With any other status the code says nothing: 423,
/// 429 and 5xx mean "later" whatever is in them. A 401 with `Retry-After` is a limit or a lock.
pub fn class_of(status: u16, code: Option<u32>, asks_to_wait: bool) -> Class {
    match (status, code) {
        (401, _) if asks_to_wait => Class::Later,
        (400 | 401 | 403 | 404 | 409, Some(10 | 30 | 37 | 38 | 70)) => Class::Refused,
        (407 | 408 | 423 | 425 | 429 | 500..=599, _) => Class::Later,
        _ => Class::Protocol,
    }
}

/// Whether an answer with this status is the API's only if it is the API's error object.
pub(crate) fn needs_error_object(status: u16) -> bool {
    matches!(status, 401 | 403 | 409)
}

/// An error and its causes on one line, as messages and the journal have them, without control characters.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |e| (*e).source());
    escaped(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")).into_owned()
}

fn code_text(code: Option<u32>) -> String {
    code.map_or(String::new(), |code| format!(", error code {code}"))
}

/// What happened and what to do, by status and error code. A refusal without a code is that of a token (the host's admin).
fn hint(status: u16, code: Option<u32>, class: Class) -> &'static str {
    match (status, code, class) {
        (401, _, Class::Later) => ": the API asks to wait; too many logins, or the account is locked for now",
        (407, ..) => ": a proxy in between asks for a login of its own; let the proxy know this machine by its address",
        (423, ..) => ": the account is locked for now",
        (429, ..) => ": too many logins or other calls from this address for now",
        (408 | 425 | 500..=599, ..) => ": the API can't answer now",
        (_, Some(10 | 37), Class::Refused) => ": there is no account with this e-mail; create it on the admin API",
        (_, Some(30), Class::Refused) => ": the password is wrong; the account has another one",
        (_, Some(38), Class::Refused) => ": the account is disabled; enable it on the admin API",
        (_, Some(70), Class::Refused) => {
            ": the credentials are refused; check on the admin API that the account exists, is enabled and has this password"
        }
        (401, _, Class::Refused) => ": the token is not accepted",
        (403, _, Class::Refused) => ": not permitted for this account",
        (_, Some(10), _) => ": no account with this e-mail",
        (_, Some(20), _) => ": an account with this e-mail exists",
        (_, Some(50), _) => ": the account is locked for now",
        (_, Some(51), _) => ": too many logins from this address for now",
        (_, Some(52), _) => ": the refresh token is not accepted",
        (401 | 403 | 409, None, _) => {
            ": this is not an error of the API (ErrorCode and Message are not both in it), so a proxy, a firewall or a gateway may \
             stand in between; let this machine through it, or correct the API URL"
        }
        (400, None, _) => ": the request is not accepted, and no error code says why",
        (404, ..) => ": no such route; is the API URL right?",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the table of exit codes and classes in one place.
    #[test]
    fn statuses_have_their_class() {
        use Class::{Later, Protocol, Refused};
        for (status, code, waits, class) in [
            (400, None, false, Protocol),
            (400, None, true, Protocol),
            (400, Some(35), false, Protocol),
            (401, None, true, Later),
            (401, Some(52), false, Protocol),
            (401, Some(70), true, Later),
            (403, Some(70), true, Refused),
            (404, None, false, Protocol),
            (405, Some(30), false, Protocol),
            (407, None, false, Later),
            (407, Some(30), false, Later),
            (408, None, false, Later),
            (409, Some(20), false, Protocol),
            (409, Some(30), true, Refused),
            (423, Some(50), true, Later),
            (423, Some(70), false, Later),
            (425, None, false, Later),
            (429, Some(51), true, Later),
            (500, None, false, Later),
            (503, Some(30), true, Later),
            (599, None, false, Later),
            (204, None, false, Protocol),
        ] {
            assert_eq!(class_of(status, code, waits), class, "{status} {code:?} {waits}");
        }
    }

    // Promise: a refusal is the API's error object with a code about the credentials, and no other answer with these statuses.
    #[test]
    fn only_the_api_refuses() {
        for status in [400, 401, 403, 404, 409] {
            for code in [10, 30, 37, 38, 70] {
                assert_eq!(class_of(status, Some(code), false), Class::Refused, "{status} {code}");
            }
            for code in [None, Some(0), Some(20), Some(32), Some(35), Some(40), Some(50), Some(51), Some(52), Some(53)]
            {
                assert_eq!(class_of(status, code, false), Class::Protocol, "{status} {code:?}");
            }
        }
    }

    // Promise: on the host a 407 is "later", not an answer that can't be accepted.
    #[test]
    fn a_proxy_that_wants_a_login_is_waited_for() {
        let class = class_of(407, None, false);
        assert!(class.is_transient());
        assert_eq!((class.on_device(), class.on_host()), (Exit::Later, Exit::Later));
    }

    // Promise: each message about a refusal says who refuses, and what to do about it.
    #[test]
    fn messages_say_who_refuses() {
        for (status, code, says) in [
            (409, Some(10), "no account with this e-mail; create it"),
            (409, Some(30), "the password is wrong"),
            (409, Some(38), "disabled; enable it"),
            (401, Some(70), "the credentials are refused; check"),
            (401, None, "not an error of the API"),
            (403, None, "not an error of the API"),
            (409, None, "not an error of the API"),
            (407, None, "a proxy in between asks for a login"),
        ] {
            let problem = Problem::Status { status, code, class: class_of(status, code, false) };
            assert!(problem.to_string().contains(says), "{problem}");
        }
        assert!(Problem::Page { status: 403, class: Class::Protocol }.to_string().contains("captive portal"));
    }
}
