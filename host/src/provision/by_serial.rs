//! The order of the main job for a device whose identity follows from its serial, which makes any interruption harmless without any
//! state elsewhere.
//!
//! 1. Look at the targets: another device's file is refused, unless it may be replaced.
//! 2. A password that is there already is tried: if the device can log in with it, nothing has to change.
//! 3. Else the password, the one found or a new one, is written durably **before** the API is asked. If the machine
//!    dies now, the next run finds it and goes on with it.
//! 4. The user is made. If it exists, an earlier try of ours may have got through, which a login tells; else [`existing`]
//!    says what becomes of it.
//!
//! Where the API has certainly not taken the password, the targets are put back as they were.

mod existing_account;

use azaion_agent::common::device_conf::DeviceConf;
use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::{Identity, Serial, new_password};
use secrecy::SecretString;

use crate::admin_api::{AdminFault, Creation};
use crate::cli::OnExisting;
use crate::error::{Error, Result, failure};
use crate::provision::adoption;
use crate::provision::job::{Job, Login, Outcome, check_role};
use crate::provision::targets::{Content, Targets};
use crate::target::confirmation::{is_confirmed, with_confirmation};
use crate::target::{Found, Target};

/// The main job for one serial.
#[derive(Debug)]
pub(crate) struct Provisioning<'a> {
    pub(crate) job: &'a Job<'a>,
    pub(crate) serial: &'a Serial,
    pub(crate) on_existing: OnExisting,
    /// Whether a mark in the targets is believed that the API has their password, and made.
    pub(crate) uses_confirmations: bool,
}

/// Why the user does not have, for all we know, the password that is in the targets.
enum AccountError {
    /// It certainly has another: the targets are to be put back.
    NotSet(Error),
    /// It has this one, and is no good all the same.
    Unusable(Error),
    /// It may have it.
    Uncertain(Error),
}

impl From<AdminFault> for AccountError {
    fn from(fault: AdminFault) -> Self {
        if fault.perhaps_done { Self::Uncertain(fault.error) } else { Self::NotSet(fault.error) }
    }
}

