//! `ready.json`, which reports whether the device is ready, and `first-boot.json`, which keeps state across boots.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::api::token::{Signature, UserId};
use crate::common::clock::Timestamp;
use crate::common::device_conf::DeviceConf;
use crate::common::exit::Exit;

use super::files::{self, Directory, FileError, Readers};
use super::paths::{FIRST_BOOT_FILE, READY_FILE};
use super::refusals::Refusals;
use crate::device::time_floor::Memory;

/// The version of `first-boot.json`.
const VERSION: u32 = 1;

/// `ready.json`. It holds no secret. Its times are true time, not those of the system clock.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Readiness {
    /// Whether the device has a valid token.
    pub ready: bool,
    /// The device's serial, if `device.conf` has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// E-mail address of the device's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The account's id on the API; absent if the token does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The API that the device logs in to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
    /// Since when the device has been ready without a break, UTC, in true time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When the token expires, UTC, in true time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whether the token's signature was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Whether the agent makes no call to the API because the hold file is there.
    pub held: bool,
    /// While not ready: the exit code of the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// While not ready: why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Returns the exit code for the `code` in `ready.json`.
pub fn exit_of(code: u8) -> Exit {
    let known = [Exit::Protocol, Exit::Refused, Exit::Config, Exit::Internal];
    known.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Later)
}

impl Readiness {
    /// Returns the state of a device that is not ready; `conf` is `None` if it can't be used.
    pub fn not_ready(conf: Option<&DeviceConf>, exit: Exit, reason: String) -> Self {
        Self { code: Some(exit.code()), reason: Some(reason), ..conf.map(Self::of).unwrap_or_default() }
    }

    /// Returns the state of the device of this `device.conf`, not ready yet.
    pub fn of(conf: &DeviceConf) -> Self {
        Self {
            serial: conf.serial.clone(),
            email: Some(conf.email.clone()),
            api_url: Some(conf.api_url.to_string()),
            ..Self::default()
        }
    }

    /// Reads what the last run wrote.
    pub fn read(directory: &Path) -> Option<Self> {
        files::read(directory, READY_FILE)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn write(&self, directory: &Directory) -> Result<(), FileError> {
        directory.write(READY_FILE, Readers::All, self)
    }
}

/// `first-boot.json`: the state that is kept across boots.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FirstBoot {
    /// Version of the format.
    #[cfg_attr(feature = "schema", schemars(extend("const" = VERSION)))]
    version: u32,
    /// When this device was first ready, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_ready_at: Option<Timestamp>,
    /// Fingerprint of the `device.conf` that the device was last ready with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_with: Option<String>,
    /// The boot in which it was last ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_boot_id: Option<String>,
    /// Refusals of the credentials since then; absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusals: Option<Refusals>,
    /// What is known of time.
    #[serde(flatten)]
    pub time: Memory,
}

impl FirstBoot {
    /// Reads the file. A missing file is an empty state.
    pub fn read(directory: &Path) -> Self {
        Self { version: VERSION, ..files::read(directory, FIRST_BOOT_FILE).unwrap_or_default() }
    }

    /// Returns the state after the device was ready at `now` with this `device.conf` in this boot.
    #[must_use]
    pub fn ready(self, now: Timestamp, device_conf: &str, boot_id: &str, time: Memory) -> Self {
        Self {
            first_ready_at: self.first_ready_at.or(Some(now)),
            ready_with: Some(device_conf.to_owned()),
            ready_boot_id: Some(boot_id.to_owned()),
            refusals: None,
            time,
            ..self
        }
    }

    /// Returns whether the device was ever ready with this `device.conf`.
    pub fn was_ready_with(&self, device_conf: &str) -> bool {
        self.ready_with.as_deref() == Some(device_conf)
    }

    /// Returns whether the device was ready with this `device.conf` in this boot.
    pub fn was_ready_in(&self, boot_id: &str, device_conf: &str) -> bool {
        self.ready_boot_id.as_deref() == Some(boot_id) && self.was_ready_with(device_conf)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn write(&self, directory: &Directory) -> Result<(), FileError> {
        directory.write(FIRST_BOOT_FILE, Readers::All, self)
    }
}
