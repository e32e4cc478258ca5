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

use std::cell::Cell;
use std::fmt;

use azaion_agent::clock::{Clock, Timestamp};
use azaion_agent::device_conf::DeviceConf;
use azaion_agent::exit::Exit;
use azaion_agent::fault::{Class, Fault, Problem, chain};
use azaion_agent::http::Http;
use azaion_agent::identity::{ROLE, Serial, new_password};
use azaion_agent::retry::Budget;
use azaion_agent::token::{self, DEFAULT_ISSUER, Expected, SKEW, SignaturePolicy};
use azaion_agent::{keys, session};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::admin::{self, Admin, AdminFault, Creation};
use crate::adoption;
use crate::cli::OnExisting;
use crate::error::{Context, Error, Result, failure};
use crate::interrupt;
use crate::mark::{is_marked, with_mark};
use crate::target::{Found, Owner, Target};

/// How the user came to have the password that is in the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// The module that the device is for; where none is given, what the targets say stays.
    pub(crate) module_serial: Option<&'a str>,
    /// Whether a mark in the targets is believed that the API has their password, and made.
    pub(crate) marks: bool,
    pub(crate) http: &'a Http,
    pub(crate) budget: &'a Budget<'a>,
    pub(crate) admin: Admin<'a>,
    pub(crate) clock: &'a dyn Clock,
}

/// A target with what was in it before.
struct Place<'a> {
    target: &'a dyn Target,
    before: Option<Found>,
    /// What it said, if it was this device's.
    ours: Option<DeviceConf>,
    is_written: Cell<bool>,
}

/// Why the user does not have, for all we know, the password that is in the targets.
enum Unsettled {
    /// It certainly has another: the targets are to be put back.
    Undone(Error),
    /// It has this one, and is no good all the same.
    Done(Error),
    /// It may have it.
    Unknown(Error),
}

impl From<AdminFault> for Unsettled {
    fn from(fault: AdminFault) -> Self {
        if fault.perhaps_done { Self::Unknown(fault.error) } else { Self::Undone(fault.error) }
    }
}

