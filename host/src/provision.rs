//! The order of the main job, which makes any interruption harmless without any state elsewhere.
//!
//! 1. Look at the targets: another device's file is refused, unless it may be replaced.
//! 2. A password that is there already is tried: if the device can log in with it, nothing has to change.
//! 3. Else the password, the one found or a new one, is written durably **before** the API is asked. If the machine
//!    dies now, the next run finds it and goes on with it.
//! 4. The user is made. If it exists, an earlier try of ours may have got through, which a login tells; else its
//!    password is set.
//!
//! Where the API has certainly not taken the password, the targets are put back as they were.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use azaion_agent::clock::Clock;
use azaion_agent::device_conf::DeviceConf;
use azaion_agent::exit::Exit;
use azaion_agent::fault::{Class, Fault, Problem, chain};
use azaion_agent::http::Http;
use azaion_agent::identity::{ROLE, Serial, new_password};
use azaion_agent::retry::Retry;
use azaion_agent::token::{self, DEFAULT_ISSUER, Expected, SignaturePolicy};
use azaion_agent::{keys, session};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::admin::{self, Admin, AdminFault, Creation};
use crate::cli::{OnExisting, Owner};
use crate::failure::failure;
use crate::target::{Found, Target};

/// How the user came to have the password that is in the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It was made with it.
    Created,
    /// It had it already.
    Reused,
    /// It was given it.
    Updated,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Reused => "reused",
            Self::Updated => "updated",
        })
    }
}

/// All that the main job needs.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) serial: &'a Serial,
    pub(crate) email: String,
    pub(crate) targets: &'a [Box<dyn Target>],
    pub(crate) owner: Owner,
    pub(crate) on_existing: OnExisting,
    pub(crate) replace: bool,
    pub(crate) http: &'a Http,
    pub(crate) retry: &'a Retry<'a>,
    pub(crate) admin: Admin<'a>,
    pub(crate) clock: &'a dyn Clock,
}

/// A target with what was in it before.
struct Place<'a> {
    target: &'a dyn Target,
    before: Option<Found>,
    /// What it said, if it was this device's.
    ours: Option<DeviceConf>,
}

