//! Errors of targets.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use crate::resolved_path::PathError;
use crate::strict_modes::UnsafePath;

/// The result of an operation on a target.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a target can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target is missing, or its kind or state can't take a `device.conf`; `why` says what to do instead.
    #[error("the target {} {why}", path.display())]
    Unsuitable {
        /// The target.
        path: PathBuf,
        /// The predicate of a sentence whose subject is the target.
        why: String,
    },
    /// A file or directory in the target can't be used; `why` says what to do instead.
    #[error("{} {why}", path.display())]
    UnsuitableInside {
        /// Path of the file or directory, with the target's path before it.
        path: PathBuf,
        /// The predicate of a sentence whose subject is that path.
        why: String,
    },
    /// Other users can change the target's path.
    #[error("the target {}", path.display())]
    Unsafe {
        /// The target.
        path: PathBuf,
        /// The component that can be changed, and by whom.
        #[source]
        source: UnsafePath,
    },
    /// A system call failed.
    #[error("{doing}")]
    Io {
        /// The operation and its file, such as `opening /path`.
        doing: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Another run holds the target's lock.
    #[error("another run has been working on {} for {seconds} s", path.display())]
    InUse {
        /// The target.
        path: PathBuf,
        /// How long this run has waited, in seconds.
        seconds: u64,
    },
    /// The files are to be owned by root, and the caller is not root.
    #[error("only root can write files that are owned by root")]
    NotRoot,
    /// The earlier `device.conf` is too large to be restored.
    #[error("the earlier device.conf is larger than 4096 bytes and can't be restored")]
    TooLarge,
    /// Two paths on the command line name the same target.
    #[error("the target {} is given twice", path.display())]
    GivenTwice {
        /// The second path.
        path: PathBuf,
    },
    /// The checksum file does not match the image, and no interrupted run of this program explains that.
    #[error("the target {} does not match the .sha1sum beside it; generate the images again", path.display())]
    ChangedByOthers {
        /// The target.
        path: PathBuf,
    },
    /// A required program is missing, or can't be run.
    #[error("{0}")]
    Program(String),
    /// A bug in this program.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Returns the error for an unsuitable target; `why` follows its name, and says what to do instead.
    pub(super) fn unsuitable(path: &Path, why: impl Display) -> Self {
        Self::Unsuitable { path: path.to_owned(), why: why.to_string() }
    }

    /// Returns the error for an unsuitable file or directory in a target.
    pub(super) fn unsuitable_inside(path: impl Into<PathBuf>, why: impl Display) -> Self {
        Self::UnsuitableInside { path: path.into(), why: why.to_string() }
    }
}

/// Returns the error for the path of a target that can't be resolved.
pub(super) fn path_failure(error: PathError, path: &Path) -> Error {
    match error {
        PathError::Io(error) => io_failure(error, format!("opening {}", path.display())),
        PathError::Unsafe(source) => Error::Unsafe { path: path.to_owned(), source },
    }
}

/// Returns an I/O error with the operation and its file.
pub(super) fn io_failure(source: impl Into<io::Error>, doing: impl Into<String>) -> Error {
    Error::Io { doing: doing.into(), source: source.into() }
}
