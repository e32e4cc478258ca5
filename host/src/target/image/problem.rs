//! The error type of the readers of images.

use std::borrow::Cow;
use std::io;

/// Why an image cannot be used. The message follows the path of the image, and says what to do instead.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// An I/O error.
    #[error("cannot be read or written")]
    Io(#[from] io::Error),
    /// It is intact, but of a kind that is not supported.
    #[error("{0}")]
    Refused(&'static str),
    /// It is a file system that is mounted, or was mounted when the power failed.
    #[error("was not unmounted cleanly: its journal has to be replayed first")]
    Unclean,
    /// It is a file system with invalid or contradictory metadata.
    #[error("has a damaged file system ({0})")]
    Faulty(Cow<'static, str>),
    /// A part of it is invalid or contradicts another part.
    #[error("has a damaged {what} ({how}); {advice}")]
    Damaged {
        /// The damaged part.
        what: &'static str,
        /// What is wrong with it.
        how: &'static str,
        /// What to do.
        advice: &'static str,
    },
}
