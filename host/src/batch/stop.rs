//! Ctrl-C: what was begun is finished, and nothing new is begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use azaion_agent::clock::{Clock, SystemClock, Timestamp};
use azaion_agent::exit::Exit;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Result, io_failure};
use crate::prompt::leave_signals;

/// How soon a wait ends after Ctrl-C.
const POLL: Duration = Duration::from_millis(100);
/// Further than any deadline.
const FAR: Duration = Duration::from_hours(48);

/// Whether to stop.
#[derive(Debug)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stops on `SIGINT` and `SIGTERM`. The second one ends the program at once, which is harmless, too.
    pub(super) fn on_signals() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let code = i32::from(Exit::Interrupted.code());
            flag::register_conditional_shutdown(signal, code, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .map_err(|error| io_failure(error, "listening for signals"))?;
        }
        leave_signals();
        Ok(Self(asked))
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Stops for another reason.
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The machine's clock, on which no unit waits for the API any more once it is to stop.
#[derive(Debug)]
pub(super) struct StoppableClock<'a> {
    stop: &'a Stop,
    /// Whether a wait was cut short: no further one fits into any deadline.
    is_over: AtomicBool,
}

impl<'a> StoppableClock<'a> {
    pub(super) fn new(stop: &'a Stop) -> Self {
        Self { stop, is_over: AtomicBool::new(false) }
    }
}

impl Clock for StoppableClock<'_> {
    fn wall(&self) -> Timestamp {
        SystemClock.wall()
    }

    fn boot(&self) -> Duration {
        let later = if self.is_over.load(Ordering::Relaxed) { FAR } else { Duration::ZERO };
        SystemClock.boot() + later
    }

    fn sleep(&self, time: Duration) {
        let until = SystemClock.boot() + time;
        loop {
            let left = until.saturating_sub(SystemClock.boot());
            if self.stop.is_asked() {
                self.is_over.store(true, Ordering::Relaxed);
            }
            if left.is_zero() || self.stop.is_asked() {
                return;
            }
            SystemClock.sleep(left.min(POLL));
        }
    }
}
