//! The effects of a run, and what it observes of them.

use std::fmt;

use super::world::{File, Password, Reply, Request};

/// An effect of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Uses a random password for the first time.
    Draw,
    /// Reads a target.
    Read(usize),
    /// Writes, restores or clears a target, with its content afterwards.
    Put(usize, Option<File>),
    Call(Request),
}

/// The observation of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    Drawn(Password),
    File(Option<File>),
    Written,
    NotWritten,
    Reply(Reply),
    Missing {
        why: Missing,
        /// Whether the time budget for calls is used up afterwards.
        is_last: bool,
    },
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Missing {
    /// No connection: the API has not received the request.
    NoConnection,
    /// Status 503.
    Busy,
    /// No reply in time.
    Lost,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drawn(password) => write!(f, "{password:?}"),
            Self::File(Some(file)) => write!(f, "{file:?}"),
            Self::File(None) => f.write_str("nothing"),
            Self::Written => f.write_str("done"),
            Self::NotWritten => f.write_str("I/O error"),
            Self::Reply(reply) => write!(f, "{reply:?}"),
            Self::Missing { why, is_last } => {
                let what = match why {
                    Missing::NoConnection => "no connection",
                    Missing::Busy => "503, not carried out",
                    Missing::Lost => "reply lost",
                };
                write!(f, "{what}{}", if *is_last { ", and the time is used up" } else { "" })
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draw => f.write_str("draw a password"),
            Self::Read(target) => write!(f, "read target {target}"),
            Self::Put(target, Some(file)) => write!(f, "write {file:?} into target {target}"),
            Self::Put(target, None) => write!(f, "clear target {target}"),
            Self::Call(request) => request.fmt(f),
        }
    }
}
