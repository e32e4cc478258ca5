//! Why the bytes of an image can't be used.

use std::io;

/// Why an image can't be used; the message says what to do instead.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It can't be read or written.
    #[error("can't be read or written")]
    Io(#[from] io::Error),
    /// It is whole, but of a kind that can't be handled.
    #[error("{0}")]
    Refused(&'static str),
    /// It contradicts itself.
    #[error("has a damaged {what} ({how}); {advice}")]
    Damaged {
        /// The part that does.
        what: &'static str,
        /// How it does.
        how: &'static str,
        /// What to do.
        advice: &'static str,
    },
}
