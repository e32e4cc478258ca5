//! How a run fails: one type, with the exit code that each kind of failure has.

use std::io;

use azaion_agent::api::fault::{Fault, chain};
use azaion_agent::api::http::HttpError;
use azaion_agent::common::device_conf::DeviceConfError;
use azaion_agent::common::exit::Exit;
use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::interrupt;
use crate::resolved_path::PathError;
use crate::target;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run failed. What it was doing is added by [`Error::context`], which never changes the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A target can't be read or changed.
    #[error(transparent)]
    Target(#[from] target::Error),
    /// A path leads nowhere, or others can change it.
    #[error(transparent)]
    Path(#[from] PathError),
    /// What a `device.conf` says is malformed.
    #[error(transparent)]
    DeviceConf(#[from] DeviceConfError),
    /// There is no client for the API.
    #[error(transparent)]
    Client(#[from] HttpError),
    /// A call to the API failed.
    #[error(transparent)]
    Api(Box<Fault>),
    /// The system refused something that is no target.
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    /// Anything else; the message says what to do.
    #[error("{message}")]
    Other { exit: Exit, message: String },
    /// What was being done when `source` happened.
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
    /// The exit code that it leads to.
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

    /// The same with what was being done.
    pub(crate) fn context(self, message: impl Into<String>) -> Self {
        Self::Context { message: message.into(), source: Box::new(self) }
    }

    /// The call that failed, if one did.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Api(fault) => Some(fault),
            Self::Context { source, .. } => source.fault(),
            _ => None,
        }
    }

    /// One line with all causes, and what the command line offers against them.
    pub(crate) fn line(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{}; {advice}", chain(self)),
            None => chain(self),
        }
    }

    /// What to do, where that is a matter of the command line: targets know nothing of it.
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
                Some(Errno::EACCES | Errno::EPERM) => {
                    Some("run this as root, or as who may write there; on a tree of your own, with --owner current")
                }
                _ => None,
            },
            Self::Context { source, .. } => source.advice(),
            _ => None,
        }
    }
}

/// Missing privileges are told apart from a failing disk, from what stops root as well, and from a signal.
fn exit_of_io(error: &io::Error) -> Exit {
    let stops_root = geteuid().is_root() && error.raw_os_error() == Some(Errno::EPERM as i32);
    match error.kind() {
        io::ErrorKind::PermissionDenied if !stops_root => Exit::Refused,
        _ if interrupt::is_cause(error) => Exit::Interrupted,
        _ => Exit::Io,
    }
}

impl target::Error {
    /// The exit code that it leads to: here, for targets know nothing of exit codes.
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

/// Adds what was being done to the error of a result.
pub(crate) trait Context<T> {
    /// See [`Error::context`].
    fn context(self, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(message))
    }
}

/// A failure that ends the run with `exit`.
pub(crate) fn failure(exit: Exit, message: impl Into<String>) -> Error {
    Error::Other { exit, message: message.into() }
}

/// Says what an I/O error happened to.
pub(crate) fn io_failure(source: impl Into<io::Error>, doing: impl Into<String>) -> Error {
    Error::Io { doing: doing.into(), source: source.into() }
}

/// Does the same to each of several things; a failure does not keep it from the others, and the first one counts.
pub(crate) fn for_all<T>(things: &[T], mut one: impl FnMut(&T) -> Result<()>) -> Exit {
    let mut exit = Exit::Done;
    for thing in things {
        if interrupt::is_requested() {
            break;
        }
        if let Err(error) = one(thing) {
            let its = report(&error);
            exit = if exit == Exit::Done { its } else { exit };
        }
    }
    exit
}

/// Prints the error with all its causes.
pub(crate) fn report(error: &Error) -> Exit {
    log::error!("{}", error.line());
    error.exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: what stops root, too, is an I/O error that says what to change; root is not told to become root.
    #[test]
    fn what_stops_root() {
        let is_root = geteuid().is_root();
        for (errno, exit, says) in [
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
            assert!(error.line().contains(says), "{}", error.line());
        }
    }
}
