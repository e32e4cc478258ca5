//! The admin's part of the API: making users and setting passwords.

use std::cell::Cell;

use azaion_agent::exit::Exit;
use azaion_agent::fault::{Class, Fault, Limit, Problem};
use azaion_agent::http::{Call, Http, Method};
use azaion_agent::identity::ROLE;
use azaion_agent::json;
use azaion_agent::retry::Budget;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::admin_login::AdminLogin;
use crate::error::{Error, Result, failure};

/// The API's error code for an e-mail that has a user already.
const EMAIL_EXISTS: u32 = 20;

/// The API with an admin's eyes, for one device's calls.
#[derive(Debug)]
pub(crate) struct Admin<'a> {
    http: &'a Http,
    budget: &'a Budget<'a>,
    login: &'a AdminLogin<'a>,
}

/// What came of asking for a new user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// It was made.
    Created,
    /// A user with this e-mail was there.
    Exists {
        /// Whether an earlier try of the same call may have made it.
        perhaps_ours: bool,
    },
}

/// A call for the admin that failed.
#[derive(Debug)]
pub(crate) struct AdminFault {
    /// The last fault.
    pub(crate) error: Error,
    /// Whether the API may have done it all the same.
    pub(crate) perhaps_done: bool,
}

impl<'a> Admin<'a> {
    pub(crate) fn new(http: &'a Http, budget: &'a Budget<'a>, login: &'a AdminLogin<'a>) -> Self {
        Self { http, budget, login }
    }

    /// Reads the credentials, or asks for them.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.login.prepare()
    }

    /// Logs in, if that has not been done; a token that was given is shown to the API instead.
    pub(crate) fn log_in(&self) -> Result<()> {
        let token = self.login.token(self.http, self.budget)?;
        if !self.login.has_token_file() {
            return Ok(());
        }
        let call = || Call {
            method: Method::GET,
            path: "/users/current",
            body: None,
            bearer: Some(&token),
            is_uncached: false,
        };
        let asked = self.budget.run(|limit| self.http.call(&call(), limit).and_then(|a| a.accept(&[200]).map(drop)));
        match asked {
            Ok(()) => Ok(()),
            Err(fault) => match refusal(fault) {
                // Not every server may have this route, and the next call tells as well.
                fault if fault.class() == Class::Unacceptable && !matches!(fault.problem, Problem::Page { .. }) => {
                    Ok(())
                }
                fault => Err(not_permitted(fault)),
            },
        }
    }

    /// `POST /users`.
    ///
    /// The reply to a call that was carried out may be lost; the same call made again then says that the user exists.
    pub(crate) fn create(&self, email: &str, password: &SecretString) -> Result<Creation, AdminFault> {
        #[derive(Serialize)]
        struct NewUser<'a> {
            email: &'a str,
            password: &'a str,
            role: &'a str,
        }
        let perhaps_ours = Cell::new(false);
        let created = self.call((Method::POST, "/users"), &[200, 201], &perhaps_ours, || {
            json::body(&NewUser { email, password: password.expose_secret(), role: ROLE })
        });
        match created {
            Ok(()) => Ok(Creation::Created),
            Err(error) if error.fault().is_some_and(says_exists) => {
                Ok(Creation::Exists { perhaps_ours: perhaps_ours.get() })
            }
            Err(error) => Err(AdminFault { error, perhaps_done: perhaps_ours.get() }),
        }
    }

    /// `PATCH /users/password`.
    pub(crate) fn set_password(&self, email: &str, password: &SecretString) -> Result<(), AdminFault> {
        #[derive(Serialize)]
        struct NewPassword<'a> {
            email: &'a str,
            password: &'a str,
        }
        let perhaps_done = Cell::new(false);
        let body = || json::body(&NewPassword { email, password: password.expose_secret() });
        self.call((Method::PATCH, "/users/password"), &[200, 204], &perhaps_done, body).map_err(|error| {
            let error = match error.fault().and_then(Fault::status) {
                Some(404 | 405) => error.context(cannot_update(email)),
                _ => error,
            };
            AdminFault { error, perhaps_done: perhaps_done.get() }
        })
    }

    /// Makes a call until it is answered; notes whether a try may have been carried out without our knowing.
    fn call(
        &self,
        (method, path): (Method, &'static str),
        accepted: &[u16],
        perhaps_done: &Cell<bool>,
        body: impl Fn() -> zeroize::Zeroizing<Vec<u8>>,
    ) -> Result<()> {
        let one_try = |token: &SecretString, limit: Limit| {
            let call =
                Call { method: method.clone(), path, body: Some(body()), bearer: Some(token), is_uncached: false };
            let answer = self.http.call(&call, limit);
            answer.and_then(|answer| answer.accept(accepted).map(drop)).map_err(refusal).inspect_err(|fault| {
                if fault.class().is_transient() && !fault.is_surely_undone() {
                    perhaps_done.set(true);
                }
            })
        };
        let token = self.login.token(self.http, self.budget)?;
        match self.budget.run(|limit| one_try(&token, limit)) {
            // It may have run out in a long batch.
            Err(fault) if refuses_the_admin(&fault) && fault.status() == Some(401) && self.login.forget(&token) => {
                let token = self.login.token(self.http, self.budget)?;
                self.budget.run(|limit| one_try(&token, limit))
            }
            done => done,
        }
        .map_err(|fault| {
            let is_refused = refuses_the_admin(&fault);
            let error = not_permitted(fault);
            if is_refused {
                self.login.give_up(&error);
            }
            error
        })
    }
}

/// What a fault of a call with a token means. The API's framework refuses a token without the API's error object, mostly without any
/// body, so that a 401 or 403 is a refusal, unless it is a web page. A code about credentials is about the user that the call names.
fn refusal(fault: Fault) -> Fault {
    let problem = match fault.problem {
        Problem::Status { status, code, class: Class::Refused | Class::Unacceptable } => {
            let class = if matches!(status, 401 | 403) { Class::Refused } else { Class::Unacceptable };
            Problem::Status { status, code, class }
        }
        problem => problem,
    };
    Fault { problem, ..fault }
}

fn refuses_the_admin(fault: &Fault) -> bool {
    fault.class() == Class::Refused
}

fn not_permitted(fault: Fault) -> Error {
    if !refuses_the_admin(&fault) {
        return fault.into();
    }
    let advice =
        "the admin may not do this, unless a gateway in between says so; is it an ApiAdmin, is the token still valid?";
    Error::from(fault).context(advice)
}

fn says_exists(fault: &Fault) -> bool {
    matches!(fault.problem, Problem::Status { status: 409, code: None | Some(EMAIL_EXISTS), .. })
}

fn cannot_update(email: &str) -> String {
    format!(
        "the user {email} exists with a password that is not known here, and this server can't set another; \
         delete the user there and run this again"
    )
}

/// The error for a user that exists where none may be changed.
pub(crate) fn exists(email: &str) -> Error {
    failure(
        Exit::Exists,
        format!(
            "the user {email} exists with a password that is not known here; run this again with --on-existing update \
             to set a new one (a unit flashed earlier with this serial can then no longer log in)"
        ),
    )
}
