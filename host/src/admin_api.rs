//! The admin's part of the API: making and deleting users, setting passwords.

mod assigned;
pub(crate) mod connection;
pub(crate) mod login;
mod role;

use std::cell::Cell;

use azaion_agent::api::fault::{Class, Fault, Limit, Problem};
use azaion_agent::api::http::{Answer, ApiClient, Call, Method};
use azaion_agent::api::json;
use azaion_agent::api::retry::Budget;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
pub(crate) use assigned::Assigned;
use login::AdminLogin;
use role::Role;

/// The API's error code for an e-mail that has no user.
const NO_SUCH_EMAIL: u32 = 10;
/// The API's error code for an e-mail that has a user already.
const EMAIL_EXISTS: u32 = 20;

/// The route that makes identities.
const DEVICES: &str = "/devices";

/// The API with an admin's eyes, for one device's calls.
#[derive(Debug)]
pub(crate) struct Admin<'a> {
    http: &'a dyn ApiClient,
    budget: &'a Budget<'a>,
    login: &'a AdminLogin<'a>,
}

/// What came of asking for a new user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// It was made.
    Created {
        /// Whether its role was given as a number.
        by_number: bool,
    },
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

impl AdminFault {
    /// Whether there is no such route.
    pub(crate) fn is_without_route(&self) -> bool {
        let fault = self.error.fault();
        fault.is_some_and(|fault| matches!(fault.status(), Some(404 | 405)) && fault.code().is_none())
    }

    /// Whether the request was not accepted, without the API's word why.
    fn is_unexplained(&self) -> bool {
        self.error.fault().is_some_and(|fault| fault.status() == Some(400) && fault.code().is_none())
    }
}

/// A request for the admin.
struct Request<'r> {
    method: Method,
    path: &'r str,
    body: Option<Zeroizing<Vec<u8>>>,
    accepted: &'r [u16],
    /// Whether it may be made again after a try that may have been carried out.
    is_repeatable: bool,
}

