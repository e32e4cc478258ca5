//! What all workers of a batch tell, one at a time: the screen, the report, the sum of it.

use super::record::{Record, Tally};
use super::report::ReportFile;
use crate::error::{Error, Result};
use crate::screen::Screen;

pub(super) struct Results {
    screen: Screen,
    report: Option<ReportFile>,
    tally: Tally,
    /// Why a unit could not be told of.
    error: Option<Error>,
}

impl Results {
    pub(super) fn new(screen: Screen, report: Option<ReportFile>) -> Self {
        Self { screen, report, tally: Tally::default(), error: None }
    }

    /// Tells of one more unit. Whether that worked: what can't be told of is not to be begun.
    pub(super) fn add(&mut self, record: Record) -> bool {
        let told = self.screen.tell(&record).and_then(|()| self.report.as_mut().map_or(Ok(()), |r| r.add(&record)));
        self.tally.add(record);
        if let Err(error) = told {
            self.error.get_or_insert(error);
        }
        self.error.is_none()
    }

    /// Ends the screen.
    pub(super) fn finish(self) -> Result<Tally> {
        if let Some(error) = self.error {
            return Err(error);
        }
        Ok(self.tally)
    }
}
