//! `azaion-provision clear`: removes an identity from targets, so that the next device can't inherit it.

use std::path::PathBuf;

use azaion_agent::common::device_conf::DeviceConf;
use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::{Serial, SerialError, is_assigned_serial};
use azaion_agent::common::plain_text::escaped;
use serde::Serialize;

use crate::error::{Context, Result, failure, for_all};
use crate::provision::intent::filter_intent;
use crate::target::{self, Kind, Target};
use crate::ui::output;

/// Result for one target, for `--json`.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Record {
    /// The target, as it was given.
    path: String,
    /// The kind of target.
    kind: Kind,
    /// Whether there was a `device.conf`.
    cleared: bool,
    /// Serial of the device whose file it was; absent if the file did not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
}

/// The device of `--if-serial`.
enum ExpectedDevice<'a> {
    /// A device with a serial of ours.
    Ours(Serial),
    /// A device with a serial created by the server.
    Assigned(&'a str),
}

impl<'a> ExpectedDevice<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        if is_assigned_serial(text) {
            return Ok(Self::Assigned(text));
        }
        let serial = text.parse().map(Self::Ours);
        serial.map_err(|error: SerialError| failure(Exit::Data, format!("invalid serial: {error}")))
    }

    fn owns(&self, conf: &DeviceConf) -> bool {
        match self {
            Self::Ours(serial) => conf.is_of(serial),
            Self::Assigned(serial) => conf.serial.as_deref() == Some(serial),
        }
    }
}

/// Clears each target; succeeds for a target without a `device.conf`. Fails for a target with another device's file than `--if-serial` and
/// keeps the file, because the target was probably mixed up.
pub(crate) fn run(targets: &[PathBuf], if_serial: Option<&str>, json: bool) -> Result<Exit> {
    let expected = if_serial.map(ExpectedDevice::parse).transpose()?;
    let exit = for_all(targets, |path| {
        // Locked until it is cleared, so the validated file is the one that is removed.
        let target = target::open(path)?;
        expected
            .as_ref()
            .zip(if_serial)
            .map_or(Ok(()), |(device, serial)| check_device(target.as_ref(), device, serial))?;
        // A file that can't be read is removed as well.
        let found = target.read_conf().ok().flatten();
        let found = if expected.is_none() { filter_intent(target.as_ref(), found.as_ref()) } else { found.as_ref() };
        let serial = found.and_then(|found| found.conf(path).ok()?.serial);
        let cleared = target.clear()?;
        let record = Record { path: target.path().display().to_string(), kind: target.kind(), cleared, serial };
        let result = if cleared { "device.conf removed" } else { "no device.conf found" };
        output::print(json, &record, &format!("{} ({}): {result}", escaped(&record.path), record.kind))
    });
    Ok(exit)
}

/// Fails if a target holds another device's file.
fn check_device(target: &dyn Target, expected: &ExpectedDevice<'_>, serial: &str) -> Result<()> {
    let found = target.read_conf()?;
    let Some(found) = filter_intent(target, found.as_ref()) else { return Ok(()) };
    let conf =
        found.conf(target.path()).context("the target was not cleared, because its device.conf can't be read")?;
    if expected.owns(&conf) {
        return Ok(());
    }
    // With the e-mail, because it may be the only difference.
    let (path, whose, email) = (target.path().display(), conf.whose(), &conf.email);
    let message = format!("{path} was not cleared: it holds the device.conf of {whose} ({email}), not of {serial}");
    Err(failure(Exit::Exists, message))
}
