//! Collects the results of a batch from its workers, and prints each on the terminal and in the report.

use std::io::{IsTerminal, stdout};

use super::record::{DeviceOutcome, Record, Tally};
use super::report::ReportFile;
use crate::error::{Error, Result};
use crate::provision::job::Outcome;
use crate::ui::output;
use crate::ui::progress::{Progress, above_bar};

/// The results of a batch so far.
pub(super) struct Results {
    json: bool,
    progress: Progress,
    report: Option<ReportFile>,
    tally: Tally,
    /// The first error while printing or writing a result.
    error: Option<Error>,
}

impl Results {
    pub(super) fn new(devices: usize, json: bool, report: Option<ReportFile>) -> Self {
        Self { json, progress: Progress::start(devices), report, tally: Tally::default(), error: None }
    }

    /// Adds the result of one device. Returns whether it could be printed and written: if not, no further device is started.
    pub(super) fn add(&mut self, record: Record) -> bool {
        self.progress.advance(self.tally.failed() + usize::from(record.has_failed()));
        let printed = self.print(&record);
        let written = printed.and_then(|()| self.report.as_mut().map_or(Ok(()), |report| report.add(&record)));
        self.tally.add(record);
        if let Err(error) = written {
            self.error.get_or_insert(error);
        }
        self.error.is_none()
    }

    fn print(&self, record: &Record) -> Result<()> {
        let has_progress_bar = self.progress.is_shown() && stdout().is_terminal();
        // The progress bar already shows the successes.
        if has_progress_bar && !self.json && record.outcome == DeviceOutcome::Provisioned(Outcome::Created) {
            return Ok(());
        }
        let text = match &record.error {
            // The summary has the whole message.
            Some(_) if has_progress_bar => format!("{}: failed (exit code {})", record.serial, record.exit_code),
            Some(error) => format!("{}: failed: {error}", record.serial),
            None => format!("{}: {} ({} ms)", record.serial, record.outcome.name(), record.elapsed_ms),
        };
        above_bar(|| output::print(self.json, record, &text))
    }

    /// Ends the progress bar and returns the counts.
    pub(super) fn finish(self) -> Result<Tally> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.tally),
        }
    }
}
