//! The result of each device of a batch, and their counts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use azaion_agent::common::exit::Exit;
use serde::{Serialize, Serializer};

use super::dry_run::Plan;
use super::list::ListedDevice;
use crate::error::Result;
use crate::provision::job::Outcome;
use crate::ui::output;

/// Largest number of failures in the summary.
const MOST_REPORTED: usize = 20;
/// The outcome of a device that failed.
pub(crate) const FAILED: &str = "failed";

/// Outcome of a device of the list, or the planned one with `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceOutcome {
    Provisioned(Outcome),
    Planned(Plan),
    Failed,
}

impl DeviceOutcome {
    /// Returns the name in the output, for people and for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Provisioned(outcome) => outcome.name(),
            Self::Planned(plan) => plan.name(),
            Self::Failed => FAILED,
        }
    }
}

impl Serialize for DeviceOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Result of one device, for `--json` and for the report.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Record {
    /// Serial of the device.
    pub(crate) serial: String,
    /// E-mail address of its account.
    pub(crate) email: String,
    /// What became of the device, or would become of it with `--dry-run`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub(crate) outcome: DeviceOutcome,
    /// The device's targets.
    pub(crate) targets: Vec<String>,
    /// Milliseconds that the device took.
    pub(crate) elapsed_ms: u64,
    /// The exit code, as its type.
    #[serde(skip)]
    exit: Exit,
    /// The exit code that `device` would have ended with.
    pub(crate) exit_code: u8,
    /// Why it failed, for people; absent if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The other columns of the list, by name; absent if the list has none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) columns: BTreeMap<String, String>,
}

impl Record {
    pub(super) fn new(
        device: &ListedDevice,
        columns: &[String],
        paths: &[PathBuf],
        elapsed: Duration,
        outcome: Result<DeviceOutcome>,
    ) -> Self {
        let (outcome, exit, error) = match outcome {
            Ok(outcome) => (outcome, Exit::Done, None),
            Err(error) => (DeviceOutcome::Failed, error.exit(), Some(error.line())),
        };
        Self {
            serial: device.serial.to_string(),
            email: device.serial.email(),
            outcome,
            targets: paths.iter().map(|path| path.display().to_string()).collect(),
            elapsed_ms: elapsed.as_millis().try_into().unwrap_or(u64::MAX),
            exit,
            exit_code: exit.code(),
            error,
            columns: columns.iter().cloned().zip(device.columns.iter().cloned()).collect(),
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.exit != Exit::Done
    }
}

/// Counts of the outcomes, and the first failures.
#[derive(Debug, Default)]
pub(super) struct Tally {
    outcomes: BTreeMap<&'static str, usize>,
    /// The first failures: serial, exit code, message.
    failures: Vec<(String, Exit, String)>,
    failed: usize,
}

/// Summary of a batch for `--json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Summary<'a> {
    /// Number of devices in the list.
    units: usize,
    /// Number of devices for each outcome that occurred.
    outcomes: &'a BTreeMap<&'static str, usize>,
    /// Number of devices that were not tried, because the run ended early.
    not_tried: usize,
    /// Milliseconds that the run took.
    elapsed_ms: u128,
}

impl Tally {
    pub(super) fn add(&mut self, record: Record) {
        *self.outcomes.entry(record.outcome.name()).or_default() += 1;
        let Some(error) = record.error else { return };
        self.failed += 1;
        if self.failures.len() < MOST_REPORTED {
            self.failures.push((record.serial, record.exit, error));
        }
    }

    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// Returns the exit code of the batch: that of the first failed device.
    pub(super) fn exit(&self) -> Exit {
        self.failures.first().map_or(Exit::Done, |(_, exit, _)| *exit)
    }

    /// Prints the summary: the counts, the failures, and what to do.
    pub(super) fn report(&self, devices: usize, elapsed: Duration, json: bool, is_refused: bool) -> Result<()> {
        let not_tried = devices.saturating_sub(self.outcomes.values().sum());
        let summary = Summary { units: devices, outcomes: &self.outcomes, not_tried, elapsed_ms: elapsed.as_millis() };
        output::print(json, &summary, &self.text(devices, not_tried, elapsed))?;
        if is_refused {
            log::error!(
                "the API refuses the admin, or its response to the login is invalid, so the remaining devices were not tried; correct that, \
                 then run this again"
            );
        } else if not_tried > 0 {
            log::warn!("{not_tried} of {devices} devices were not tried; run this again to provision them");
        } else if self.failed > 0 {
            log::warn!("{} of {devices} devices failed; correct the errors, then run this again", self.failed);
        }
        Ok(())
    }

    fn text(&self, devices: usize, not_tried: usize, elapsed: Duration) -> String {
        let mut counts: Vec<String> = self.outcomes.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
        if not_tried > 0 {
            counts.push(format!("{not_tried} not tried"));
        }
        let mut text = format!("{devices} devices: {} ({:.1} s)", counts.join(", "), elapsed.as_secs_f64());
        for (serial, exit, why) in &self.failures {
            // Writing to a String can't fail.
            let _ = write!(text, "\n  {serial} (exit code {}): {why}", exit.code());
        }
        let more = self.failed - self.failures.len();
        if more > 0 {
            let _ = write!(text, "\n  and {more} more; --report lists all of them");
        }
        text
    }
}
