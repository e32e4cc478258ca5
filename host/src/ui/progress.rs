//! The progress bar of a batch.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

const BAR: &str = "{bar:20} {pos}/{len} devices, {rate}, {eta} left{msg}";

/// Interval at which the bar is redrawn while no device finishes.
const TICK: Duration = Duration::from_secs(1);

/// The visible bar, which output must suspend.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes the rate, per minute if it is below one device per second. Slow lines do about ten devices per minute.
fn write_rate(state: &ProgressState, line: &mut dyn fmt::Write) {
    let per_second = state.per_sec();
    // Writing a number to the line can't fail.
    let _ = if per_second < 1.0 {
        write!(line, "{:.0} per minute", per_second * 60.0)
    } else {
        write!(line, "{per_second:.0} per second")
    };
}

fn shown() -> Option<ProgressBar> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Hides the bar while `print` runs.
pub(crate) fn above_bar<T>(print: impl FnOnce() -> T) -> T {
    match shown() {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// A progress bar that is visible until it is dropped, if standard error is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts a bar for a number of devices.
    pub(crate) fn start(devices: usize) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(devices as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> ").with_key("rate", write_rate));
            // Updates the remaining time while the API has all workers wait.
            bar.enable_steady_tick(TICK);
            bar
        });
        SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&bar);
        Self { bar }
    }

    /// Returns whether the bar is visible.
    pub(crate) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Counts one more finished device; `failed` is the number of failures so far.
    pub(crate) fn advance(&self, failed: usize) {
        let Some(bar) = &self.bar else { return };
        bar.inc(1);
        if failed > 0 {
            bar.set_message(format!(", {failed} failed"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
