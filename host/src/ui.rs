//! What a person or a program at the terminal sees and types.

pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod prompt;
