//! A user that exists with a password that is not known here: it is refused, given another password, or deleted and made again.

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

/// The error for a user that exists where none may be changed.
pub(super) fn refused(email: &str) -> Error {
    failure(
        Exit::Exists,
        format!(
            "the user {email} exists with a password that is not known here; run this again with --on-existing update to set a \
             new one, or with --on-existing recreate where the server can't do that (a unit flashed earlier with this serial can then \
             no longer log in)"
        ),
    )
}

/// The error for a user that somebody has put out of use.
pub(super) fn disabled(email: &str) -> Error {
    let message = format!(
        "the user {email} is disabled, so it is not deleted; enable it on the admin API, or delete it there, then run this again"
    );
    failure(Exit::Refused, message)
}

/// The error for a user that was made, and is no good.
pub(super) fn not_let_in(email: &str) -> Error {
    let message = format!(
        "the user {email} was made, and the API does not let it in; either it is disabled, or another station has just provisioned the \
         same serial; mend that on the admin API, then run this again"
    );
    failure(Exit::Refused, message)
}

impl Provisioning<'_> {
    /// Gives the user the password that is in the targets.
    pub(super) fn update(&self, password: &SecretString) -> Result<Outcome, AccountError> {
        let email = self.serial.email();
        // Before the call: if this run ends before the answer, the next one finds a password that works, and reports nothing.
        log::warn!(
            "setting a new password for {email}; once it is set, a unit flashed earlier with {} can no longer log in",
            self.serial
        );
        self.job.admin.set_password(&email, password).map_err(|fault| {
            if fault.is_without_route() {
                let how = self.how_to_recreate(&email);
                return AccountError::NotSet(fault.error.context(how));
            }
            AccountError::from(fault)
        })?;
        self.check_login(&email, password, "was given a new password")
            .map(|()| Outcome::Updated)
            .map_err(AccountError::Unusable)
    }

    /// What to do where a password can't be set, which is the usual case in all generations of the API.
    fn how_to_recreate(&self, email: &str) -> String {
        let api = self.job.http.api();
        format!(
            "the user {email} exists with a password that is not known here, and this server has no route to set another; run this \
             again with --on-existing recreate, which deletes the user and makes it again with another id; or delete the user {email} \
             there yourself, as an ApiAdmin by DELETE {api}/users/{email} (the same in all generations of the API)"
        )
    }

    /// Deletes the user and makes it again, with the password that is in the targets. `is_asked` says whether the API may still carry out
    /// an earlier request of this run to make it.
    pub(super) fn recreate(&self, password: &SecretString, is_asked: bool) -> Result<Outcome, AccountError> {
        let (email, admin) = (self.serial.email(), &self.job.admin);
        // Before the call, as for a new password.
        log::warn!(
            "deleting {email} and making it again with another id; once it is deleted, a unit flashed earlier with {} can no longer log \
             in, and what names the old id (mission sessions, a hardware binding) is gone",
            self.serial
        );
        admin.delete(&email).map_err(|fault| {
            let why = if fault.is_without_route() {
                format!(
                    "the user {email} exists with a password that is not known here, and this server has no route to delete it \
                     either; let whoever runs the API delete the user, then run this again"
                )
            } else {
                let when = if fault.perhaps_done { " in a few minutes: until then, the API may still delete it" } else { "" };
                format!("deleting the user {email}; it is made if it is gone; run this again{when}")
            };
            let error = fault.error.context(why);
            // Whether it is deleted or not, the password is not the user's, unless the earlier request to make it is carried out now.
            if is_asked && fault.perhaps_done { AccountError::Uncertain(error) } else { AccountError::NotSet(error) }
        })?;
        let deleted = || format!("the user {email} was deleted and is to be made again");
        match admin.create(&email, password) {
            // Another station may have deleted it once more.
            Ok(Creation::Created { .. }) => self
                .check_login(&email, password, "was deleted and made again")
                .map(|()| Outcome::Created)
                .map_err(AccountError::Unusable),
            // Made by an earlier request of this run, or by another station.
            Ok(Creation::Exists { .. }) => {
                let token = self.log_in_as_made(password)?;
                check_role(&email, &token).map(|()| Outcome::Created).map_err(AccountError::Unusable)
            }
            Err(fault) if fault.perhaps_done => Err(AccountError::Uncertain(fault.error.context(deleted()))),
            // The next run goes on with what is in the target.
            Err(fault) => Err(AccountError::Unusable(fault.error.context(format!("{}; run this again", deleted())))),
        }
    }

    /// Refuses to delete an account that somebody can still use, or that somebody has put out of use.
    pub(super) fn check_may_delete(&self, places: &Targets<'_>, is_disabled: bool) -> Result<()> {
        let (email, api) = (self.serial.email(), self.job.http.api());
        let refuse = |why: &str| {
            let message = format!(
                "{why}, so the user {email} is not deleted; clear the target if that device.conf is not wanted any more, then run this \
                 again"
            );
            Err(failure(Exit::Exists, message))
        };
        if is_disabled {
            return Err(disabled(&email));
        }
        if places.have_unreadable() {
            return refuse("the target holds a device.conf that can't be read, and its password may be in use");
        }
        // Those that are used again were tried.
        for conf in places.doubtful() {
            if conf.api_url != *api {
                return refuse(
                    "the target holds this device's device.conf for another API, and its password may be in use",
                );
            }
            match self.job.log_in(&email, &conf.password)? {
                Login::In(_) => {
                    return refuse(
                        "the password in the target still lets the device in, though this tool has not written it",
                    );
                }
                Login::Refused { is_disabled: true } => return Err(disabled(&email)),
                Login::Refused { .. } => {}
            }
        }
        Ok(())
    }

    /// A disabled account takes a new password and still lets nobody in; only a login tells. It is tried once: that
    /// the API is too busy for it now does not undo what was done.
    fn check_login(&self, email: &str, password: &SecretString, what: &str) -> Result<()> {
        match self.job.budget.once(|limit| session::login(self.job.http, email, password, limit)) {
            Ok((tokens, _)) => check_role(email, &tokens.access),
            Err(fault) if fault.class().is_transient() || fault.class() == Class::Interrupted => {
                log::warn!("the new password could not be tried: {}", chain(&fault));
                Ok(())
            }
            // Not the API's word, so nothing about the account.
            Err(fault) if fault.class() == Class::Protocol => Err(Error::from(fault)
                .context(format!("the user {email} {what}, and whether its password works is not known"))),
            Err(fault) => Err(Error::from(fault).context(format!(
                "the user {email} {what}, and can't log in; either it is disabled or has a second factor, which is to be mended on the \
                 admin API, or another station has just provisioned the same serial; then run this again"
            ))),
        }
    }
}
