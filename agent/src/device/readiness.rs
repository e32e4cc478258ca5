//! `ready.json` for whoever asks how the unit is, and `first-boot.json` for what outlives a boot.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::device_conf::DeviceConf;
use crate::exit::Exit;
use crate::token::{Signature, UserId};

use super::files::{self, FileError, Folder, Readers};
use super::floor::Memory;
use super::refusals::Refusals;

pub(super) const READY: &str = "ready.json";
pub(super) const FIRST_BOOT: &str = "first-boot.json";

/// `ready.json`: no secret in it; times are true time, not the clock's.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Readiness {
    /// Whether there is a valid token.
    pub ready: bool,
    /// The device's serial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The account's id, where the token says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
    /// Since when it has been ready without a break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When the token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What is known of the token's signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Whether no call is made, because the hold file is there.
    pub held: bool,
    /// While not ready: the exit code of the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// While not ready: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The exit code of a run that left this `code`.
pub fn exit_of(code: u8) -> Exit {
    let known = [Exit::Protocol, Exit::Refused, Exit::Config, Exit::Internal];
    known.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Later)
}

impl Readiness {
    /// Not ready, whoever it is.
    pub fn not_ready(conf: Option<&DeviceConf>, exit: Exit, reason: String) -> Self {
        Self { code: Some(exit.code()), reason: Some(reason), ..conf.map(Self::of).unwrap_or_default() }
    }

    /// Who it is, not ready yet.
    pub fn of(conf: &DeviceConf) -> Self {
        Self {
            serial: conf.serial.clone(),
            email: Some(conf.email.clone()),
            api_url: Some(conf.api_url.to_string()),
            ..Self::default()
        }
    }

    /// What the last run said.
    pub fn read(folder: &Path) -> Option<Self> {
        files::read(folder, READY)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn write(&self, folder: &Folder) -> Result<(), FileError> {
        folder.write(READY, Readers::All, self)
    }
}

/// `first-boot.json`: what outlives a boot.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct FirstBoot {
    version: u32,
    /// When this device was first ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_ready_at: Option<Timestamp>,
    /// Which `device.conf` it was last ready with, as [`crate::device_conf::ConfFile::fingerprint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_with: Option<String>,
    /// In which boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_boot_id: Option<String>,
    /// Refusals of the credentials since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusals: Option<Refusals>,
    /// What is known of time.
    #[serde(flatten)]
    pub time: Memory,
}

impl FirstBoot {
    /// What is remembered; nothing at first.
    pub fn read(folder: &Path) -> Self {
        Self { version: 1, ..files::read(folder, FIRST_BOOT).unwrap_or_default() }
    }

    /// The same after the device was ready at `now` with this `device.conf` in this boot.
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

    /// Whether it was ever ready with this `device.conf`.
    pub fn was_ready_with(&self, device_conf: &str) -> bool {
        self.ready_with.as_deref() == Some(device_conf)
    }

    /// Whether it was in this boot.
    pub fn was_ready_in(&self, boot_id: &str, device_conf: &str) -> bool {
        self.ready_boot_id.as_deref() == Some(boot_id) && self.was_ready_with(device_conf)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn write(&self, folder: &Folder) -> Result<(), FileError> {
        folder.write(FIRST_BOOT, Readers::All, self)
    }
}