impl Provisioning<'_> {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let job = self.job;
        let places = Targets::read(job.targets, job.owner, |target, found| self.whose(target, found))?;
        places.report_intents();
        places.check_modules(job.module_serial)?;
        if self.uses_confirmations && self.is_done(&places)? {
            return Ok(Outcome::Reused);
        }
        let outcome = self.provision(&places)?;
        if self.uses_confirmations {
            self.mark();
        }
        Ok(outcome)
    }

    /// Whose a file is that was found. One of this device's that this tool can't have written is replaced.
    fn whose(&self, target: &dyn Target, found: &Found) -> Result<Content> {
        let job = self.job;
        let Some(conf) = adoption::ours(target, found, self.serial, job.replace)? else {
            let is_readable = found.conf(target.path()).is_ok();
            return Ok(if is_readable { Content::Free } else { Content::Unreadable });
        };
        let Some(why) = adoption::objection(target.kind(), found, &conf, job.owner, job.http.api()) else {
            return Ok(Content::Ours(conf));
        };
        let path = target.path().display();
        log::warn!("the device.conf in {path} is not as this tool writes it ({why}), so its password is not used");
        Ok(Content::Doubtful(conf))
    }

    /// Whether all targets hold one file of this device, of which an earlier batch saw that the API takes it.
    fn is_done(&self, places: &Targets<'_>) -> Result<bool> {
        let Some(password) = places.passwords().first().copied() else { return Ok(false) };
        places.are_confirmed(&self.conf(places, password))
    }

    /// Marks what is in the targets as taken by the API. That it can't be marked costs a login the next time.
    fn mark(&self) {
        for target in self.job.targets {
            if let Err(error) = self.mark_in(target.as_ref()) {
                log::warn!("marking as done: {}", error.line());
            }
        }
    }

    fn mark_in(&self, target: &dyn Target) -> Result<()> {
        match target.read_conf()?.filter(|found| !is_confirmed(&found.bytes)) {
            Some(found) => {
                let text = with_confirmation(&found.bytes).map_err(|why| {
                    failure(Exit::Data, format!("{}: the device.conf {why}", target.path().display()))
                })?;
                Ok(target.write(&text, self.job.owner)?)
            }
            None => Ok(()),
        }
    }

    fn provision(&self, places: &Targets<'_>) -> Result<Outcome> {
        let job = self.job;
        // Before the first call: what is wrong with the admin's file shows also where it turns out not to be needed.
        job.admin.prepare()?;
        let known = places.passwords();
        let tried = job.try_all(&self.serial.email(), &known)?;
        if let Some(password) = tried.works {
            places.write(&self.conf(places, password))?;
            return Ok(Outcome::Reused);
        }
        if self.on_existing == OnExisting::Recreate {
            // Before a new password takes the place of one that works.
            self.check_may_delete(places, tried.is_disabled)?;
        }
        job.admin.log_in()?;
        let password = match known.first() {
            Some(password) => (*password).clone(),
            None => new_password().map_err(|error| failure(Exit::Internal, format!("making a password: {error}")))?,
        };
        places.write(&self.conf(places, &password))?;
        self.ensure_account(&password, !known.is_empty()).map_err(|unsettled| match unsettled {
            AccountError::NotSet(error) => places.restore(error),
            AccountError::Unusable(error) => error,
            AccountError::Uncertain(error) => error.context(
                "the password is in the target and may be on the API already; run this again, it goes on from there",
            ),
        })
    }

    fn conf(&self, places: &Targets<'_>, password: &SecretString) -> DeviceConf {
        self.job.conf(&Identity::from(self.serial), password, places.module_serial(self.job.module_serial))
    }

    /// Makes the user have the password that is in the targets. `tried` says that a login with it was refused before.
    fn ensure_account(&self, password: &SecretString, tried: bool) -> Result<Outcome, AccountError> {
        let email = self.serial.email();
        let perhaps_ours = match self.job.admin.create(&email, password)? {
            Creation::Created { by_number } => return self.created(password, by_number),
            Creation::Exists { perhaps_ours } => perhaps_ours,
        };
        if perhaps_ours || !tried {
            match self.job.log_in(&email, password).map_err(AccountError::Uncertain)? {
                Login::In(token) => {
                    return check_role(&email, &token).map(|()| Outcome::Reused).map_err(AccountError::Unusable);
                }
                Login::Refused { is_disabled: true } if self.on_existing == OnExisting::Recreate => {
                    return Err(AccountError::NotSet(existing_account::disabled(&email)));
                }
                Login::Refused { .. } => {}
            }
        }
        match self.on_existing {
            OnExisting::Refuse => Err(AccountError::NotSet(existing_account::refused(&email))),
            OnExisting::Update => self.update(password),
            OnExisting::Recreate => self.recreate(password, perhaps_ours),
        }
    }

    /// The user was made. If its role was given as a number, the first one of a run shows whether that is the right one.
    fn created(&self, password: &SecretString, by_number: bool) -> Result<Outcome, AccountError> {
        let admin = &self.job.admin;
        if !by_number || !admin.has_unconfirmed_role() {
            return Ok(Outcome::Created);
        }
        let email = self.serial.email();
        let token = self.log_in_as_made(password)?;
        check_role(&email, &token).inspect_err(|error| admin.reject_role(error)).map_err(AccountError::Unusable)?;
        admin.confirm_role();
        Ok(Outcome::Created)
    }

    /// Logs in as a user that must take this password, since it was made with it.
    fn log_in_as_made(&self, password: &SecretString) -> Result<SecretString, AccountError> {
        let email = self.serial.email();
        match self.job.log_in(&email, password).map_err(AccountError::Uncertain)? {
            Login::In(token) => Ok(token),
            Login::Refused { .. } => Err(AccountError::Unusable(existing_account::not_let_in(&email))),
        }
    }
}

#[cfg(test)]
mod tests;
