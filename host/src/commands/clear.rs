//! `azaion-provision clear`: takes an identity out again, so that the next unit can't inherit it.

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

/// The device whose file is to be cleared, and no other's.
enum ExpectedDevice<'a> {
    Ours(Serial),
    /// By the serial that the server has made.
    Assigned(&'a str),
}

impl<'a> ExpectedDevice<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        if is_assigned_serial(text) {
            return Ok(Self::Assigned(text));
        }
        let serial = text.parse().map(Self::Ours);
        serial.map_err(|error: SerialError| failure(Exit::Data, format!("the serial given can't be used: {error}")))
    }

    fn is(&self, conf: &DeviceConf) -> bool {
        match self {
            Self::Ours(serial) => conf.is_of(serial),
            Self::Assigned(serial) => conf.serial.as_deref() == Some(serial),
        }
    }
}

/// Clears each target; one without a `device.conf` is as it should be. One with another device's than the one that is
/// meant is left alone, and that is a failure: somebody has taken it for this one's.
pub(crate) fn run(targets: &[PathBuf], if_serial: Option<&str>, json: bool) -> Result<Exit> {
    let meant = if_serial.map(ExpectedDevice::parse).transpose()?;
    let exit = for_all(targets, |path| {
        // Locked until it is cleared: what is looked at is what is taken out.
        let target = target::open(path)?;
        meant.as_ref().zip(if_serial).map_or(Ok(()), |(meant, serial)| is_of(target.as_ref(), meant, serial))?;
        // What can't be read is taken out all the same.
        let found = target.read_conf().ok().flatten();
        let found = if meant.is_none() { filter_intent(target.as_ref(), found.as_ref()) } else { found.as_ref() };
        let serial = found.and_then(|found| found.conf(path).ok()?.serial);
        let cleared = target.clear()?;
        let record = Record { path: target.path().display().to_string(), kind: target.kind(), cleared, serial };
        let what = if cleared { "device.conf taken out" } else { "there was no device.conf" };
        output::print(json, &record, &format!("{} ({}): {what}", escaped(&record.path), record.kind))
    });
    Ok(exit)
}

/// Whether what is in a target, if anything is, is this device's.
fn is_of(target: &dyn Target, meant: &ExpectedDevice<'_>, serial: &str) -> Result<()> {
    let found = target.read_conf()?;
    let Some(found) = filter_intent(target, found.as_ref()) else { return Ok(()) };
    let conf =
        found.conf(target.path()).context("the target was left alone, for whose device.conf is there can't be read")?;
    if meant.is(&conf) {
        return Ok(());
    }
    // With the e-mail, too, for it may be that one alone that is another.
    let (path, whose, email) = (target.path().display(), conf.whose(), &conf.email);
    let message = format!("{path} was left alone: it holds the device.conf of {whose} ({email}), not that of {serial}");
    Err(failure(Exit::Exists, message))
}