impl<'a> Admin<'a> {
    pub(crate) fn new(http: &'a dyn ApiClient, budget: &'a Budget<'a>, login: &'a AdminLogin<'a>) -> Self {
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
                fault if fault.class() == Class::Protocol && !matches!(fault.problem, Problem::Page { .. }) => Ok(()),
                fault => Err(not_permitted(fault)),
            },
        }
    }

    /// `POST /users`, with the role in the form that this server takes.
    ///
    /// The reply to a call that was carried out may be lost; the same call made again then says that the user exists.
    pub(crate) fn create(&self, email: &str, password: &SecretString) -> Result<Creation, AdminFault> {
        let form = self.login.role.form();
        match self.create_as(email, password, form) {
            Err(before) if form == Role::NAME && before.is_unexplained() => {
                log::info!("the API may not know the role by its name; it is given the number");
                let created = self.create_as(email, password, Role::NUMBER);
                if created.is_ok() {
                    self.login.role.takes_number();
                }
                after(before.perhaps_done, created)
            }
            done => done,
        }
    }

    fn create_as(&self, email: &str, password: &SecretString, role: Role) -> Result<Creation, AdminFault> {
        #[derive(Serialize)]
        struct NewUser<'a> {
            email: &'a str,
            password: &'a str,
            role: Role,
        }
        let body = json::body(&NewUser { email, password: password.expose_secret(), role });
        match self.call(&Request::new(Method::POST, "/users", &[200, 201]).with(body)) {
            Ok(_) => Ok(Creation::Created { by_number: role == Role::NUMBER }),
            Err(AdminFault { error, perhaps_done }) if error.fault().is_some_and(says_exists) => {
                Ok(Creation::Exists { perhaps_ours: perhaps_done })
            }
            Err(fault) => Err(fault),
        }
    }

    /// Whether nobody has seen yet that the number which users are made with means this role, see [`Admin::role_is_right`].
    pub(crate) fn has_unchecked_role(&self) -> bool {
        self.login.role.is_to_be_checked()
    }

    /// A user that was made by the number has the right role.
    pub(crate) fn role_is_right(&self) {
        self.login.role.is_right();
    }

    /// Nothing more is asked for in this run: each user would be made with the wrong role.
    pub(crate) fn role_is_wrong(&self, why: &Error) {
        self.login.give_up(why);
    }

    /// `PATCH /users/password`.
    pub(crate) fn set_password(&self, email: &str, password: &SecretString) -> Result<(), AdminFault> {
        #[derive(Serialize)]
        struct NewPassword<'a> {
            email: &'a str,
            password: &'a str,
        }
        let body = json::body(&NewPassword { email, password: password.expose_secret() });
        self.call(&Request::new(Method::PATCH, "/users/password", &[200, 204]).with(body)).map(drop)
    }

    /// `DELETE /users/{email}`. A user that is not there any more is as good as deleted. Not made again after a try that may have been
    /// carried out: somebody may have made the user again meanwhile.
    pub(crate) fn delete(&self, email: &str) -> Result<(), AdminFault> {
        let path = format!("/users/{email}");
        let request = Request { is_repeatable: false, ..Request::new(Method::DELETE, &path, &[200, 204]) };
        match self.call(&request) {
            Err(fault) if fault.error.fault().and_then(Fault::code) == Some(NO_SUCH_EMAIL) => Ok(()),
            done => done.map(drop),
        }
    }

    /// `POST /devices`: an identity that the server makes. Each call makes a new one, so it is not made again after a reply that was
    /// lost.
    pub(crate) fn assign(&self) -> Result<Assigned, AdminFault> {
        let request = Request { is_repeatable: false, ..Request::new(Method::POST, DEVICES, &[200, 201]) };
        let answer = self.call(&request)?;
        let body =
            answer.accept(&[200, 201]).map_err(|fault| AdminFault { error: fault.into(), perhaps_done: true })?;
        assigned::parse(body).map_err(|why| {
            let error = Error::from(answer.fault(Problem::Form("it names no identity that can be used"))).context(why);
            AdminFault { error, perhaps_done: true }
        })
    }

    /// Makes a call until it is answered.
    fn call(&self, request: &Request<'_>) -> Result<Answer, AdminFault> {
        let perhaps_done = Cell::new(false);
        let failed = |error| AdminFault { error, perhaps_done: perhaps_done.get() };
        let token = self.login.token(self.http, self.budget).map_err(failed)?;
        let answer = match self.run(request, &token, &perhaps_done) {
            // It may have run out in a long batch.
            Err(fault) if refuses_the_admin(&fault) && fault.status() == Some(401) && self.login.forget(&token) => {
                let token = self.login.token(self.http, self.budget).map_err(failed)?;
                self.run(request, &token, &perhaps_done)
            }
            done => done,
        };
        answer.map_err(|fault| {
            let is_refused = refuses_the_admin(&fault);
            let error = not_permitted(fault);
            if is_refused {
                self.login.give_up(&error);
            }
            failed(error)
        })
    }

    /// The same with this token; notes whether a try may have been carried out without our knowing.
    fn run(&self, request: &Request<'_>, token: &SecretString, perhaps_done: &Cell<bool>) -> Result<Answer, Fault> {
        let one_try = |limit| match self.ask(request, token, limit) {
            // What is not repeated ends with an answer of any kind, of which nobody knows what was done before it.
            Err(fault) if !fault.is_surely_undone() && (fault.class().is_transient() || !request.is_repeatable) => {
                perhaps_done.set(true);
                // As an answer, so that it is the last one.
                if request.is_repeatable { Err(fault) } else { Ok(Err(fault)) }
            }
            done => done.map(Ok),
        };
        self.budget.run(one_try)?
    }

    fn ask(&self, request: &Request<'_>, token: &SecretString, limit: Limit) -> Result<Answer, Fault> {
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

impl<'r> Request<'r> {
    fn new(method: Method, path: &'r str, accepted: &'r [u16]) -> Self {
        Self { method, path, body: None, accepted, is_repeatable: true }
    }

    fn with(self, body: Zeroizing<Vec<u8>>) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// What came of making a user, where an earlier call for it was `perhaps_done`.
fn after(perhaps_done: bool, created: Result<Creation, AdminFault>) -> Result<Creation, AdminFault> {
    match created {
        Ok(Creation::Exists { perhaps_ours }) => Ok(Creation::Exists { perhaps_ours: perhaps_ours || perhaps_done }),
        Err(fault) => Err(AdminFault { perhaps_done: fault.perhaps_done || perhaps_done, ..fault }),
        created => created,
    }
}

/// What a fault of a call with a token means. The API's framework refuses a token without the API's error object, mostly without any
/// body, so that a 401 or 403 is a refusal, unless it is a web page. A code about credentials is about the user that the call names.
fn refusal(fault: Fault) -> Fault {
    let problem = match fault.problem {
        Problem::Status { status, code, class: Class::Refused | Class::Protocol } => {
            let class = if matches!(status, 401 | 403) { Class::Refused } else { Class::Protocol };
            Problem::Status { status, code, class }
        }
        problem => problem,
    };
    Fault { problem, ..fault }
}

/// `POST /devices` names no e-mail. That one exists says that two calls at once were given the same number: the next one gets another.
fn numbering_race(fault: Fault) -> Fault {
    let problem = match fault.problem {
        Problem::Status { status, code: code @ Some(EMAIL_EXISTS), .. } => {
            Problem::Status { status, code, class: Class::Later }
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
