//! Handles an account that exists with an unknown password: fails, sets another password, or deletes the account and creates it again.

use azaion_agent::api::fault::{Class, chain};
use azaion_agent::api::session;
use azaion_agent::common::exit::Exit;
use secrecy::SecretString;

use super::AccountError;
use super::Provisioning;
use crate::admin_api::Creation;
use crate::error::{Error, Result, failure};
use crate::provision::job::{Login, Outcome, check_role};
use crate::provision::targets::Targets;

/// Returns the error for an account that exists and may not be changed.
pub(super) fn refused(email: &str) -> Error {
    failure(
        Exit::Exists,
        format!(
            "the account {email} exists with an unknown password; use --on-existing update to set a new one, or --on-existing recreate \
             if the server can't do that (a device flashed earlier with this serial can then no longer log in)"
        ),
    )
}

/// Returns the error for an account that is disabled.
pub(super) fn disabled(email: &str) -> Error {
    let message = format!(
        "the account {email} is disabled, so it is not deleted; enable or delete it on the admin API, then run this again"
    );
    failure(Exit::Refused, message)
}

/// Returns the error for a created account whose login is refused.
pub(super) fn login_refused(email: &str) -> Error {
    let message = format!(
        "the account {email} was created, but the API refuses its login; either it is disabled, or another host has just provisioned the \
         same serial; correct that on the admin API, then run this again"
    );
    failure(Exit::Refused, message)
}

impl Provisioning<'_> {
    /// Sets the password in the targets on the account.
    pub(super) fn update(&self, password: &SecretString) -> Result<Outcome, AccountError> {
        let email = self.serial.email();
        // Before the request: if this run ends before the response, the next one finds a working password and does not warn.
        log::warn!(
            "setting a new password for {email}; a device flashed earlier with {} can then no longer log in",
            self.serial
        );
        self.job.admin.set_password(&email, password).map_err(|fault| {
            if fault.is_without_route() {
                let advice = self.how_to_recreate(&email);
                return AccountError::NotSet(fault.error.context(advice));
            }
            AccountError::from(fault)
        })?;
        self.check_login(&email, password, "got a new password")
            .map(|()| Outcome::Updated)
            .map_err(AccountError::Unusable)
    }

    /// Returns what to do if the server can't set a password, the usual case in all generations of the API.
    fn how_to_recreate(&self, email: &str) -> String {
        let api = self.job.http.api();
        format!(
            "the account {email} exists with an unknown password, and this server has no route to set another; use --on-existing \
             recreate, which deletes the account and creates it with another id; or delete the account {email} as an ApiAdmin with \
             DELETE {api}/users/{email} (the same in all generations of the API), then run this again"
        )
    }

    /// Deletes the account and creates it with the password in the targets. `is_requested`: the API may still carry out an earlier
    /// request of this run to create it.
    pub(super) fn recreate(&self, password: &SecretString, is_requested: bool) -> Result<Outcome, AccountError> {
        let (email, admin) = (self.serial.email(), &self.job.admin);
        // Before the request, as for a new password.
        log::warn!(
            "deleting {email} and creating it with another id; a device flashed earlier with {} can then no longer log in, and \
             references to the old id (mission sessions, a hardware binding) are lost",
            self.serial
        );
        admin.delete(&email).map_err(|fault| {
            let context = if fault.is_without_route() {
                format!(
                    "the account {email} exists with an unknown password, and this server has no route to delete it either; have the \
                     operator of the API delete the account, then run this again"
                )
            } else {
                let when = if fault.perhaps_done { " in a few minutes, because the API may still carry out the request" } else { "" };
                format!("deleting the account {email} to create it again; run this again{when}")
            };
            let error = fault.error.context(context);
            // Deleted or not, the account does not have this password, unless the API carries out the earlier request to create it.
            if is_requested && fault.perhaps_done { AccountError::Uncertain(error) } else { AccountError::NotSet(error) }
        })?;
        let deleted = || format!("the account {email} was deleted and must be created again");
        match admin.create(&email, password) {
            // Another host may have deleted it once more.
            Ok(Creation::Created { .. }) => self
                .check_login(&email, password, "was deleted and created again")
                .map(|()| Outcome::Created)
                .map_err(AccountError::Unusable),
            // Created by an earlier request of this run, or by another host.
            Ok(Creation::Exists { .. }) => {
                let token = self.log_in_as_created(password)?;
                check_role(&email, &token).map(|()| Outcome::Created).map_err(AccountError::Unusable)
            }
            Err(fault) if fault.perhaps_done => Err(AccountError::Uncertain(fault.error.context(deleted()))),
            // The next run continues with the password in the target.
            Err(fault) => Err(AccountError::Unusable(fault.error.context(format!("{}; run this again", deleted())))),
        }
    }

    /// Refuses to delete an account that is disabled or may be in use.
    pub(super) fn check_may_delete(&self, targets: &Targets<'_>, is_disabled: bool) -> Result<()> {
        let (email, api) = (self.serial.email(), self.job.http.api());
        let refuse = |why: &str| {
            let message = format!(
                "{why}, so the account {email} is not deleted; clear the target if that device.conf is no longer needed, then run this \
                 again"
            );
            Err(failure(Exit::Exists, message))
        };
        if is_disabled {
            return Err(disabled(&email));
        }
        if targets.have_unreadable() {
            return refuse("the target holds a device.conf that can't be read, and its password may be in use");
        }
        // The passwords that may be reused were tried before.
        for conf in targets.doubtful() {
            if conf.api_url != *api {
                return refuse(
                    "the target holds this device's device.conf for another API, and its password may be in use",
                );
            }
            match self.job.log_in(&email, &conf.password)? {
                Login::In(_) => {
                    return refuse("the password in the target still works, although this tool did not write it");
                }
                Login::Refused { is_disabled: true } => return Err(disabled(&email)),
                Login::Refused { .. } => {}
            }
        }
        Ok(())
    }

    /// Checks a new password with a login: a disabled account accepts a new password, but no login. One try is enough, because a busy API
    /// does not undo the change.
    fn check_login(&self, email: &str, password: &SecretString, change: &str) -> Result<()> {
        match self.job.budget.once(|limit| session::login(self.job.http, email, password, limit)) {
            Ok((tokens, _)) => check_role(email, &tokens.access),
            Err(fault) if fault.class().is_transient() || fault.class() == Class::Interrupted => {
                log::warn!("cannot check the new password with a login: {}", chain(&fault));
                Ok(())
            }
            // Not a response of the API, so it says nothing about the account.
            Err(fault) if fault.class() == Class::Protocol => Err(Error::from(fault)
                .context(format!("the account {email} {change}, but it is not known whether the password works"))),
            Err(fault) => Err(Error::from(fault).context(format!(
                "the account {email} {change}, but can't log in; either it is disabled or has a second factor, or another host has just \
                 provisioned the same serial; correct that on the admin API, then run this again"
            ))),
        }
    }
}
