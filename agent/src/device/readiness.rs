//! `ready.json` for whoever asks how the unit is, and `first-boot.json` for what outlives a boot.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::device_conf::DeviceConf;
use crate::exit::Exit;
use crate::token::{Signature, UserId};

use super::files::{self, FileError, Folder, Readers};
use super::floor::Memory;

pub(super) const READY: &str = "ready.json";
pub(super) const FIRST_BOOT: &str = "first-boot.json";

/// `ready.json`: no secret in it; times are true time, not the clock's.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
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
    /// While not ready: the exit code of the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// While not ready: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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

/// `first-boot.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FirstBoot {
    version: u32,
    /// When this unit was first ready.
    pub first_ready_at: Timestamp,
    /// What is known of time.
    #[serde(flatten)]
    pub time: Memory,
}

impl FirstBoot {
    /// What is remembered.
    pub fn read(folder: &Path) -> Option<Self> {
        files::read(folder, FIRST_BOOT)
    }

    /// What is to be remembered after a run that was ready at `now`.
    pub fn after(known: Option<Self>, now: Timestamp, time: Memory) -> Self {
        let first_ready_at = known.map_or(now, |known| known.first_ready_at);
        Self { version: 1, first_ready_at, time }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn write(&self, folder: &Folder) -> Result<(), FileError> {
        folder.write(FIRST_BOOT, Readers::All, self)
    }
}
