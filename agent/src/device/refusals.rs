//! Counts refusals of the credentials in a row across boots, and blocks further logins before the API locks the
//! account.
//!
//! The API limits an account to 5 failures in 300 s and locks it for 900 s after 10 in a row. The timer, a device that
//! boots again and again, and a person with `boot --now` must all stay below these limits. Time is counted on the boot
//! clock. The time between two boots is not known and does not count, so a block may last longer than needed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cache::BootMoment;
use crate::device::time_floor::Stretch;

/// The maximum number of refusals within a time: as many as the API allows before it limits the account, and one less
/// than lock it.
const GATES: [(usize, Duration); 2] = [(5, Duration::from_mins(5)), (KEPT, Duration::from_hours(1))];
/// How often the elapsed time is written while logins are blocked.
const NOTE_INTERVAL: Duration = Duration::from_mins(1);
/// The number of refusals whose times are kept.
const KEPT: usize = 9;

/// The refusals of one `device.conf` since its last success.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refusals {
    /// Fingerprint of the `device.conf` whose credentials were refused.
    device_conf: String,
    /// Number of refusals in a row.
    in_a_row: usize,
    /// Time since the first one.
    #[serde(flatten)]
    since: Stretch,
    /// When the last ones happened, in seconds since the first one, on the boot clock.
    moments: Vec<u64>,
}

impl Refusals {
    /// Returns the refusals so far with one more, now.
    pub fn add(known: Option<Self>, device_conf: &str, now: &BootMoment) -> Self {
        let known = known.filter(|known| known.device_conf == device_conf);
        let since = known.as_ref().map_or_else(|| Stretch::start(now), |known| known.since.noted(now));
        let (in_a_row, mut moments) = known.map_or((0, Vec::new()), |known| (known.in_a_row, known.moments));
        moments.push(since.elapsed(now).as_secs());
        let moments = moments.split_off(moments.len().saturating_sub(KEPT));
        Self { device_conf: device_conf.to_owned(), in_a_row: in_a_row.saturating_add(1), since, moments }
    }

    /// Returns the number of refusals in a row.
    pub fn in_a_row(&self) -> usize {
        self.in_a_row
    }

    /// Returns the refusals with the time elapsed until now, if that is worth a write. Without these notes a device
    /// that boots again and again would stay blocked forever.
    pub fn noted(&self, now: &BootMoment) -> Option<Self> {
        let is_due = self.since.since_note(now) >= NOTE_INTERVAL;
        is_due.then(|| Self { since: self.since.noted(now), ..self.clone() })
    }

    /// Returns how long no caller may try a login with this `device.conf`.
    pub fn gate(&self, device_conf: &str, now: &BootMoment) -> Duration {
        if self.device_conf != device_conf {
            return Duration::ZERO;
        }
        let elapsed = self.since.elapsed(now);
        let wait = |(most, window): (usize, Duration)| {
            let oldest = self.moments.len().checked_sub(most).and_then(|index| self.moments.get(index));
            oldest.map_or(Duration::ZERO, |&at| {
                Duration::from_secs(at).saturating_add(window).saturating_sub(elapsed).min(window)
            })
        };
        GATES.into_iter().map(wait).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: &str, seconds: u64) -> BootMoment {
        BootMoment { boot_id: boot.into(), since_boot: Duration::from_secs(seconds) }
    }

    /// Returns the times at which the gate lets a caller through that tries each second, over `boots` of `length`
    /// seconds.
    fn tries(boots: u64, length: u64) -> Vec<u64> {
        let (mut known, mut made) = (None::<Refusals>, Vec::new());
        for boot in 0..boots {
            for second in 0..length {
                let now = at(&boot.to_string(), second);
                if known.as_ref().is_none_or(|known| known.gate("c", &now).is_zero()) {
                    known = Some(Refusals::add(known, "c", &now));
                    made.push(boot * length + second);
                } else if let Some(noted) = known.as_ref().and_then(|known| known.noted(&now)) {
                    known = Some(noted);
                }
            }
        }
        made
    }

    // Promise: however often the device boots or a person tries, there are never more than 5 failures in 300 s or 10 in
    // 900 s.
    #[test]
    fn the_account_is_not_locked() {
        for (boots, length) in [(1, 10_000), (1000, 1), (200, 20), (100, 61), (20, 299), (5, 4000)] {
            let made = tries(boots, length);
            for (most, window) in [(5, 300), (9, 3600)] {
                let worst =
                    made.iter().map(|&start| made.iter().filter(|&&t| (start..start + window).contains(&t)).count());
                assert!(worst.max().unwrap() <= most, "{boots} x {length} s: {made:?}");
            }
            // A boot of less than a minute writes no elapsed time.
            let least = if length > 60 { usize::try_from(boots * length / 600).unwrap() } else { 5 };
            assert!(made.len() >= least, "{boots} x {length} s: {made:?}");
        }
    }

    // Promise: time within a boot opens the gate again, and another device.conf has no gate.
    #[test]
    fn the_gate_opens() {
        let mut known = None;
        for second in 0..5 {
            known = Some(Refusals::add(known, "c", &at("b", second)));
        }
        let known = known.unwrap();
        assert_eq!(known.in_a_row(), 5);
        assert_eq!(known.gate("c", &at("b", 10)), Duration::from_secs(290));
        assert_eq!(known.gate("c", &at("b", 300)), Duration::ZERO);
        assert_eq!(known.gate("c", &at("b2", 10)), Duration::from_secs(286));
        assert_eq!(known.gate("d", &at("b", 10)), Duration::ZERO);
        assert_eq!(Refusals::add(Some(known), "d", &at("b", 11)).in_a_row(), 1);
    }
}
