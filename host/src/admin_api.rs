//! The admin's requests to the API: creates and deletes accounts, sets passwords.

mod assigned;
mod call;
pub(crate) mod connection;
pub(crate) mod login;
mod role;

use azaion_agent::api::fault::{Class, Fault, Problem};
use azaion_agent::api::http::{ApiClient, Call, Method};
use azaion_agent::api::json;
use azaion_agent::api::retry::Budget;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::error::{Error, Result};
pub(crate) use assigned::Assigned;
pub(crate) use call::AdminFault;
use call::{Request, not_permitted, refusal};
use login::AdminLogin;
use role::Role;

/// Error code of the API: no account has this e-mail.
const NO_SUCH_EMAIL: u32 = 10;
/// Error code of the API: an account with this e-mail exists.
const EMAIL_EXISTS: u32 = 20;

/// The route that creates identities.
const DEVICES: &str = "/devices";

/// The API as an admin uses it, for the requests about one device.
#[derive(Debug)]
pub(crate) struct Admin<'a> {
    http: &'a dyn ApiClient,
    budget: &'a Budget<'a>,
    login: &'a AdminLogin<'a>,
}

/// Result of a request to create an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// The account was created.
    Created {
        /// Whether the request had the role as a number.
        by_number: bool,
    },
    /// An account with this e-mail exists.
    Exists {
        /// Whether an earlier try of the same request may have created it.
        perhaps_ours: bool,
    },
}

impl<'a> Admin<'a> {
    pub(crate) fn new(http: &'a dyn ApiClient, budget: &'a Budget<'a>, login: &'a AdminLogin<'a>) -> Self {
        Self { http, budget, login }
    }

    /// Reads the credentials, or prompts for them.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.login.prepare()
    }

    /// Logs in, unless it is logged in. With a token file, checks the token with a request instead.
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
        let answer = self.budget.run(|limit| self.http.call(&call(), limit).and_then(|a| a.accept(&[200]).map(drop)));
        match answer {
            Ok(()) => Ok(()),
            Err(fault) => match refusal(fault) {
                // Some servers may not have this route; the next request checks the token as well.
                fault if fault.class() == Class::Protocol && !matches!(fault.problem, Problem::Page { .. }) => Ok(()),
                fault => Err(not_permitted(fault)),
            },
        }
    }

    /// Creates an account (`POST /users`), with the role in the form that this server accepts.
    ///
    /// If the reply is lost, the repeated request reports that the account exists.
    pub(crate) fn create(&self, email: &str, password: &SecretString) -> Result<Creation, AdminFault> {
        let form = self.login.role.form();
        match self.create_as(email, password, form) {
            Err(fault) if form == Role::NAME && fault.is_unexplained() => {
                log::info!("the API rejected the role by name; trying its number");
                let created = self.create_as(email, password, Role::NUMBER);
                if created.is_ok() {
                    self.login.role.set_by_number();
                }
                combine(fault.perhaps_done, created)
            }
            result => result,
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

    /// Returns whether accounts are created with a role number whose meaning is not confirmed yet, see [`Admin::confirm_role`].
    pub(crate) fn has_unconfirmed_role(&self) -> bool {
        self.login.role.is_unconfirmed()
    }

    /// Records that an account created with the role number has the right role.
    pub(crate) fn confirm_role(&self) {
        self.login.role.confirm();
    }

    /// Ends the admin's requests in this run: further accounts would get the wrong role.
    pub(crate) fn reject_role(&self, why: &Error) {
        self.login.give_up(why);
    }

    /// Sets an account's password (`PATCH /users/password`).
    pub(crate) fn set_password(&self, email: &str, password: &SecretString) -> Result<(), AdminFault> {
        #[derive(Serialize)]
        struct NewPassword<'a> {
            email: &'a str,
            password: &'a str,
        }
        let body = json::body(&NewPassword { email, password: password.expose_secret() });
        self.call(&Request::new(Method::PATCH, "/users/password", &[200, 204]).with(body)).map(drop)
    }

    /// Deletes an account (`DELETE /users/{email}`); succeeds if it does not exist. Not repeated after a try that may have been carried
    /// out: another run may have created the account again meanwhile.
    pub(crate) fn delete(&self, email: &str) -> Result<(), AdminFault> {
        let path = format!("/users/{email}");
        let request = Request::new(Method::DELETE, &path, &[200, 204]).once();
        match self.call(&request) {
            Err(fault) if fault.error.fault().and_then(Fault::code) == Some(NO_SUCH_EMAIL) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Requests an identity from the server (`POST /devices`). Each request creates a new one, so it is not repeated after a lost reply.
    pub(crate) fn assign(&self) -> Result<Assigned, AdminFault> {
        let request = Request::new(Method::POST, DEVICES, &[200, 201]).once();
        let answer = self.call(&request)?;
        let body =
            answer.accept(&[200, 201]).map_err(|fault| AdminFault { error: fault.into(), perhaps_done: true })?;
        assigned::parse(body).map_err(|why| {
            let error = Error::from(answer.fault(Problem::Form("it has no valid identity"))).context(why);
            AdminFault { error, perhaps_done: true }
        })
    }
}

/// Combines the result of creating an account with an earlier request that the API has `perhaps_done`.
fn combine(perhaps_done: bool, created: Result<Creation, AdminFault>) -> Result<Creation, AdminFault> {
    match created {
        Ok(Creation::Exists { perhaps_ours }) => Ok(Creation::Exists { perhaps_ours: perhaps_ours || perhaps_done }),
        Err(fault) => Err(AdminFault { perhaps_done: fault.perhaps_done || perhaps_done, ..fault }),
        created => created,
    }
}

/// Returns whether a fault means that the account exists.
fn says_exists(fault: &Fault) -> bool {
    matches!(fault.problem, Problem::Status { status: 409, code: None | Some(EMAIL_EXISTS), .. })
}
