//! Input and output: log, results, progress bar, password prompt.

pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod prompt;
