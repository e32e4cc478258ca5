//! Why a target can't be read or changed.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use crate::resolved_path::PathError;
use crate::strict_modes::UnsafePath;

/// The result of something that is done to a target.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a target can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is missing, or of a kind or in a state that can't take a `device.conf`; `why` says what to do instead.
    #[error("the target {} {why}", path.display())]
    Unsuitable {
        /// The target.
        path: PathBuf,
        /// Follows its name in a sentence.
        why: String,
    },
    /// The same of something inside of it.
    #[error("{} {why}", path.display())]
    UnsuitableInside {
        /// The target's path and the one inside.
        path: PathBuf,
        /// Follows its name in a sentence.
        why: String,
    },
    /// Others can change its path.
    #[error("the target {}", path.display())]
    Unsafe {
        /// The target.
        path: PathBuf,
        /// Which component, and who.
        #[source]
        source: UnsafePath,
    },
    /// The system refused it.
    #[error("{doing}")]
    Io {
        /// What was being done, and to which file.
        doing: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another run holds it.
    #[error("another run has been working on {} for {seconds} s", path.display())]
    InUse {
        /// The target.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The files of a root file system are root's, and the caller is not root.
    #[error("a root file system belongs to root")]
    NotRoot,
    /// A `device.conf` does not fit.
    #[error("the device.conf that was there has more than 4096 bytes, which can't be restored")]
    TooLarge,
    /// One target has two names on the command line.
    #[error("the target {} is given twice", path.display())]
    GivenTwice {
        /// The second one.
        path: PathBuf,
    },
    /// Its checksum is wrong, by nothing that a run of ours has done.
    #[error("the target {} does not match the .sha1sum beside it; generate the images again", path.display())]
    ChangedByOthers {
        /// The target.
        path: PathBuf,
    },
    /// A program that is needed is missing, or can't be run.
    #[error("{0}")]
    Program(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// A refusal; `why` follows the target's name, and says what to do instead.
    pub(super) fn unsuitable(path: &Path, why: impl Display) -> Self {
        Self::Unsuitable { path: path.to_owned(), why: why.to_string() }
    }

    /// A refusal of something inside of a target.
    pub(super) fn unsuitable_inside(path: impl Into<PathBuf>, why: impl Display) -> Self {
        Self::UnsuitableInside { path: path.into(), why: why.to_string() }
    }
}

/// What is wrong with the path of a target.
pub(super) fn path_failure(error: PathError, path: &Path) -> Error {
    match error {
        PathError::Io(error) => io_failure(error, format!("opening {}", path.display())),
        PathError::Unsafe(source) => Error::Unsafe { path: path.to_owned(), source },
    }
}

/// Says what an I/O error happened to.
pub(super) fn io_failure(source: impl Into<io::Error>, doing: impl Into<String>) -> Error {
    Error::Io { doing: doing.into(), source: source.into() }
}