impl Job<'_> {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let places = self.targets.iter().map(|target| self.look(target.as_ref())).collect::<Result<Vec<_>>>()?;
        self.check_modules(&places)?;
        if self.marks && self.are_done(&places)? {
            return Ok(Outcome::Reused);
        }
        let outcome = self.provision(&places)?;
        if self.marks {
            self.mark();
        }
        Ok(outcome)
    }

    /// Whether all targets hold one file of this device, of which an earlier batch saw that the API takes it.
    fn are_done(&self, places: &[Place<'_>]) -> Result<bool> {
        let first = places.first().and_then(|place| place.ours.as_ref());
        let Some(password) = first.map(|conf| &conf.password) else { return Ok(false) };
        let conf = self.conf(places, password);
        for place in places {
            let is_marked = place.before.as_ref().is_some_and(|found| is_marked(&found.bytes));
            if !is_marked || !self.holds(place, &conf)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Marks what is in the targets as taken by the API. That it can't be marked costs a login the next time.
    fn mark(&self) {
        for target in self.targets {
            if let Err(error) = self.mark_in(target.as_ref()) {
                log::warn!("marking as done: {}", error.line());
            }
        }
    }

    fn mark_in(&self, target: &dyn Target) -> Result<()> {
        match target.look()?.filter(|found| !is_marked(&found.bytes)) {
            Some(found) => Ok(target.write(&with_mark(&found.bytes)?, self.owner)?),
            None => Ok(()),
        }
    }

    fn provision(&self, places: &[Place<'_>]) -> Result<Outcome> {
        // Before the first call: what is wrong with the admin's file shows also where it turns out not to be needed.
        self.admin.prepare()?;
        let mut known: Vec<&SecretString> = Vec::new();
        for password in places.iter().filter_map(|place| Some(&place.ours.as_ref()?.password)) {
            if !known.iter().any(|other| same(other, password)) {
                known.push(password);
            }
        }
        for password in &known {
            if let Some(token) = self.log_in(password)? {
                self.check_role(&token)?;
                self.write(places, password)?;
                return Ok(Outcome::Reused);
            }
        }
        self.admin.log_in()?;
        let password = match known.first() {
            Some(password) => (*password).clone(),
            None => new_password().map_err(|error| failure(Exit::Internal, format!("making a password: {error}")))?,
        };
        self.write(places, &password)?;
        self.settle(&password, !known.is_empty()).map_err(|unsettled| match unsettled {
            Unsettled::Undone(error) => put_back(places, error),
            Unsettled::Done(error) => error,
            Unsettled::Unknown(error) => error.context(
                "the password is in the target and may be on the API already; run this again, it goes on from there",
            ),
        })
    }

    /// What is in a target, and whether this device may have it.
    fn look<'t>(&self, target: &'t dyn Target) -> Result<Place<'t>> {
        target.may_write(self.owner)?;
        target.tidy()?;
        let before = target.look()?;
        let ours = match &before {
            Some(found) => adoption::ours(target, found, self.serial, self.replace)?
                .filter(|conf| self.adopts(target, found, conf)),
            None => None,
        };
        Ok(Place { target, before, ours, is_written: Cell::new(false) })
    }

    /// Whether a `device.conf` that was found is used again, with its password. One that is not is replaced.
    fn adopts(&self, target: &dyn Target, found: &Found, conf: &DeviceConf) -> bool {
        let objection = adoption::objection(target.kind(), found, conf, self.owner, self.http.api());
        if let Some(why) = &objection {
            let path = target.path().display();
            log::warn!("the device.conf in {path} is not as this tool writes it ({why}), so its password is not used");
        }
        objection.is_none()
    }

    /// Writes the password into all targets, or into none. What holds it already is left alone.
    fn write(&self, places: &[Place<'_>], password: &SecretString) -> Result<()> {
        let conf = self.conf(places, password);
        let text = conf.render();
        for place in places {
            if self.holds(place, &conf)? {
                continue;
            }
            place.is_written.set(true);
            place.target.write(&text, self.owner).map_err(|error| put_back(places, error.into()))?;
        }
        Ok(())
    }

    fn conf(&self, places: &[Place<'_>], password: &SecretString) -> DeviceConf {
        DeviceConf {
            serial: Some(self.serial.to_string()),
            email: self.email.clone(),
            password: password.clone(),
            api_url: self.http.api().clone(),
            provisioned_at: Some(self.now()),
            module_serial: self.module_serial.or_else(|| modules(places).next()).map(str::to_owned),
        }
    }

    /// Which module the device is for can't be guessed where the targets disagree. That it is for another one from now
    /// on may be meant, for boards are replaced; or a mix-up.
    fn check_modules(&self, places: &[Place<'_>]) -> Result<()> {
        let Some(now) = self.module_serial.or_else(|| modules(places).next()) else { return Ok(()) };
        let Some(before) = modules(places).find(|module| *module != now) else { return Ok(()) };
        if self.module_serial.is_some() {
            log::warn!("{} was for the module {before} and is for {now} now; on {before} it is no longer", self.serial);
            return Ok(());
        }
        Err(failure(
            Exit::Data,
            format!(
                "one target says that {} is for the module {now}, another {before}; give --module-serial",
                self.serial
            ),
        ))
    }

    /// A time that has certainly passed, for the device will believe no earlier one: the station's clock, but not
    /// beyond what the server says.
    fn now(&self) -> Timestamp {
        let clock = self.clock.wall();
        let Some(server) = self.http.server_date() else { return clock };
        if clock.since(server).max(server.since(clock)) > SKEW {
            log::warn!("this station's clock says {clock}, the server's {server}; one of them is wrong");
        }
        clock.min(server)
    }

    fn holds(&self, place: &Place<'_>, conf: &DeviceConf) -> Result<bool> {
        let (Some(found), Some(ours)) = (&place.before, &place.ours) else { return Ok(false) };
        let same = same(&ours.password, &conf.password)
            && ours.api_url == conf.api_url
            && ours.serial == conf.serial
            && ours.module_serial == conf.module_serial;
        Ok(same && place.target.is_in_order(found, self.owner)?)
    }

    /// Makes the user have the password that is in the targets. `tried` says that a login with it was refused before.
    fn settle(&self, password: &SecretString, tried: bool) -> Result<Outcome, Unsettled> {
        match self.admin.create(&self.email, password)? {
            Creation::Created => return Ok(Outcome::Created),
            Creation::Exists { perhaps_ours } if perhaps_ours || !tried => {
                if let Some(token) = self.log_in(password).map_err(Unsettled::Unknown)? {
                    return self.check_role(&token).map(|()| Outcome::Reused).map_err(Unsettled::Done);
                }
            }
            Creation::Exists { .. } => {}
        }
        if self.on_existing == OnExisting::Refuse {
            return Err(Unsettled::Undone(admin::exists(&self.email)));
        }
        self.admin.set_password(&self.email, password)?;
        log::warn!(
            "{} has a new password: a unit flashed earlier with {} can no longer log in",
            self.email,
            self.serial
        );
        self.check_updated(password).map(|()| Outcome::Updated).map_err(Unsettled::Done)
    }

    /// Logs in as the device. A refusal is an answer here, not an error.
    fn log_in(&self, password: &SecretString) -> Result<Option<SecretString>> {
        match self.budget.run(|limit| session::login(self.http, &self.email, password, limit)) {
            Ok((tokens, _)) => Ok(Some(tokens.access)),
            Err(fault) if fault.class() == Class::Refused && !matches!(fault.problem, Problem::Mfa) => Ok(None),
            Err(fault) => Err(Error::from(fault).context(format!("logging in as the device {}", self.email))),
        }
    }

    /// A disabled account takes a new password and still lets nobody in; only a login tells. It is tried once: that
    /// the API is too busy for it now does not undo the update.
    fn check_updated(&self, password: &SecretString) -> Result<()> {
        match self.budget.once(|limit| session::login(self.http, &self.email, password, limit)) {
            Ok((tokens, _)) => self.check_role(&tokens.access),
            Err(fault) if fault.class().is_transient() || fault.class() == Class::Interrupted => {
                log::warn!("the new password could not be tried: {}", chain(&fault));
                Ok(())
            }
            // Not the API's word, so nothing about the account.
            Err(fault) if fault.class() == Class::Unacceptable => Err(Error::from(fault).context(format!(
                "the user {} was given a new password, and whether it works is not known",
                self.email
            ))),
            Err(fault) => Err(Error::from(fault).context(format!(
                "the user {} was given a new password, and can't log in with it; either it is disabled or has a second \
                 factor, which is to be mended on the admin API, or another station has just provisioned the same \
                 serial; then run this again",
                self.email
            ))),
        }
    }

    fn check_role(&self, token: &SecretString) -> Result<()> {
        if !token::names_another_role(token) {
            return Ok(());
        }
        let message = format!("the user {} has another role than {ROLE}; set its role on the admin API", self.email);
        Err(failure(Exit::Protocol, message))
    }

    /// Logs in and judges the token as the device will, with what is in the targets: the same file in all of them.
    pub(crate) fn verify(&self) -> Result<()> {
        let target = self.targets.first().ok_or_else(|| failure(Exit::Internal, "there is no target"))?;
        let conf =
            target.look()?.ok_or_else(|| failure(Exit::Target, "device.conf is gone again"))?.conf(target.path())?;
        self.judge(&conf)
            .context("verifying: the user and device.conf are in place, but the device would not get ready")
    }

    fn judge(&self, conf: &DeviceConf) -> Result<(), Fault> {
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

/// The modules that this device is for, as far as its files in the targets say.
fn modules<'a>(places: &'a [Place<'_>]) -> impl Iterator<Item = &'a str> {
    places.iter().filter_map(|place| place.ours.as_ref()?.module_serial.as_deref())
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Puts back what was in the targets that were written to; the error that led to it, with what went wrong here.
fn put_back(places: &[Place<'_>], mut error: Error) -> Error {
    for place in places.iter().filter(|place| place.is_written.get()) {
        if let Err(other) = interrupt::uninterrupted(|| place.target.restore(place.before.as_ref())) {
            let path = place.target.path().display();
            error = error.context(format!("{path} could not be put back as it was ({})", chain(&other)));
        }
    }
    error
}

#[cfg(test)]
mod tests;
