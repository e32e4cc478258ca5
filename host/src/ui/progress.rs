//! The progress bar of a batch.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

const BAR: &str = "{bar:20} {pos}/{len} devices, {rate}, {eta} left{msg}";

/// How often the bar is drawn again while no device ends.
const TICK: Duration = Duration::from_secs(1);

/// The bar, for those who print beside it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes how fast it goes on. Slow lines do some ten devices a minute.
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

/// Prints with the bar out of the way.
pub(crate) fn above_bar<T>(print: impl FnOnce() -> T) -> T {
    match shown() {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// Shows a bar until it is dropped, if standard error is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn start(devices: usize) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(devices as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> ").with_key("rate", write_rate));
            // While the API has all workers wait, the time left does not stay as it was.
            bar.enable_steady_tick(TICK);
            bar
        });
        SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&bar);
        Self { bar }
    }

    pub(crate) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// One more device has ended; so many have failed by now.
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
