//! The admin's access token, shared by all requests of a run: obtained with one login when it is first needed, and again after it
//! has expired.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use azaion_agent::api::fault::{Class, Fault, Problem};
use azaion_agent::api::http::ApiClient;
use azaion_agent::api::retry::Budget;
use azaion_agent::api::session::login;
use azaion_agent::common::clock::Clock;
use azaion_agent::common::exit::Exit;
use secrecy::{ExposeSecret, SecretString};

use super::role::LearnedForm;
use crate::admin_api::connection::{AdminCredentials, admin_credentials};
use crate::cli::ApiOptions;
use crate::error::{Error, Result, failure};

/// Age below which a refused token has not expired: the admin is not permitted to make the request.
const FRESH: Duration = Duration::from_mins(1);

/// The admin's login of this run.
#[derive(Debug)]
pub(crate) struct AdminLogin<'a> {
    options: &'a ApiOptions,
    clock: &'a dyn Clock,
    state: Mutex<State>,
    /// The form of the role that this server accepts.
    pub(super) role: LearnedForm,
}

#[derive(Debug, Default)]
struct State {
    /// Read once, because a person may have typed the password.
    credentials: Option<AdminCredentials>,
    token: Option<Token>,
    /// Exit code and reason of a refused login. There is no second try: ten failures lock an account.
    refused: Option<(Exit, String)>,
}

#[derive(Debug)]
struct Token {
    text: SecretString,
    /// When it was obtained, on the boot clock.
    since: Duration,
}

impl<'a> AdminLogin<'a> {
    pub(crate) fn new(options: &'a ApiOptions, clock: &'a dyn Clock) -> Self {
        Self { options, clock, state: Mutex::default(), role: LearnedForm::default() }
    }

    /// Creates a login with the given credentials.
    #[cfg(test)]
    pub(crate) fn with_credentials(
        options: &'a ApiOptions,
        clock: &'a dyn Clock,
        credentials: AdminCredentials,
    ) -> Self {
        let state = State { credentials: Some(credentials), ..State::default() };
        Self { state: Mutex::new(state), ..Self::new(options, clock) }
    }

    /// Returns whether the options have a token file instead of a password.
    pub(crate) fn has_token_file(&self) -> bool {
        self.options.admin_token_file.is_some()
    }

    /// Reads the credentials, or prompts for them, before the program prints anything else.
    pub(crate) fn prepare(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.credentials.is_none() {
            state.credentials = Some(admin_credentials(self.options)?);
        }
        Ok(())
    }

    /// Returns whether the API has refused the admin, or its response to the login is invalid; no further request is possible.
    pub(crate) fn is_refused(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).refused.is_some()
    }

    /// Returns the token, after a login if necessary. Callers wait while another thread logs in.
    pub(crate) fn token(&self, http: &dyn ApiClient, budget: &Budget<'_>) -> Result<SecretString> {
        self.prepare()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &state.token {
            return Ok(token.text.clone());
        }
        if let Some((exit, why)) = &state.refused {
            return Err(failure(*exit, why.clone()));
        }
        let text = match state.credentials.take() {
            Some(AdminCredentials::Token(token)) => token,
            Some(AdminCredentials::Password { email, password }) => {
                let result = budget.run(|limit| login(http, &email, &password, limit));
                state.credentials = Some(AdminCredentials::Password { email: email.clone(), password });
                result.map(|(tokens, _)| tokens.access).map_err(|fault| {
                    // An invalid response may be a refusal in an unknown form.
                    let is_final = matches!(fault.class(), Class::Refused | Class::Protocol);
                    let error = login_failure(fault, &email);
                    state.refused = is_final.then(|| (error.exit(), error.line()));
                    error
                })?
            }
            None => return Err(failure(Exit::Internal, "the admin's credentials are missing")),
        };
        state.token = Some(Token { text: text.clone(), since: self.clock.boot() });
        Ok(text)
    }

    /// Makes all further requests of this run fail, because the API refuses the admin.
    pub(crate) fn give_up(&self, why: &Error) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.token = None;
        state.refused = Some((why.exit(), why.line()));
    }

    /// Drops a token that the API has refused, if it may have expired. Returns whether another token is available.
    pub(crate) fn forget(&self, refused: &SecretString) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.boot();
        match &state.token {
            Some(token) if token.text.expose_secret() == refused.expose_secret() => {
                let has_expired = now.saturating_sub(token.since) >= FRESH;
                if has_expired {
                    state.token = None;
                }
                has_expired
            }
            _ => true,
        }
    }
}

fn login_failure(fault: Fault, email: &str) -> Error {
    let context = match (&fault.problem, fault.class()) {
        (Problem::Mfa, _) => {
            format!("logging in as the admin {email}; an account with MFA needs --admin-token-file")
        }
        (_, Class::Refused) => format!("logging in as the admin {email}; check the admin's e-mail and password"),
        _ => format!("logging in as the admin {email}"),
    };
    Error::from(fault).context(context)
}

#[cfg(test)]
mod tests;
