//! What both orders of the main job share, for identities that follow from a serial and for those that the server makes: the targets,
//! the API, and how an identity is tried and judged.

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

/// The API's error code for a disabled account, with the right password.
const DISABLED: u32 = 38;

/// How the device came to have the identity that is in the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum Outcome {
    /// The user was made with this password.
    Created,
    /// The user had this password already.
    Reused,
    /// The user was given this password.
    Updated,
    /// The server made the identity.
    Assigned,
}

impl Outcome {
    /// As it is printed, for people and for machines.
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

/// What came of trying an identity.
pub(crate) enum Login {
    /// The API lets it in; the access token.
    In(SecretString),
    /// The API refuses it.
    Refused {
        /// Whether it says that the account is disabled.
        is_disabled: bool,
    },
}

/// What came of trying all known passwords of an account.
pub(crate) struct Tried<'p> {
    /// The one that the API lets in.
    pub(crate) works: Option<&'p SecretString>,
    /// Whether the API says of one that the account is disabled.
    pub(crate) is_disabled: bool,
}

/// All that both orders need.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) targets: &'a [Box<dyn Target>],
    pub(crate) owner: Owner,
    pub(crate) replace: bool,
    /// The module that the device is for; where none is given, what the targets say stays.
    pub(crate) module_serial: Option<&'a str>,
    pub(crate) http: &'a dyn ApiClient,
    pub(crate) budget: &'a Budget<'a>,
    pub(crate) admin: Admin<'a>,
    pub(crate) clock: &'a dyn Clock,
}

impl Job<'_> {
    /// What is written into the targets of a device.
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

    /// A time that has certainly passed, for the device will believe no earlier one: the station's clock, but not
    /// beyond what the server says.
    pub(crate) fn now(&self) -> Timestamp {
        let clock = self.clock.wall();
        let Some(server) = self.http.server_date() else { return clock };
        if clock.since(server).max(server.since(clock)) > SKEW {
            log::warn!("this station's clock says {clock}, the server's {server}; one of them is wrong");
        }
        clock.min(server)
    }

    /// Logs in as the device. A refusal is an answer here, not an error.
    pub(crate) fn log_in(&self, email: &str, password: &SecretString) -> Result<Login> {
        match self.budget.run(|limit| session::login(self.http, email, password, limit)) {
            Ok((tokens, _)) => Ok(Login::In(tokens.access)),
            Err(fault) if fault.class() == Class::Refused && !matches!(fault.problem, Problem::Mfa) => {
                Ok(Login::Refused { is_disabled: fault.code() == Some(DISABLED) })
            }
            Err(fault) => Err(Error::from(fault).context(format!("logging in as the device {email}"))),
        }
    }

    /// Tries passwords in turn, until the API lets one in, and checks the role of that account.
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

    /// Logs in and judges the token as the device will, with what is in the targets: the same file in all of them.
    pub(crate) fn verify(&self) -> Result<()> {
        let target = self.targets.first().ok_or_else(|| failure(Exit::Internal, "there is no target"))?;
        let conf = target
            .read_conf()?
            .ok_or_else(|| failure(Exit::Target, "device.conf is gone again"))?
            .conf(target.path())?;
        self.classify(&conf)
            .context("verifying: the user and device.conf are in place, but the device would not get ready")
    }

    fn classify(&self, conf: &DeviceConf) -> Result<(), Fault> {
        let (tokens, answer) =
            self.budget.run(|limit| session::login(self.http, &conf.email, &conf.password, limit))?;
        let expected =
            Expected { email: &conf.email, issuer: DEFAULT_ISSUER, audience: None, signature: SignaturePolicy::Auto };
        // As the device does: by the time that the server says, else by a clock that is not before provisioning.
        let now = || {
            let clock = self.clock.wall();
            answer.date.unwrap_or_else(|| conf.provisioned_at.map_or(clock, |provisioned| clock.max(provisioned)))
        };
        keys::validate_token(self.http, self.budget, (&tokens.access, &answer), expected, now).map(drop)
    }
}

/// Refuses an account that the device's tokens name another role of.
pub(crate) fn check_role(email: &str, token: &SecretString) -> Result<()> {
    if !token::names_another_role(token) {
        return Ok(());
    }
    let message = format!("the user {email} has another role than {ROLE}; set its role on the admin API");
    Err(failure(Exit::Protocol, message))
}
