//! `azaion-provision inspect`: prints the content of targets, without the password.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use azaion_agent::api::fault::chain;
use azaion_agent::common::clock::Timestamp;
use azaion_agent::common::exit::Exit;
use azaion_agent::common::history::{Change, HEADINGS, History, PATH};
use azaion_agent::common::plain_text::escaped;
use serde::Serialize;

use crate::error::{Result, for_all};
use crate::provision::intent::filter_intent;
use crate::target::{self, Found, Kind, Target};
use crate::ui::output;

/// Number of state changes in the text output; JSON has all of them.
const SHOWN: usize = 8;

/// Content of one target, for `--json`.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Record {
    /// The target, as it was given.
    path: String,
    /// The kind of target.
    kind: Kind,
    /// Whether there is no `device.conf`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    empty: bool,
    #[serde(flatten)]
    content: Option<Content>,
    /// The changes in the agent's `history.json`, the oldest first, if the agent has run from this target.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Change>>,
}

/// Content of a `device.conf`, without the password.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Content {
    /// Serial of the device, or null if `device.conf` has none.
    serial: Option<String>,
    /// E-mail address of the device's account.
    email: String,
    /// The admin API that the device logs in to.
    api_url: String,
    /// When the device was provisioned, UTC, or null if `device.conf` does not say it.
    provisioned_at: Option<Timestamp>,
    /// Serial number of the Jetson module that the file is for; absent if it is for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    module_serial: Option<String>,
    /// Permission bits of the file, in octal.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-7]{4}$")))]
    mode: String,
    /// Owner of the file, by number.
    uid: u32,
    /// Group of the file, by number.
    gid: u32,
}

impl Content {
    fn of(found: &Found, target: &Path) -> Result<Self> {
        let conf = found.conf(target)?;
        Ok(Self {
            serial: conf.serial,
            email: conf.email,
            api_url: conf.api_url.to_string(),
            provisioned_at: conf.provisioned_at,
            module_serial: conf.module_serial,
            mode: format!("{:04o}", found.mode),
            uid: found.uid,
            gid: found.gid,
        })
    }
}

/// Prints a record for each target that can be read.
pub(crate) fn run(targets: &[PathBuf], json: bool) -> Exit {
    for_all(targets, |path| inspect(target::open_to_read(path)?.as_ref(), json))
}

fn inspect(target: &dyn Target, json: bool) -> Result<()> {
    let found = target.read_conf()?;
    let found = filter_intent(target, found.as_ref());
    let content = found.map(|found| Content::of(found, target.path())).transpose();
    let (history, empty) = (history(target), found.is_none());
    let has_run = history.is_some();
    let record = |content| {
        let record = Record { path: target.path().display().to_string(), kind: target.kind(), empty, content, history };
        output::print(json, &record, &record.text())
    };
    match content {
        Ok(content) => record(content),
        // A device with such a file was never ready, and its history shows since when.
        Err(error) => {
            if has_run {
                record(None)?;
            }
            Err(error)
        }
    }
}

/// Returns the state changes that the agent has recorded. A history that can't be read is only a warning, because nothing depends on it.
fn history(target: &dyn Target) -> Option<Vec<Change>> {
    let bytes = target.history().unwrap_or_else(|error| {
        log::warn!("cannot read the history: {}", chain(&error));
        None
    })?;
    match History::parse(&bytes) {
        Ok(history) => Some(history.changes().to_vec()),
        Err(error) => {
            log::warn!("{}{PATH} is invalid: {error}", target.path().display());
            None
        }
    }
}

impl Record {
    fn text(&self) -> String {
        let content = match &self.content {
            Some(content) => content.text(),
            None if self.empty => ": no device.conf".to_owned(),
            None => ": invalid device.conf".to_owned(),
        };
        let history = self.history.as_deref().map(table).unwrap_or_default();
        format!("{} ({}){content}{history}", escaped(&self.path), self.kind)
    }
}

impl Content {
    fn text(&self) -> String {
        let unknown = || "not recorded".to_owned();
        let serial = self.serial.clone().unwrap_or_else(unknown);
        let when = self.provisioned_at.map_or_else(unknown, |time| time.to_string());
        let module = self.module_serial.as_ref().map_or(String::new(), |module| format!("\n  module       {module}"));
        format!(
            "\n  serial       {serial}\n  e-mail       {}\n  API          {}\n  provisioned  {when}{module}\n  mode, owner  {} {}:{}",
            self.email, self.api_url, self.mode, self.uid, self.gid
        )
    }
}

/// Formats the last state changes, one line each.
fn table(changes: &[Change]) -> String {
    let (earlier, last) = changes.split_at(changes.len().saturating_sub(SHOWN));
    let more =
        if earlier.is_empty() { String::new() } else { format!(" ({} earlier ones with --json)", earlier.len()) };
    let mut table = format!("\n  last states{more}\n    {HEADINGS}");
    for change in last {
        // Writing to a string can't fail.
        let _ = write!(table, "\n    {change}");
    }
    table
}
