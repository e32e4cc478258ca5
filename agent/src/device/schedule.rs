//! Computes when a device that is not ready tries again: pure functions of the failure, how often it occurred, and for
//! how long.
//!
//! The waits balance three goals: a device becomes ready soon after the cause is gone, an API that is down does not get
//! calls from a whole fleet at the same time, and no device locks its own account.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::retry::part_of;

/// The longest first wait after a call without an answer; it doubles with each try.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait in the first [`SHORT_OUTAGE`].
const SHORT_CAP: Duration = Duration::from_mins(1);
/// How long an outage counts as short.
const SHORT_OUTAGE: Duration = Duration::from_mins(10);
/// The average wait after that. Each wait is random, up to a quarter shorter or longer.
const LONG_AVERAGE: Duration = Duration::from_mins(5);
/// The minimum time over which the calls after the same `Retry-After` are spread. It is at least a tenth of the
/// `Retry-After`.
const SPREAD: Duration = Duration::from_secs(5);

/// The wait of the unit after an answer that can't be accepted. A captive portal may answer instead of the API, and
/// fifty devices that log in each minute would use up the logins of their address (ten a minute).
const AFTER_PROTOCOL_ERROR: Duration = Duration::from_mins(5);

/// The waits after the first refusals of the credentials for a device that was never ready with its `device.conf`: its
/// account may not exist yet.
const NEVER_READY: [Duration; 3] = [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15)];
/// The wait after all later refusals, and after each refusal for a device that has been ready.
const AFTER_REFUSAL: Duration = Duration::from_hours(1);

/// How a call failed, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server asks for a wait (`Retry-After`).
    Asked(Duration),
    /// No answer, or an error of the server.
    NoAnswer,
    /// The answer could not be accepted.
    ProtocolError,
    /// The API refused the credentials.
    Refused {
        /// The number of refusals in a row, at least one.
        in_a_row: usize,
        /// Whether the API has ever accepted them.
        was_ready: bool,
    },
}

/// Calls without an answer in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outage {
    /// Seconds since the boot when the first of them failed.
    since_boottime_s: u64,
    /// Number of calls.
    tries: u32,
}

impl Outage {
    fn start(now: Duration) -> Self {
        Self { since_boottime_s: now.as_secs(), tries: 0 }
    }

    /// Returns how long the outage has lasted.
    pub fn length(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_secs(self.since_boottime_s))
    }

    /// Returns whether the outage is long, so that programs have to wait as well.
    pub fn is_long(&self, now: Duration) -> bool {
        self.length(now) >= SHORT_OUTAGE
    }
}

/// Returns the wait after a failure, and the outage that the failure belongs to. `now` is the time on the boot clock.
pub fn after(failure: Failure, outage: Option<Outage>, now: Duration) -> (Duration, Option<Outage>) {
    match failure {
        Failure::Asked(wait) => {
            // A server that is down for hours may send `Retry-After: 1` each time.
            let outage = outage.unwrap_or(Outage::start(now));
            let least =
                if outage.is_long(now) { after_outage(outage.tries, outage.length(now)) } else { Duration::ZERO };
            (after_request(wait).max(least), Some(outage))
        }
        Failure::NoAnswer => {
            let outage = outage.unwrap_or(Outage::start(now));
            let wait = after_outage(outage.tries, outage.length(now));
            (wait, Some(Outage { tries: outage.tries.saturating_add(1), ..outage }))
        }
        Failure::ProtocolError => (AFTER_PROTOCOL_ERROR, None),
        Failure::Refused { in_a_row, was_ready } => (after_refusal(in_a_row, was_ready), None),
    }
}

/// Returns the wait after a call without an answer, or with an error of the server. There were `tries` such calls
/// before this one, the first of them `outage` ago.
fn after_outage(tries: u32, outage: Duration) -> Duration {
    if outage < SHORT_OUTAGE {
        let longest = FIRST.saturating_mul(2_u32.saturating_pow(tries));
        return part_of(longest.min(SHORT_CAP));
    }
    // Full jitter from zero to twice the average would have the same average, but one device in a hundred would detect
    // only after 1.8 averages that the API is back.
    LONG_AVERAGE * 3 / 4 + part_of(LONG_AVERAGE / 2)
}

/// Returns the wait after a `Retry-After`: never less than that, plus a random part, so that devices with the same
/// `Retry-After` do not call at the same time.
fn after_request(asked: Duration) -> Duration {
    asked + part_of(SPREAD.max(asked / 10))
}

/// Returns the wait after `in_a_row` refusals of the credentials, at least one.
fn after_refusal(in_a_row: usize, was_ready: bool) -> Duration {
    let early = NEVER_READY.get(in_a_row.saturating_sub(1)).filter(|_| !was_ready);
    *early.unwrap_or(&AFTER_REFUSAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: in an outage the waits grow from half a second to a minute; from the tenth minute on a device makes one call in
    // five minutes on average, at random times.
    #[test]
    fn waits_grow_with_the_outage() {
        let minute = Duration::from_mins(1);
        for (tries, outage, least, most) in [
            (0, Duration::ZERO, Duration::ZERO, FIRST),
            (1, minute, Duration::ZERO, 2 * FIRST),
            (6, minute, Duration::ZERO, 64 * FIRST),
            (7, minute, Duration::ZERO, SHORT_CAP),
            (u32::MAX, 9 * minute, Duration::ZERO, SHORT_CAP),
            (u32::MAX, 10 * minute, Duration::from_secs(225), Duration::from_secs(375)),
            (0, 600 * minute, Duration::from_secs(225), Duration::from_secs(375)),
        ] {
            let waits: Vec<_> = (0..2000).map(|_| after_outage(tries, outage)).collect();
            let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*shortest >= least && *longest <= most, "{tries} {outage:?}: {shortest:?} {longest:?}");
            let spread = most.saturating_sub(least);
            assert!(
                *shortest < least + spread / 20 && *longest > most.saturating_sub(spread / 20),
                "{tries} {outage:?}"
            );
            let average = waits.iter().sum::<Duration>() / 2000;
            assert!(average > (least + most).mul_f64(0.47) && average < (least + most).mul_f64(0.53), "{average:?}");
        }
    }

    // Promise: a wait is never shorter than the `Retry-After`, and the calls after the same `Retry-After` are spread.
    #[test]
    fn retry_after_is_the_least() {
        for (asked, spread) in [(0, 5), (7, 5), (60, 6), (3600, 360)] {
            let asked = Duration::from_secs(asked);
            let waits: Vec<_> = (0..500).map(|_| after_request(asked).checked_sub(asked).unwrap()).collect();
            let spread = Duration::from_secs(spread);
            assert!(waits.iter().all(|wait| *wait <= spread) && waits.iter().any(|wait| *wait > spread / 2));
        }
    }

    // Promise: a device that was never ready tries again after 1, 5, 15 and then 60 minutes; one that was ready, each
    // hour.
    #[test]
    fn refusals_are_tried_again() {
        let minutes = |was_ready| [1, 2, 3, 4, 5, 100].map(|n| after_refusal(n, was_ready).as_secs() / 60);
        assert_eq!(minutes(false), [1, 5, 15, 60, 60, 60]);
        assert_eq!(minutes(true), [60; 6]);
    }
}
