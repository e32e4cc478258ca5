//! The present faults between a device and the API, and of the API itself.

use std::time::Duration;

use super::api::Flaw;
use super::dice::Dice;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    /// No server listens.
    Refused,
    /// No answer comes; whether the API has executed the call.
    Silent {
        is_done: bool,
    },
    /// Each answer takes so long.
    Slow(Duration),
    /// The server answers with an error.
    Down {
        status: u16,
        retry_after: Option<u64>,
    },
    /// An HTML page of an intermediary.
    Page {
        status: u16,
        retry_after: Option<u64>,
    },
    /// JSON of an intermediary.
    Json {
        status: u16,
    },
    /// The answer is truncated.
    Cut,
    /// Tokens are wrong.
    Flawed(Flaw),
    /// Only the keys are unreachable.
    NoKeys {
        status: u16,
    },
    /// No answer has a `Date`.
    NoDate,
}

impl Weather {
    /// Returns a random fault.
    pub(crate) fn bad(dice: &mut Dice) -> Self {
        let retry_after = |dice: &mut Dice| {
            let seconds = dice.time(Duration::from_mins(100)).as_secs();
            dice.is(50).then_some(seconds)
        };
        match dice.below(11) {
            0 => Self::Refused,
            1 | 2 => Self::Silent { is_done: dice.is(50) },
            3 => Self::Slow(dice.time(Duration::from_secs(15))),
            4 | 5 => {
                let status = dice.pick(&[500, 502, 503, 504, 429, 408, 423, 425]);
                Self::Down { status, retry_after: retry_after(dice) }
            }
            6 => {
                let status = dice.pick(&[200, 302, 401, 403, 404, 407, 409, 511]);
                Self::Page { status, retry_after: retry_after(dice) }
            }
            7 => Self::Json { status: dice.pick(&[200, 400, 401, 403, 404, 409]) },
            8 => Self::Cut,
            9 => Self::Flawed(dice.pick(&[
                Flaw::Expired,
                Flaw::Issuer,
                Flaw::Role,
                Flaw::Email,
                Flaw::UnlistedKey,
                Flaw::Form,
            ])),
            _ if dice.is(50) => Self::NoKeys { status: dice.pick(&[200, 403, 500, 503]) },
            _ => Self::NoDate,
        }
    }
}
