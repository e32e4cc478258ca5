//! How a run that failed ends: one message with its causes, and an exit code that follows from them.

use std::io;

use azaion_agent::device_conf::DeviceConfError;
use azaion_agent::exit::Exit;
use azaion_agent::fault::{Fault, chain};
use azaion_agent::http::HttpError;

use crate::place::PlaceError;

/// A failure with an exit code of its own; the message says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

/// A failure that ends the run with `exit`.
pub(crate) fn failure(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    Failure { exit, message: message.into() }.into()
}

/// The same with a cause, by which callers can tell it from others.
pub(crate) fn failure_by(
    cause: impl std::error::Error + Send + Sync + 'static,
    exit: Exit,
    message: impl Into<String>,
) -> anyhow::Error {
    anyhow::Error::from(cause).context(Failure { exit, message: message.into() })
}

/// Names what an I/O error happened to, and judges it: missing privileges are told apart from a failing disk.
pub(crate) fn io_failure(error: impl Into<io::Error>, doing: &str) -> anyhow::Error {
    advising(error.into(), doing, "; run it as root, or with --owner current on a tree of your own")
}

/// The same for an image file, which needs no privileges of its own.
pub(crate) fn image_failure(error: impl Into<io::Error>, doing: &str) -> anyhow::Error {
    advising(error.into(), doing, "; let this user write there, or run it as whoever may")
}

fn advising(error: io::Error, doing: &str, advice: &str) -> anyhow::Error {
    let exit = exit_of_io(&error);
    let advice = if exit == Exit::Refused { advice } else { "" };
    anyhow::Error::from(error).context(Failure { exit, message: format!("{doing}{advice}") })
}

fn exit_of_io(error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::PermissionDenied { Exit::Refused } else { Exit::Io }
}

/// The exit code that an error leads to: that of the outermost cause that has one.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    // A Failure that was added as context is not in the chain under its own type.
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    error.chain().find_map(exit_of_cause).unwrap_or(Exit::Internal)
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    if let Some(fault) = cause.downcast_ref::<Fault>() {
        return Some(fault.class().on_host());
    }
    if let Some(error) = cause.downcast_ref::<PlaceError>() {
        return Some(match error {
            PlaceError::Io(error) => exit_of_io(error),
            PlaceError::Unsafe(_) => Exit::Refused,
        });
    }
    if cause.is::<DeviceConfError>() {
        return Some(Exit::Data);
    }
    if cause.is::<HttpError>() {
        return Some(Exit::Config);
    }
    cause.downcast_ref::<io::Error>().map(exit_of_io)
}

/// Does the same to each of several things; a failure does not keep it from the others, and the first one counts.
pub(crate) fn for_all<T>(things: &[T], mut one: impl FnMut(&T) -> anyhow::Result<()>) -> Exit {
    let mut exit = Exit::Done;
    for thing in things {
        if let Err(error) = one(thing) {
            let its = report(&error);
            exit = if exit == Exit::Done { its } else { exit };
        }
    }
    exit
}

/// Prints the error with all its causes.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    log::error!("{}", chain(error.as_ref()));
    exit_of(error)
}
