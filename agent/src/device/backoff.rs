//! `backoff.json`: until when no login may be tried, and why. Later runs respect it.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::fault::{Class, Fault, chain};
use crate::common::exit::Exit;

use super::cache::BootMoment;
use super::files::{self, Directory, FileError, Readers};
use super::paths::BACKOFF_FILE;
use super::refusals::Refusals;
use super::request::Caller;
use super::schedule::{self, Failure, Outage};
use super::surroundings::Surroundings;

const VERSION: u32 = 2;

/// Why there is a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum Cause {
    /// The server asks for it (`Retry-After`).
    Asked,
    /// No answer, or an error of the server.
    Outage,
    /// The answer could not be accepted.
    ProtocolError,
    /// The API refused the credentials.
    Refusal,
}

/// Until when (on the boot clock of one boot) no login may be tried, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Backoff {
    /// Version of the format.
    #[cfg_attr(feature = "schema", schemars(extend("const" = VERSION)))]
    version: u32,
    /// The boot in which it holds; nothing is waited for in another one.
    boot_id: String,
    /// Seconds since that boot until which no login is tried (`CLOCK_BOOTTIME`).
    until_boottime_s: u64,
    /// Exit code of the run that failed.
    code: u8,
    /// Why it failed, for people.
    pub reason: String,
    /// Fingerprint of the `device.conf` that was used: another one may be tried at once.
    device_conf: String,
    /// The kind of failure.
    cause: Cause,
    /// The calls in a row that got no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    outage: Option<Outage>,
    /// Links, routes and name servers of the machine when the call was made, and whether its clock was synchronised: a new one ends the wait.
    surroundings: Surroundings,
    /// Refusals of the credentials in a row, for where `/var` can't be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusals: Option<Refusals>,
}

/// A call that failed.
#[derive(Clone, Copy, Debug)]
pub struct FailedCall<'a> {
    /// How the call failed.
    pub fault: &'a Fault,
    /// When the call failed.
    pub now: &'a BootMoment,
    /// The network of the machine, and whether its clock was synchronised, when the call was made.
    pub surroundings: &'a Surroundings,
    /// Fingerprint of the `device.conf` that was used, as [`crate::common::device_conf::ConfFile::fingerprint`].
    pub device_conf: &'a str,
}

impl Backoff {
    /// Returns the backoff after a failed call, and the wait; `None` if the next run may try at once.
    ///
    /// `before` is the previous content of the file. `refused` describes the refusal if the API refused the
    /// credentials.
    pub fn after(before: Option<Self>, call: FailedCall<'_>, refused: Option<Failure>) -> Option<(Self, Duration)> {
        let FailedCall { fault, now, surroundings, device_conf } = call;
        let class = fault.class();
        let before = before.filter(|before| before.is_of(now, device_conf));
        let refusals = before.as_ref().and_then(|before| before.refusals.clone());
        let before = before.filter(|before| !before.is_ended_by(surroundings));
        let outage = before.as_ref().and_then(|before| before.outage);
        let asked = before.filter(|before| before.cause == Cause::Asked);
        let (cause, failure) = match fault.retry_after.filter(|_| class.is_transient()) {
            Some(asked) => (Cause::Asked, Failure::Asked(asked)),
            None if class.is_transient() => (Cause::Outage, Failure::NoAnswer),
            None if class == Class::Protocol => (Cause::ProtocolError, Failure::ProtocolError),
            None => (Cause::Refusal, refused?),
        };
        let (wait, outage) = schedule::after(failure, outage, now.since_boot);
        // Rounded up, so that no call comes earlier than the server asked for.
        let until = (now.since_boot + wait).as_secs() + 1;
        // A `boot --now` ignored a wait that the server had asked for, and the server did not answer. That wait stays
        // in force for other callers.
        let is_unanswered = matches!(cause, Cause::Outage | Cause::ProtocolError);
        if let Some(asked) = asked.filter(|asked| is_unanswered && asked.until_boottime_s > until) {
            let wait = asked.left(now);
            return Some((Self { outage, ..asked }, wait));
        }
        let backoff = Self {
            version: VERSION,
            boot_id: now.boot_id.clone(),
            until_boottime_s: until,
            code: class.on_device().code(),
            reason: chain(fault),
            device_conf: device_conf.to_owned(),
            cause,
            outage,
            surroundings: surroundings.clone(),
            refusals,
        };
        Some((backoff, wait))
    }

    /// Returns the same backoff with these refusals, if there are any.
    #[must_use]
    pub fn with_refusals(self, refusals: Option<Refusals>) -> Self {
        Self { refusals: refusals.or_else(|| self.refusals.clone()), ..self }
    }

    /// Returns whether the API has been unreachable for long.
    pub fn is_long_outage(&self, now: &BootMoment, device_conf: &str, surroundings: &Surroundings) -> bool {
        let is_long = self.outage.is_some_and(|outage| outage.is_long(now.since_boot));
        is_long && self.is_of(now, device_conf) && !self.is_ended_by(surroundings)
    }

    /// Reads the file.
    pub fn read(directory: &Path) -> Option<Self> {
        files::read::<Self>(directory, BACKOFF_FILE).filter(|backoff| backoff.version == VERSION)
    }

    fn is_of(&self, now: &BootMoment, device_conf: &str) -> bool {
        self.boot_id == now.boot_id && self.device_conf == device_conf
    }

    /// Returns whether something new on the machine ends the wait. Even a `Retry-After` may come from a network that is
    /// gone; only a refusal of the account holds in every network.
    pub fn is_ended_by(&self, surroundings: &Surroundings) -> bool {
        self.cause != Cause::Refusal && surroundings.has_more_than(&self.surroundings)
    }

    /// Returns whether the wait applies now to this caller and this `device.conf`.
    pub fn is_in_force(
        &self,
        caller: Caller,
        now: &BootMoment,
        device_conf: &str,
        surroundings: &Surroundings,
    ) -> bool {
        let is_long = self.outage.is_some_and(|outage| outage.is_long(now.since_boot));
        let is_for_caller = match (self.cause, caller) {
            (Cause::Asked | Cause::Refusal, _) | (_, Caller::Unit) | (Cause::ProtocolError, Caller::Program) => true,
            (Cause::Outage, Caller::Program) => is_long,
            // A person may just have repaired the server or the network, so they need not wait.
            (Cause::Outage | Cause::ProtocolError, Caller::Person) => false,
        };
        is_for_caller && self.is_of(now, device_conf) && !self.left(now).is_zero() && !self.is_ended_by(surroundings)
    }

    /// Returns the rest of the wait.
    pub fn left(&self, now: &BootMoment) -> Duration {
        Duration::from_secs(self.until_boottime_s).saturating_sub(now.since_boot)
    }

    /// Returns the exit code of the run that wrote the file.
    pub fn exit(&self) -> Exit {
        match self.cause {
            Cause::Refusal => Exit::Refused,
            Cause::ProtocolError => Exit::Protocol,
            Cause::Asked | Cause::Outage => Exit::Later,
        }
    }

    /// Returns whether the wait follows a refusal of the credentials.
    pub fn is_refusal(&self) -> bool {
        self.cause == Cause::Refusal
    }

    /// Returns the network of the machine, and whether its clock was synchronised, when the call was made.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn write(&self, directory: &Directory) -> Result<(), FileError> {
        directory.write(BACKOFF_FILE, Readers::Agent, self)
    }

    /// Removes the file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn clear(directory: &Directory) -> Result<(), FileError> {
        directory.remove(BACKOFF_FILE)
    }
}

#[cfg(test)]
mod tests;
