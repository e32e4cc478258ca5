//! Ctrl-C and SIGTERM: nothing new is begun, what can't be left half done is finished or undone, and the run ends with 130.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use azaion_agent::common::clock::{Clock, SystemClock, Timestamp};
use azaion_agent::common::exit::Exit;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// How soon a wait ends after a signal.
const POLL: Duration = Duration::from_millis(100);

/// Whether a signal has come. Of the process, as signals are.
static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether input is being read, for which nobody knows how long to wait: a signal then ends the program at once. Nothing is begun.
static READING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// How many workers undo something, which is not interrupted; nor is what the others do meanwhile.
static UNDOING: AtomicUsize = AtomicUsize::new(0);

/// Work was given up because of a signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; run this again")]
struct Interrupted;

/// Takes note of signals from now on. The second one ends the program at once, which any run has to survive anyway.
///
/// # Errors
/// The kernel takes no handler.
pub(crate) fn listen() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(Exit::Interrupted.code());
        flag::register_conditional_shutdown(signal, code, Arc::clone(&READING))
            .and_then(|_| flag::register_conditional_shutdown(signal, code, Arc::clone(&REQUESTED)))
            .and_then(|_| flag::register(signal, Arc::clone(&REQUESTED)))?;
    }
    Ok(())
}

/// Whether a signal has come.
pub(crate) fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Gives up if a signal has come: to be called at least once a second by whatever may take long.
///
/// # Errors
/// One that [`is_cause`] recognizes.
pub(crate) fn check() -> io::Result<()> {
    // Not of the kind `Interrupted`, after which readers and writers try again.
    if is_requested() && UNDOING.load(Ordering::Relaxed) == 0 { Err(io::Error::other(Interrupted)) } else { Ok(()) }
}

/// Whether an error is that of [`check`].
pub(crate) fn is_cause(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Interrupted>()).is_some()
}

/// Reads what a person or another program may be slow to give.
///
/// # Errors
/// Those of `read`, and that of [`check`].
pub(crate) fn while_reading<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    READING.store(true, Ordering::Relaxed);
    let done = check().and_then(|()| read());
    READING.store(false, Ordering::Relaxed);
    done
}

/// Does something that no signal interrupts: undoing what was begun.
pub(crate) fn uninterrupted<T>(undo: impl FnOnce() -> T) -> T {
    UNDOING.fetch_add(1, Ordering::Relaxed);
    let done = undo();
    UNDOING.fetch_sub(1, Ordering::Relaxed);
    done
}

/// The machine's clock, on which nobody waits any longer once a signal has come.
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
