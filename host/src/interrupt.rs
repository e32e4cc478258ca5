//! Ctrl-C and SIGTERM: starts nothing new, finishes or undoes what must not stay incomplete, and ends the run with exit code 130.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use azaion_agent::common::clock::{Clock, SystemClock, Timestamp};
use azaion_agent::common::exit::Exit;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Longest time that a wait continues after a signal.
const POLL: Duration = Duration::from_millis(100);

/// Whether a signal has arrived. A static, because signals are sent to the process.
static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether the program waits for input, for an unknown time: a signal then ends it immediately. No work is in progress then.
static READING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Number of workers that are undoing changes. While it is not 0, [`check`] interrupts no worker.
static UNDOING: AtomicUsize = AtomicUsize::new(0);

/// Error of work that was abandoned because of a signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; run this again")]
struct Interrupted;

/// Installs the signal handlers. A second signal ends the program immediately; every run can recover from that.
///
/// # Errors
/// The kernel refuses a handler.
pub(crate) fn listen() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(Exit::Interrupted.code());
        flag::register_conditional_shutdown(signal, code, Arc::clone(&READING))
            .and_then(|_| flag::register_conditional_shutdown(signal, code, Arc::clone(&REQUESTED)))
            .and_then(|_| flag::register(signal, Arc::clone(&REQUESTED)))?;
    }
    Ok(())
}

/// Returns whether a signal has arrived.
pub(crate) fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Fails if a signal has arrived. Long operations call it at least once a second.
///
/// # Errors
/// One that [`is_cause`] recognizes.
pub(crate) fn check() -> io::Result<()> {
    // Not `ErrorKind::Interrupted`, after which readers and writers try again.
    if is_requested() && UNDOING.load(Ordering::Relaxed) == 0 { Err(io::Error::other(Interrupted)) } else { Ok(()) }
}

/// Returns whether an error came from [`check`].
pub(crate) fn is_cause(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Interrupted>()).is_some()
}

/// Reads input that a person or another program may provide slowly; a signal meanwhile ends the program.
///
/// # Errors
/// The errors of `read` and of [`check`].
pub(crate) fn while_reading<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    READING.store(true, Ordering::Relaxed);
    let result = check().and_then(|()| read());
    READING.store(false, Ordering::Relaxed);
    result
}

/// Runs `undo` without interruption by signals, to revert an incomplete change.
pub(crate) fn uninterrupted<T>(undo: impl FnOnce() -> T) -> T {
    UNDOING.fetch_add(1, Ordering::Relaxed);
    let result = undo();
    UNDOING.fetch_sub(1, Ordering::Relaxed);
    result
}

/// The system clock; its waits end when a signal arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InterruptibleClock;

impl Clock for InterruptibleClock {
    fn wall(&self) -> Timestamp {
        SystemClock.wall()
    }

    fn boot(&self) -> Duration {
        SystemClock.boot()
    }

    fn sleep(&self, time: Duration) {
        let until = self.boot().saturating_add(time);
        while !self.is_stopped() {
            let left = until.saturating_sub(self.boot());
            if left.is_zero() {
                return;
            }
            SystemClock.sleep(left.min(POLL));
        }
    }

    fn is_stopped(&self) -> bool {
        is_requested()
    }
}
