//! The inputs of one provisioning job, and its steps that do not depend on where the identity comes from: logs in, tries passwords,
//! validates tokens.

use std::fmt;

use azaion_agent::api::fault::{Class, Fault, Problem};
use azaion_agent::api::http::ApiClient;
use azaion_agent::api::keys;
use azaion_agent::api::retry::Budget;
use azaion_agent::api::session;
use azaion_agent::api::token::{self, DEFAULT_ISSUER, Expected, SKEW, SignaturePolicy};
use azaion_agent::common::clock::{Clock, Timestamp};
use azaion_agent::common::device_conf::DeviceConf;
use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::{Identity, ROLE};
use secrecy::SecretString;
use serde::Serialize;

use crate::admin_api::Admin;
use crate::error::{Context, Error, Result, failure};
use crate::target::{Owner, Target};

/// Error code of the API: the account is disabled, and the password was right.
const DISABLED: u32 = 38;

/// How the device came to have the identity that is in the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum Outcome {
    /// The account was created with this password.
    Created,
    /// The account already had this password.
    Reused,
    /// The account's password was reset to this one.
    Updated,
    /// The server created the identity.
    Assigned,
}

impl Outcome {
    /// Returns the name in the output, for people and for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Reused => "reused",
            Self::Updated => "updated",
            Self::Assigned => "assigned",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Result of a login as the device.
pub(crate) enum Login {
    /// The login succeeded, with this access token.
    In(SecretString),
    /// The API refuses the login.
    Refused {
        /// Whether the account is disabled.
        is_disabled: bool,
    },
}

/// Result of trying all known passwords of an account.
pub(crate) struct Tried<'p> {
    /// The password that works.
    pub(crate) works: Option<&'p SecretString>,
    /// Whether the account is disabled, according to the API.
    pub(crate) is_disabled: bool,
}

/// Inputs of one provisioning job.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) targets: &'a [Box<dyn Target>],
    pub(crate) owner: Owner,
    pub(crate) replace: bool,
    /// Serial number of the device's module; `None` keeps the value in the targets.
    pub(crate) module_serial: Option<&'a str>,
    pub(crate) http: &'a dyn ApiClient,
    pub(crate) budget: &'a Budget<'a>,
    pub(crate) admin: Admin<'a>,
    pub(crate) clock: &'a dyn Clock,
}

impl Job<'_> {
    /// Returns the content of `device.conf` for an identity.
    pub(crate) fn conf(&self, identity: &Identity, password: &SecretString, module: Option<&str>) -> DeviceConf {
        DeviceConf {
            serial: Some(identity.serial.clone()),
            email: identity.email.clone(),
            password: password.clone(),
            api_url: self.http.api().clone(),
            provisioned_at: Some(self.now()),
            module_serial: module.map(str::to_owned),
        }
    }

    /// Returns a time that has certainly passed: the earlier one of this host's clock and the server's time. The device accepts no
    /// earlier time.
    pub(crate) fn now(&self) -> Timestamp {
        let clock = self.clock.wall();
        let Some(server) = self.http.server_date() else { return clock };
        if clock.since(server).max(server.since(clock)) > SKEW {
            log::warn!("this host's clock says {clock}, the server's clock {server}; one of them is wrong");
        }
        clock.min(server)
    }

    /// Logs in as the device. A refusal is a result, not an error.
    pub(crate) fn log_in(&self, email: &str, password: &SecretString) -> Result<Login> {
        match self.budget.run(|limit| session::login(self.http, email, password, limit)) {
            Ok((tokens, _)) => Ok(Login::In(tokens.access)),
            Err(fault) if fault.class() == Class::Refused && !matches!(fault.problem, Problem::Mfa) => {
                Ok(Login::Refused { is_disabled: fault.code() == Some(DISABLED) })
            }
            Err(fault) => Err(Error::from(fault).context(format!("logging in as the device {email}"))),
        }
    }

    /// Tries passwords in turn until one works, and checks the account's role.
    pub(crate) fn try_all<'p>(&self, email: &str, passwords: &[&'p SecretString]) -> Result<Tried<'p>> {
        let mut is_disabled = false;
        for password in passwords {
            match self.log_in(email, password)? {
                Login::In(token) => {
                    check_role(email, &token)?;
                    return Ok(Tried { works: Some(password), is_disabled: false });
                }
                Login::Refused { is_disabled: now } => is_disabled |= now,
            }
        }
        Ok(Tried { works: None, is_disabled })
    }

    /// Logs in with the `device.conf` in the targets, the same in all of them, and validates the token as the device will.
    pub(crate) fn verify(&self) -> Result<()> {
        let target = self.targets.first().ok_or_else(|| failure(Exit::Internal, "there is no target"))?;
        let conf = target
            .read_conf()?
            .ok_or_else(|| failure(Exit::Target, "device.conf was removed during this run"))?
            .conf(target.path())?;
        self.validate(&conf)
            .context("--verify: the account and device.conf exist, but the device would not become ready")
    }

    /// Logs in and validates the token.
    fn validate(&self, conf: &DeviceConf) -> Result<(), Fault> {
        let (tokens, answer) =
            self.budget.run(|limit| session::login(self.http, &conf.email, &conf.password, limit))?;
        let expected =
            Expected { email: &conf.email, issuer: DEFAULT_ISSUER, audience: None, signature: SignaturePolicy::Auto };
        // Like the device: the server's time, otherwise a clock that is not before the provisioning.
        let now = || {
            let clock = self.clock.wall();
            answer.date.unwrap_or_else(|| conf.provisioned_at.map_or(clock, |provisioned| clock.max(provisioned)))
        };
        keys::validate_token(self.http, self.budget, (&tokens.access, &answer), expected, now).map(drop)
    }
}

/// Refuses an account whose token has another role.
pub(crate) fn check_role(email: &str, token: &SecretString) -> Result<()> {
    if !token::names_another_role(token) {
        return Ok(());
    }
    let message = format!("the account {email} has another role than {ROLE}; set its role on the admin API");
    Err(failure(Exit::Protocol, message))
}
