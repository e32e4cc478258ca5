//! The log of the host tool: prefixes each message with its device, and keeps messages out of the progress bar.

use std::cell::RefCell;

use azaion_agent::common::identity::Serial;
use azaion_agent::common::plain_text::escaped;
use azaion_agent::common::stderr_log::{self, StandardError};
use log::{Log, Metadata};

use super::progress::above_bar;

thread_local! {
    /// The device that this thread provisions, for its messages.
    static DEVICE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Logger that writes to standard error.
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
        let prefix = DEVICE.with_borrow(|device| device.as_ref().map_or(String::new(), |device| format!("{device}: ")));
        let text = format!("{prefix}{}", record.args());
        let text = escaped(&text);
        above_bar(|| stderr_log::write(record.level(), &text));
    }

    fn flush(&self) {}
}

/// Runs `work`; its log messages get the serial as a prefix.
pub(crate) fn about<T>(serial: &Serial, work: impl FnOnce() -> T) -> T {
    DEVICE.set(Some(serial.to_string()));
    let result = work();
    DEVICE.set(None);
    result
}
