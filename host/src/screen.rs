//! What the person at the line sees of a batch: a bar on a terminal, a line a unit elsewhere.

use std::cell::RefCell;
use std::fmt;
use std::io::{IsTerminal, stderr, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use azaion_agent::identity::Serial;
use azaion_agent::plain_text::escaped;
use azaion_agent::stderr_log::{self, StandardError};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use log::{Log, Metadata};

use crate::batch::Record;
use crate::error::Result;
use crate::output;

const BAR: &str = "{bar:20} {pos}/{len} units, {rate}, {eta} left{msg}";

/// How often the bar is drawn anew while no unit ends.
const TICK: Duration = Duration::from_secs(1);

/// The bar, for those who print beside it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

thread_local! {
    /// The unit that this thread works on, for its messages.
    static UNIT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The log of the host tool: each message with the unit that it is about, and not through the bar.
#[derive(Debug)]
pub(crate) struct UnitLog;

impl Log for UnitLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        StandardError.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let about = UNIT.with_borrow(|unit| unit.as_ref().map_or(String::new(), |unit| format!("{unit}: ")));
        let text = format!("{about}{}", record.args());
        let text = escaped(&text);
        above_bar(|| stderr_log::write(record.level(), &text));
    }

    fn flush(&self) {}
}

/// Does something whose messages are about this unit.
pub(crate) fn about<T>(serial: &Serial, what: impl FnOnce() -> T) -> T {
    UNIT.set(Some(serial.to_string()));
    let done = what();
    UNIT.set(None);
    done
}

/// Slow lines do some ten units a minute.
fn write_rate(state: &ProgressState, line: &mut dyn fmt::Write) {
    let a_second = state.per_sec();
    // Writing a number into the line can't fail.
    let _ = if a_second < 1.0 {
        write!(line, "{:.0} a minute", a_second * 60.0)
    } else {
        write!(line, "{a_second:.0} a second")
    };
}

fn shown() -> Option<ProgressBar> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn above_bar<T>(print: impl FnOnce() -> T) -> T {
    match shown() {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// The screen of a batch.
#[derive(Debug)]
pub(crate) struct Screen {
    json: bool,
    failed: usize,
}

impl Screen {
    /// Shows a bar if there is a terminal for it.
    pub(crate) fn new(units: usize, json: bool) -> Self {
        if stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(units as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> ").with_key("rate", write_rate));
            // While the API has all of them wait, what was promised before does not stay there.
            bar.enable_steady_tick(TICK);
            *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
        }
        Self { json, failed: 0 }
    }

    /// One more unit is done with.
    pub(crate) fn tell(&mut self, record: &Record) -> Result<()> {
        self.failed += usize::from(record.has_failed());
        let bar = shown();
        if let Some(bar) = &bar {
            bar.inc(1);
            if self.failed > 0 {
                bar.set_message(format!(", {} failed", self.failed));
            }
        }
        let is_watched = bar.is_some() && stdout().is_terminal();
        // Who watches the bar need not see what went well.
        if is_watched && !self.json && record.outcome == "created" {
            return Ok(());
        }
        let text = match &record.error {
            // All of it stands in the summary.
            Some(_) if is_watched => format!("{}: failed (exit code {})", record.serial, record.exit_code),
            Some(error) => format!("{}: failed: {error}", record.serial),
            None => format!("{}: {} ({} ms)", record.serial, record.outcome, record.elapsed_ms),
        };
        above_bar(|| output::print(self.json, record, &text))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}
