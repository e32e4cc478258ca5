//! Why the bytes of an image can't be used.

use std::borrow::Cow;
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
    /// It is a file system in use, or was until the power failed.
    #[error("was not unmounted cleanly: its journal has to be replayed first")]
    Unclean,
    /// It is a file system that contradicts itself.
    #[error("has a damaged file system ({0})")]
    Faulty(Cow<'static, str>),
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
