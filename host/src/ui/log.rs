//! The log of the host tool: each message with the device that it is about, and not through the progress bar.

use std::cell::RefCell;

use azaion_agent::common::identity::Serial;
use azaion_agent::common::plain_text::escaped;
use azaion_agent::common::stderr_log::{self, StandardError};
use log::{Log, Metadata};

use super::progress::above_bar;

thread_local! {
    /// The device that this thread works on, for its messages.
    static DEVICE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Writes to standard error.
#[derive(Debug)]
pub(crate) struct DeviceLog;

impl Log for DeviceLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        StandardError.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let about = DEVICE.with_borrow(|device| device.as_ref().map_or(String::new(), |device| format!("{device}: ")));
        let text = format!("{about}{}", record.args());
        let text = escaped(&text);
        above_bar(|| stderr_log::write(record.level(), &text));
    }

    fn flush(&self) {}
}

/// Does something whose messages are about this device.
pub(crate) fn about<T>(serial: &Serial, what: impl FnOnce() -> T) -> T {
    DEVICE.set(Some(serial.to_string()));
    let done = what();
    DEVICE.set(None);
    done
}