impl Job<'_> {
    /// Runs it.
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let places =
            self.targets.iter().map(|target| self.look(target.as_ref())).collect::<anyhow::Result<Vec<_>>>()?;
        let mut known: Vec<&SecretString> = Vec::new();
        for password in places.iter().filter_map(|place| Some(&place.ours.as_ref()?.password)) {
            if !known.iter().any(|other| same(other, password)) {
                known.push(password);
            }
        }
        for password in &known {
            if self.can_log_in(password)? {
                self.write(&places, password)?;
                return Ok(Outcome::Reused);
            }
        }
        self.admin.log_in()?;
        let tried = !known.is_empty();
        let password = match known.first() {
            Some(password) => (*password).clone(),
            None => new_password().context("making a password")?,
        };
        self.write(&places, &password)?;
        self.settle(&password, tried).or_else(|fault| {
            if fault.perhaps_done {
                let advice = "the password is in the target and may be on the API already; run this again, it goes on from there";
                return Err(fault.error.context(advice));
            }
            put_back(&places)?;
            Err(fault.error)
        })
    }

    /// What is in a target, and whether this device may have it.
    fn look<'t>(&self, target: &'t dyn Target) -> anyhow::Result<Place<'t>> {
        target.may_write(self.owner)?;
        let before = target.look()?;
        let Some(found) = &before else { return Ok(Place { target, before, ours: None }) };
        let conf = match found.conf(target.path()) {
            Ok(conf) => conf,
            Err(_) if self.replace => return Ok(Place { target, before, ours: None }),
            Err(error) => return Err(anyhow::Error::from(error).context(
                "the target holds a device.conf that can't be read; see whose it is, then clear it or give --replace",
            )),
        };
        if conf.email == self.email && conf.serial.as_deref().is_none_or(|serial| serial == self.serial.as_str()) {
            return Ok(Place { target, before, ours: Some(conf) });
        }
        if self.replace {
            return Ok(Place { target, before, ours: None });
        }
        let other = conf.serial.unwrap_or(conf.email);
        let path = target.path().display();
        Err(failure(
            Exit::Exists,
            format!("{path} holds the device.conf of {other}; clear it once that unit is flashed, or give --replace"),
        ))
    }

    /// Writes the password into all targets, or into none. What holds it already is left alone.
    fn write(&self, places: &[Place<'_>], password: &SecretString) -> anyhow::Result<()> {
        let conf = DeviceConf {
            serial: Some(self.serial.to_string()),
            email: self.email.clone(),
            password: password.clone(),
            api_url: self.http.api().clone(),
            provisioned_at: Some(self.clock.wall()),
        };
        let text = conf.render();
        let stale = places.iter().filter(|place| !self.holds(place, &conf));
        let written = stale.map(|place| place.target.write(&text, self.owner)).collect::<anyhow::Result<Vec<()>>>();
        if written.is_err() {
            put_back(places)?;
        }
        written.map(drop)
    }

    fn holds(&self, place: &Place<'_>, conf: &DeviceConf) -> bool {
        let private = place.before.as_ref().is_some_and(|found| place.target.is_private(found, self.owner));
        let same = place.ours.as_ref().is_some_and(|ours| {
            same(&ours.password, &conf.password) && ours.api_url == conf.api_url && ours.serial == conf.serial
        });
        private && same
    }

    /// Makes the user have the password that is in the targets. `tried` says that a login with it was refused before.
    fn settle(&self, password: &SecretString, tried: bool) -> Result<Outcome, AdminFault> {
        let unsure = |error| AdminFault { error, perhaps_done: true };
        let sure = |error| AdminFault { error, perhaps_done: false };
        match self.admin.create(&self.email, password)? {
            Creation::Created => return Ok(Outcome::Created),
            Creation::Exists { perhaps_ours } if perhaps_ours || !tried => {
                if self.can_log_in(password).map_err(unsure)? {
                    return Ok(Outcome::Reused);
                }
            }
            Creation::Exists { .. } => {}
        }
        if self.on_existing == OnExisting::Refuse {
            return Err(sure(admin::exists(&self.email)));
        }
        self.admin.set_password(&self.email, password)?;
        self.check_updated(password).map_err(sure)?;
        log::warn!(
            "{} has a new password: a unit flashed earlier with {} can no longer log in",
            self.email,
            self.serial
        );
        Ok(Outcome::Updated)
    }

    /// Whether the account takes the password. A refusal is an answer here, not an error.
    fn can_log_in(&self, password: &SecretString) -> anyhow::Result<bool> {
        match self.retry.run(|limit| session::login(self.http, &self.email, password, limit)) {
            Ok((tokens, _)) => self.check_role(&tokens.access).map(|()| true),
            Err(fault) if fault.class() == Class::Refused && !matches!(fault.problem, Problem::Mfa) => Ok(false),
            Err(fault) => Err(anyhow::Error::from(fault).context(format!("logging in as the device {}", self.email))),
        }
    }

    /// A disabled account takes a new password and still lets nobody in; only a login tells. It is tried once: that
    /// the API is too busy for it now does not undo the update.
    fn check_updated(&self, password: &SecretString) -> anyhow::Result<()> {
        match session::login(self.http, &self.email, password, Duration::from_secs(10)) {
            Ok((tokens, _)) => self.check_role(&tokens.access),
            Err(fault) if fault.class().is_transient() => {
                log::warn!("the new password could not be tried: {}", chain(&fault));
                Ok(())
            }
            Err(fault) => Err(anyhow::Error::from(fault).context(format!(
                "the user {} has a new password, and still can't log in; is it enabled, without a second factor?",
                self.email
            ))),
        }
    }

    fn check_role(&self, token: &SecretString) -> anyhow::Result<()> {
        if !token::names_another_role(token) {
            return Ok(());
        }
        let message = format!("the user {} has another role than {ROLE}; set its role on the admin API", self.email);
        Err(failure(Exit::Protocol, message))
    }

    /// Logs in and judges the token as the device will, with the password that is in the targets.
    pub(crate) fn verify(&self) -> anyhow::Result<()> {
        let step = "verifying: the user and device.conf are in place, but the device would not get ready";
        for target in self.targets {
            let found = target.look()?.context("device.conf is gone again")?;
            let conf = found.conf(target.path())?;
            self.judge(&conf).context(step)?;
        }
        Ok(())
    }

    fn judge(&self, conf: &DeviceConf) -> Result<(), Fault> {
        let keys = self.retry.run(|limit| keys::fetch(self.http, limit))?;
        let (tokens, answer) = self.retry.run(|limit| session::login(self.http, &conf.email, &conf.password, limit))?;
        let expected =
            Expected { email: &conf.email, issuer: DEFAULT_ISSUER, audience: None, signature: SignaturePolicy::Auto };
        let now = answer.date.unwrap_or_else(|| self.clock.wall());
        token::judge(&tokens.access, &keys, expected, now)
            .map(drop)
            .map_err(|error| answer.fault(Problem::Token(error)))
    }
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Puts all targets back as they were.
fn put_back(places: &[Place<'_>]) -> anyhow::Result<()> {
    for place in places {
        place.target.restore(place.before.as_ref()).context("putting the target back as it was")?;
    }
    Ok(())
}
