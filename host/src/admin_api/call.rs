//! Requests that need the admin's token: sends one until it is answered, and classifies faults.

use std::cell::Cell;

use azaion_agent::api::fault::{Class, Fault, Limit, Problem};
use azaion_agent::api::http::{Answer, Call, Method};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{Admin, DEVICES, EMAIL_EXISTS};
use crate::error::Error;

/// A failed request of the admin.
#[derive(Debug)]
pub(crate) struct AdminFault {
    /// Fault of the last try.
    pub(crate) error: Error,
    /// Whether the API may have carried out the request nevertheless.
    pub(crate) perhaps_done: bool,
}

impl AdminFault {
    /// Returns whether the API has no such route.
    pub(crate) fn is_without_route(&self) -> bool {
        let fault = self.error.fault();
        fault.is_some_and(|fault| matches!(fault.status(), Some(404 | 405)) && fault.code().is_none())
    }

    /// Returns whether the API rejected the request without an error code.
    pub(super) fn is_unexplained(&self) -> bool {
        self.error.fault().is_some_and(|fault| fault.status() == Some(400) && fault.code().is_none())
    }
}

/// A request of the admin.
pub(super) struct Request<'r> {
    method: Method,
    path: &'r str,
    body: Option<Zeroizing<Vec<u8>>>,
    /// Status codes of success.
    accepted: &'r [u16],
    /// Whether to repeat the request after a try that may have been carried out.
    is_repeatable: bool,
}

impl<'r> Request<'r> {
    pub(super) fn new(method: Method, path: &'r str, accepted: &'r [u16]) -> Self {
        Self { method, path, body: None, accepted, is_repeatable: true }
    }

    /// Adds a body.
    pub(super) fn with(self, body: Zeroizing<Vec<u8>>) -> Self {
        Self { body: Some(body), ..self }
    }

    /// Forbids repeating the request after a try that may have been carried out.
    pub(super) fn once(self) -> Self {
        Self { is_repeatable: false, ..self }
    }
}

impl Admin<'_> {
    /// Sends a request until it is answered; logs in again if the token has expired.
    pub(super) fn call(&self, request: &Request<'_>) -> Result<Answer, AdminFault> {
        let perhaps_done = Cell::new(false);
        let failed = |error| AdminFault { error, perhaps_done: perhaps_done.get() };
        let token = self.login.token(self.http, self.budget).map_err(failed)?;
        let answer = match self.run(request, &token, &perhaps_done) {
            // The token may expire during a long batch.
            Err(fault) if is_refusal(&fault) && fault.status() == Some(401) && self.login.forget(&token) => {
                let token = self.login.token(self.http, self.budget).map_err(failed)?;
                self.run(request, &token, &perhaps_done)
            }
            result => result,
        };
        answer.map_err(|fault| {
            let is_refused = is_refusal(&fault);
            let error = not_permitted(fault);
            if is_refused {
                self.login.give_up(&error);
            }
            failed(error)
        })
    }

    /// Sends a request with this token until it is answered. Sets `perhaps_done` if an unanswered try may have been carried out.
    fn run(&self, request: &Request<'_>, token: &SecretString, perhaps_done: &Cell<bool>) -> Result<Answer, Fault> {
        let one_try = |limit| match self.send(request, token, limit) {
            // The fault does not show whether the API carried out the request.
            Err(fault) if !fault.is_surely_undone() && (fault.class().is_transient() || !request.is_repeatable) => {
                perhaps_done.set(true);
                // `Ok` ends the retries.
                if request.is_repeatable { Err(fault) } else { Ok(Err(fault)) }
            }
            result => result.map(Ok),
        };
        self.budget.run(one_try)?
    }

    /// Sends a request once.
    fn send(&self, request: &Request<'_>, token: &SecretString, limit: Limit) -> Result<Answer, Fault> {
        let Request { method, path, body, accepted, .. } = request;
        let call = Call { method: method.clone(), path, body: body.clone(), bearer: Some(token), is_uncached: false };
        let answer = self.http.call(&call, limit)?;
        match answer.accept(accepted).map(drop) {
            Ok(()) => Ok(answer),
            Err(fault) if *path == DEVICES => Err(numbering_race(refusal(fault))),
            Err(fault) => Err(refusal(fault)),
        }
    }
}

/// Classifies a fault of a request with a token. The API's framework refuses a token without the API's error object, mostly without a
/// body, so a 401 or 403 is a refusal unless it is a web page. An error code about credentials is about the account in the request.
pub(super) fn refusal(fault: Fault) -> Fault {
    let problem = match fault.problem {
        Problem::Status { status, code, class: Class::Refused | Class::Protocol } => {
            let class = if matches!(status, 401 | 403) { Class::Refused } else { Class::Protocol };
            Problem::Status { status, code, class }
        }
        problem => problem,
    };
    Fault { problem, ..fault }
}

/// Classifies a fault of `POST /devices`. The request has no e-mail; an e-mail that exists means that two simultaneous requests got the
/// same number, so a later try gets another one.
fn numbering_race(fault: Fault) -> Fault {
    let problem = match fault.problem {
        Problem::Status { status, code: code @ Some(EMAIL_EXISTS), .. } => {
            Problem::Status { status, code, class: Class::Later }
        }
        problem => problem,
    };
    Fault { problem, ..fault }
}

fn is_refusal(fault: &Fault) -> bool {
    fault.class() == Class::Refused
}

/// Returns the error for a fault, with advice if the API refuses the admin.
pub(super) fn not_permitted(fault: Fault) -> Error {
    if !is_refusal(&fault) {
        return fault.into();
    }
    let advice = "the API (or a gateway) does not permit this request; check that the account is an ApiAdmin and its token is valid";
    Error::from(fault).context(advice)
}
