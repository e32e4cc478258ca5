//! Provisions a device whose identity is derived from its serial. The order of the steps makes any interruption harmless without
//! state elsewhere.
//!
//! 1. Read the targets. Refuse another device's file, unless it may be replaced.
//! 2. Try a password that is already there. If the device can log in with it, nothing has to change.
//! 3. Otherwise write the password, the one found or a new one, durably **before** the request to the API. If the host crashes now,
//!    the next run finds the password and continues with it.
//! 4. Create the account. If it exists, an earlier try of this run may have created it, which a login checks; otherwise
//!    [`existing_account`] handles it.
//!
//! If the API has certainly not accepted the password, the targets are restored.

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

/// The provisioning of one device by its serial.
#[derive(Debug)]
pub(crate) struct Provisioning<'a> {
    pub(crate) job: &'a Job<'a>,
    pub(crate) serial: &'a Serial,
    pub(crate) on_existing: OnExisting,
    /// Whether to trust and write confirmation comments, which say that the API has accepted the password.
    pub(crate) uses_confirmations: bool,
}

/// Why it is not certain that the account accepts the password in the targets.
enum AccountError {
    /// The account certainly has another password: the targets must be restored.
    NotSet(Error),
    /// The account has this password, but is not usable.
    Unusable(Error),
    /// The account may have this password.
    Uncertain(Error),
}

impl From<AdminFault> for AccountError {
    fn from(fault: AdminFault) -> Self {
        if fault.perhaps_done { Self::Uncertain(fault.error) } else { Self::NotSet(fault.error) }
    }
}

impl Provisioning<'_> {
    /// Provisions the device.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let job = self.job;
        let targets = Targets::read(job.targets, job.owner, |target, found| self.classify(target, found))?;
        targets.report_intents();
        targets.check_modules(job.module_serial)?;
        if self.uses_confirmations && self.is_done(&targets)? {
            return Ok(Outcome::Reused);
        }
        let outcome = self.provision(&targets)?;
        if self.uses_confirmations {
            self.confirm();
        }
        Ok(outcome)
    }

    /// Classifies a file in a target. A file of this device that this tool can't have written is replaced.
    fn classify(&self, target: &dyn Target, found: &Found) -> Result<Content> {
        let job = self.job;
        let Some(conf) = adoption::ours(target, found, self.serial, job.replace)? else {
            let is_readable = found.conf(target.path()).is_ok();
            return Ok(if is_readable { Content::Free } else { Content::Unreadable });
        };
        let Some(why) = adoption::objection(target.kind(), found, &conf, job.owner, job.http.api()) else {
            return Ok(Content::Ours(conf));
        };
        let path = target.path().display();
        log::warn!("the device.conf in {path} was not written by this tool ({why}), so its password is not used");
        Ok(Content::Doubtful(conf))
    }

    /// Returns whether all targets hold the same file of this device, confirmed by an earlier batch.
    fn is_done(&self, targets: &Targets<'_>) -> Result<bool> {
        let Some(password) = targets.passwords().first().copied() else { return Ok(false) };
        targets.are_confirmed(&self.conf(targets, password))
    }

    /// Adds the confirmation comment to the files in the targets. After a failure, the next run only needs one more login.
    fn confirm(&self) {
        for target in self.job.targets {
            if let Err(error) = self.confirm_in(target.as_ref()) {
                log::warn!("cannot write the confirmation comment: {}", error.line());
            }
        }
    }

    fn confirm_in(&self, target: &dyn Target) -> Result<()> {
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

    /// Provisions the device, without regard to confirmation comments.
    fn provision(&self, targets: &Targets<'_>) -> Result<Outcome> {
        let job = self.job;
        // Before the first request: reports an invalid admin file even if the admin turns out not to be needed.
        job.admin.prepare()?;
        let known = targets.passwords();
        let tried = job.try_all(&self.serial.email(), &known)?;
        if let Some(password) = tried.works {
            targets.write(&self.conf(targets, password))?;
            return Ok(Outcome::Reused);
        }
        if self.on_existing == OnExisting::Recreate {
            // Before a new password replaces a working one.
            self.check_may_delete(targets, tried.is_disabled)?;
        }
        job.admin.log_in()?;
        let password = match known.first() {
            Some(password) => (*password).clone(),
            None => {
                new_password().map_err(|error| failure(Exit::Internal, format!("generating a password: {error}")))?
            }
        };
        targets.write(&self.conf(targets, &password))?;
        self.ensure_account(&password, !known.is_empty()).map_err(|uncertain| match uncertain {
            AccountError::NotSet(error) => targets.restore(error),
            AccountError::Unusable(error) => error,
            AccountError::Uncertain(error) => error
                .context("the password is in the target and may already be set on the API; run this again to continue"),
        })
    }

    fn conf(&self, targets: &Targets<'_>, password: &SecretString) -> DeviceConf {
        self.job.conf(&Identity::from(self.serial), password, targets.module_serial(self.job.module_serial))
    }

    /// Ensures that the account exists with the password in the targets. `is_tried`: a login with it was refused before.
    fn ensure_account(&self, password: &SecretString, is_tried: bool) -> Result<Outcome, AccountError> {
        let email = self.serial.email();
        let perhaps_ours = match self.job.admin.create(&email, password)? {
            Creation::Created { by_number } => return self.created(password, by_number),
            Creation::Exists { perhaps_ours } => perhaps_ours,
        };
        if perhaps_ours || !is_tried {
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

    /// Handles a created account. If the request had the role as a number, the first account of a run shows whether it is the right role.
    fn created(&self, password: &SecretString, by_number: bool) -> Result<Outcome, AccountError> {
        let admin = &self.job.admin;
        if !by_number || !admin.has_unconfirmed_role() {
            return Ok(Outcome::Created);
        }
        let email = self.serial.email();
        let token = self.log_in_as_created(password)?;
        check_role(&email, &token).inspect_err(|error| admin.reject_role(error)).map_err(AccountError::Unusable)?;
        admin.confirm_role();
        Ok(Outcome::Created)
    }

    /// Logs in to an account that must accept this password, because it was created with it.
    fn log_in_as_created(&self, password: &SecretString) -> Result<SecretString, AccountError> {
        let email = self.serial.email();
        match self.job.log_in(&email, password).map_err(AccountError::Uncertain)? {
            Login::In(token) => Ok(token),
            Login::Refused { .. } => Err(AccountError::Unusable(existing_account::login_refused(&email))),
        }
    }
}

#[cfg(test)]
mod tests;
