//! The error type of a run, with an exit code for each kind of failure.

use std::io;

use azaion_agent::api::fault::{Fault, chain};
use azaion_agent::api::http::HttpError;
use azaion_agent::common::device_conf::DeviceConfError;
use azaion_agent::common::exit::Exit;
use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::FAILURES;
use crate::interrupt;
use crate::resolved_path::PathError;
use crate::target;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run failed. [`Error::context`] adds the step that failed and never changes the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A target can't be read or changed.
    #[error(transparent)]
    Target(#[from] target::Error),
    /// A path can't be resolved, or other users can change it.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A `device.conf` is malformed.
    #[error(transparent)]
    DeviceConf(#[from] DeviceConfError),
    /// The client for the API can't be set up.
    #[error(transparent)]
    Client(#[from] HttpError),
    /// A call to the API failed.
    #[error(transparent)]
    Api(Box<Fault>),
    /// An I/O error outside of targets.
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    /// Any other failure; the message says what to do.
    #[error("{message}")]
    Other { exit: Exit, message: String },
    /// The step during which `source` occurred.
    #[error("{message}")]
    Context {
        message: String,
        #[source]
        source: Box<Self>,
    },
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Api(Box::new(fault))
    }
}

impl Error {
    /// Returns the exit code for this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Target(error) => error.exit(),
            Self::Path(PathError::Io(error)) | Self::Io { source: error, .. } => exit_of_io(error),
            Self::Path(PathError::Unsafe(_)) => Exit::Refused,
            Self::DeviceConf(_) => Exit::Data,
            Self::Client(_) => Exit::Config,
            Self::Api(fault) => fault.class().on_host(),
            Self::Other { exit, .. } => *exit,
            Self::Context { source, .. } => source.exit(),
        }
    }

    /// Adds the step that failed.
    pub(crate) fn context(self, message: impl Into<String>) -> Self {
        Self::Context { message: message.into(), source: Box::new(self) }
    }

    /// Returns the failed API call, if there is one.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Api(fault) => Some(fault),
            Self::Context { source, .. } => source.fault(),
            _ => None,
        }
    }

    /// Returns one line with all causes, and the command-line option that helps.
    pub(crate) fn line(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{}; {advice}", chain(self)),
            None => chain(self),
        }
    }

    /// Returns what to do, if options or privileges matter; the module `target` does not know those.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Target(target::Error::NotRoot) => {
                Some("run this as root, or with --owner current on a staging tree of your own")
            }
            Self::Target(target::Error::Io { source, .. }) => match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EROFS) => Some("mount it for writing (mount -o remount,rw), or copy the target elsewhere"),
                Some(Errno::EPERM) if geteuid().is_root() => Some(
                    "root may not do that either: see with `lsattr -d` whether it is immutable or append-only, and change that \
                     with `chattr -i -a`; in a container, its runtime may forbid it",
                ),
                Some(Errno::EACCES | Errno::EPERM) => Some(
                    "run this as root, or as a user who may write there; on a tree of your own, with --owner current",
                ),
                _ => None,
            },
            Self::Context { source, .. } => source.advice(),
            _ => None,
        }
    }
}

/// Returns the exit code for an I/O error. Missing privileges, errors that root gets as well (a failing disk), and signals have
/// different ones.
fn exit_of_io(error: &io::Error) -> Exit {
    let stops_root = geteuid().is_root() && error.raw_os_error() == Some(Errno::EPERM as i32);
    match error.kind() {
        io::ErrorKind::PermissionDenied if !stops_root => Exit::Refused,
        _ if interrupt::is_cause(error) => Exit::Interrupted,
        _ => Exit::Io,
    }
}

impl target::Error {
    /// Returns the exit code for this error. It is here because the module `target` does not know exit codes.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unsuitable { .. } | Self::UnsuitableInside { .. } | Self::ChangedByOthers { .. } => Exit::Target,
            Self::Unsafe { .. } | Self::NotRoot => Exit::Refused,
            Self::Io { source, .. } => exit_of_io(source),
            Self::InUse { .. } => Exit::Later,
            Self::TooLarge => Exit::Data,
            Self::GivenTwice { .. } => Exit::Usage,
            Self::Program(_) => Exit::Config,
            Self::Internal(_) => Exit::Internal,
        }
    }
}

/// Adds the step that failed to the error of a result.
pub(crate) trait Context<T> {
    /// See [`Error::context`].
    fn context(self, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(message))
    }
}

/// Returns an error that ends the run with `exit`.
pub(crate) fn failure(exit: Exit, message: impl Into<String>) -> Error {
    Error::Other { exit, message: message.into() }
}

/// Returns an I/O error with the step that failed.
pub(crate) fn io_failure(source: impl Into<io::Error>, doing: impl Into<String>) -> Error {
    Error::Io { doing: doing.into(), source: source.into() }
}

/// Runs `one` for each item, also after failures; returns the exit code of the first failure.
pub(crate) fn for_all<T>(items: &[T], mut one: impl FnMut(&T) -> Result<()>) -> Exit {
    let mut exit = Exit::Done;
    for item in items {
        if interrupt::is_requested() {
            break;
        }
        if let Err(error) = one(item) {
            let failed = report(&error);
            exit = if exit == Exit::Done { failed } else { exit };
        }
    }
    exit
}

/// Logs the error with all its causes, and how to get it explained; returns its exit code.
pub(crate) fn report(error: &Error) -> Exit {
    let line = error.line();
    let hint = FAILURES.of_line(&line).map(|known| format!(" (azaion-provision explain {})", known.id));
    log::error!("{line}{}", hint.unwrap_or_default());
    error.exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: an error that root gets as well is an I/O error with advice; the message does not tell root to become root.
    #[test]
    fn errors_that_root_gets_too() {
        let is_root = geteuid().is_root();
        for (errno, exit, part) in [
            (Errno::EROFS, Exit::Io, "mount -o remount,rw"),
            (Errno::EACCES, Exit::Refused, "run this as root"),
            (
                Errno::EPERM,
                if is_root { Exit::Io } else { Exit::Refused },
                if is_root { "chattr -i" } else { "as root" },
            ),
            (Errno::ENOSPC, Exit::Io, "No space left"),
        ] {
            let error = Error::from(target::Error::Io { doing: "opening it".to_owned(), source: errno.into() });
            assert_eq!(error.exit(), exit, "{errno}");
            assert!(error.line().contains(part), "{}", error.line());
        }
    }
}
