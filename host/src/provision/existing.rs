//! A user that exists with a password that is not known here: it is refused, given another password, or deleted and made again.

use azaion_agent::exit::Exit;
use azaion_agent::fault::{Class, chain};
use azaion_agent::session;
use secrecy::SecretString;

use super::{Provisioning, Unsettled};
use crate::admin::Creation;
use crate::error::{Error, Result, failure};
use crate::job::{Login, Outcome, check_role};
use crate::places::Places;

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

impl Provisioning<'_> {
    /// Gives the user the password that is in the targets.
    pub(super) fn update(&self, password: &SecretString) -> Result<Outcome, Unsettled> {
        let email = self.serial.email();
        // Before the call: if this run ends before the answer, the next one finds a password that works, and reports nothing.
        log::warn!(
            "setting a new password for {email}; once it is set, a device flashed earlier with {} can no longer log in",
            self.serial
        );
        self.job.admin.set_password(&email, password).map_err(|fault| {
            if fault.is_without_route() {
                let how = self.how_to_recreate(&email);
                return Unsettled::Undone(fault.error.context(how));
            }
            Unsettled::from(fault)
        })?;
        self.check_updated(&email, password).map(|()| Outcome::Updated).map_err(Unsettled::Done)
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
    pub(super) fn recreate(
        &self,
        places: &Places<'_>,
        password: &SecretString,
        is_disabled: bool,
        is_asked: bool,
    ) -> Result<Outcome, Unsettled> {
        let email = self.serial.email();
        self.check_is_lost(places, is_disabled).map_err(Unsettled::Undone)?;
        let admin = &self.job.admin;
        // Before the call, as for a new password.
        log::warn!(
            "deleting {email} and making it again with another id; once it is deleted, a device flashed earlier with {} can no longer log \
             in, and what names the old id (mission sessions, a hardware binding) is gone",
            self.serial
        );
        admin.delete(&email).map_err(|fault| {
            if fault.is_without_route() {
                let why = format!(
                    "the user {email} exists with a password that is not known here, and this server has no route to delete it \
                     either; let whoever runs the API delete the user, then run this again"
                );
                return Unsettled::Undone(fault.error.context(why));
            }
            let when = if fault.perhaps_done { " in a few minutes: until then, the API may still delete it" } else { "" };
            let why = format!("deleting the user {email}; it is made if it is gone; run this again{when}");
            let error = fault.error.context(why);
            // Whether it is deleted or not, the password is not the user's, unless the earlier request to make it is carried out now.
            if is_asked && fault.perhaps_done { Unsettled::Unknown(error) } else { Unsettled::Undone(error) }
        })?;
        let deleted = || format!("the user {email} was deleted and is to be made again");
        match admin.create(&email, password) {
            Ok(Creation::Created) => self.created(password),
            Ok(Creation::Exists { .. }) => match self.job.log_in(&email, password).map_err(Unsettled::Unknown)? {
                Login::In(token) => check_role(&email, &token).map(|()| Outcome::Created).map_err(Unsettled::Done),
                Login::Refused { .. } => Err(Unsettled::Undone(failure(
                    Exit::Exists,
                    format!("{}, and exists again: is another station at work on {}?", deleted(), self.serial),
                ))),
            },
            Err(fault) if fault.perhaps_done => Err(Unsettled::Unknown(fault.error.context(deleted()))),
            // The next run goes on with what is in the target.
            Err(fault) => Err(Unsettled::Done(fault.error.context(format!("{}; run this again", deleted())))),
        }
    }

    /// Refuses to delete an account that somebody can still use, or that somebody has put out of use.
    fn check_is_lost(&self, places: &Places<'_>, is_disabled: bool) -> Result<()> {
        let (email, api) = (self.serial.email(), self.job.http.api());
        let disabled = || {
            let message = format!(
                "the user {email} is disabled, so it is not deleted; enable it on the admin API, or delete it there, then run this \
                 again"
            );
            failure(Exit::Refused, message)
        };
        if is_disabled {
            return Err(disabled());
        }
        // Those that are used again were tried.
        for conf in places.doubtful().filter(|conf| conf.api_url == *api) {
            match self.job.log_in(&email, &conf.password)? {
                Login::In(_) => {
                    let message = format!(
                        "the password in the target still lets {email} in, though this tool has not written it, so the user is not \
                         deleted; clear the target if that device.conf is not wanted any more, then run this again"
                    );
                    return Err(failure(Exit::Exists, message));
                }
                Login::Refused { is_disabled: true } => return Err(disabled()),
                Login::Refused { .. } => {}
            }
        }
        Ok(())
    }

    /// A disabled account takes a new password and still lets nobody in; only a login tells. It is tried once: that
    /// the API is too busy for it now does not undo the update.
    fn check_updated(&self, email: &str, password: &SecretString) -> Result<()> {
        match self.job.budget.once(|limit| session::login(self.job.http, email, password, limit)) {
            Ok((tokens, _)) => check_role(email, &tokens.access),
            Err(fault) if fault.class().is_transient() || fault.class() == Class::Interrupted => {
                log::warn!("the new password could not be tried: {}", chain(&fault));
                Ok(())
            }
            // Not the API's word, so nothing about the account.
            Err(fault) if fault.class() == Class::Unacceptable => Err(Error::from(fault).context(format!(
                "the user {email} was given a new password, and whether it works is not known"
            ))),
            Err(fault) => Err(Error::from(fault).context(format!(
                "the user {email} was given a new password, and can't log in with it; either it is disabled or has a second \
                 factor, which is to be mended on the admin API, or another station has just provisioned the same \
                 serial; then run this again"
            ))),
        }
    }
}
