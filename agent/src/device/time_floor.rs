//! The time floor: the lowest time that the agent accepts from any clock, and how answers of the server raise and lower
//! it.
//!
//! This module reads no clock and no file. Elapsed time is counted on the boot clock only, which the network can't
//! change.
//!
//! - An answer up to [`LARGEST_STEP`] above the confirmed time raises the floor at once.
//! - The confirmed time rises when two answers at least [`AGREEMENT`] apart both say that it is at least that late.
//!   Steps are measured from the confirmed time, so that many answers in a row raise the floor no further than one.
//! - The floor falls when two answers at least [`AGREEMENT`] apart, and all between them, say an earlier time.
//! - If the floor is so high that the server's certificate looks expired, no answer arrives that could correct it.
//!   After [`UNCONFIRMED_HOLDS`] in this state the unconfirmed part of the floor is lowered, after [`CONFIRMED_HOLDS`]
//!   all of it, each only as far as the certificate requires.
//!
//! It never falls below the build time and the time of provisioning.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::common::clock::Timestamp;

use super::cache::BootMoment;

/// How far a single answer can raise the floor.
const LARGEST_STEP: Duration = Duration::from_hours(30 * 24);
/// The minimum distance on the boot clock between two answers that together confirm a later time or an earlier one.
const AGREEMENT: Duration = Duration::from_hours(24);
/// How long the unconfirmed part of the floor is kept while the certificate looks expired because of it.
const UNCONFIRMED_HOLDS: Duration = Duration::from_hours(6);
/// How long the confirmed part of the floor is kept in that state.
const CONFIRMED_HOLDS: Duration = Duration::from_hours(7 * 24);
/// The tolerance between two times: more than the servers behind one name differ, and than boot clocks drift in
/// [`AGREEMENT`].
const TOLERANCE: Duration = Duration::from_mins(5);
/// The minimum time between two writes about an apparently expired certificate, since the run of each minute must not
/// wear the flash.
const NOTE_INTERVAL: Duration = Duration::from_mins(10);

/// Boot-clock time since an event, over several boots. It is a lower bound: the time between two boots is not known and
/// does not count.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Stretch {
    /// The boot of the last note.
    boot_id: String,
    /// Seconds since that boot at the last note.
    boottime_s: u64,
    /// Seconds that had passed at the last note, over all boots.
    elapsed_s: u64,
}

impl Stretch {
    /// Returns a stretch that starts now.
    pub(super) fn start(now: &BootMoment) -> Self {
        Self { boot_id: now.boot_id.clone(), boottime_s: now.since_boot.as_secs(), elapsed_s: 0 }
    }

    /// Returns the time since the last note.
    pub(super) fn since_note(&self, now: &BootMoment) -> Duration {
        let before = if self.boot_id == now.boot_id { self.boottime_s } else { 0 };
        Duration::from_secs(now.since_boot.as_secs().saturating_sub(before))
    }

    /// Returns the time since the event.
    pub(super) fn elapsed(&self, now: &BootMoment) -> Duration {
        Duration::from_secs(self.elapsed_s).saturating_add(self.since_note(now))
    }

    /// Returns the same stretch, noted at this moment.
    pub(super) fn noted(&self, now: &BootMoment) -> Self {
        Self { elapsed_s: self.elapsed(now).as_secs(), ..Self::start(now) }
    }
}

/// The time that an answer said, until a second answer confirms it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Claim {
    /// The time that the first answer said, UTC.
    time: Timestamp,
    #[serde(flatten)]
    since: Stretch,
}

impl Claim {
    fn start(time: Timestamp, now: &BootMoment) -> Self {
        Self { time, since: Stretch::start(now) }
    }

    /// Returns the earliest time that it can be now, if the first answer was right.
    fn at(&self, now: &BootMoment) -> Timestamp {
        self.time.plus(self.since.elapsed(now))
    }

    fn is_old_enough(&self, now: &BootMoment) -> bool {
        self.since.elapsed(now) >= AGREEMENT
    }

    fn noted(&self, now: &BootMoment) -> Self {
        Self { time: self.time, since: self.since.noted(now) }
    }
}

/// The part of `first-boot.json` that is about time. All of it is optional: older agents wrote `highest_time` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Memory {
    /// The highest time that a run has been sure of, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    highest_time: Option<Timestamp>,
    /// The highest time that two answers of the API agree on, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_time: Option<Timestamp>,
    /// A later time that an answer said, which may become `confirmed_time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    later_claim: Option<Claim>,
    /// An earlier time that an answer said, which may lower the time below which no clock is believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier_claim: Option<Claim>,
    /// For how long the server's certificate has looked expired, by the time below which no clock is believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    expired_for: Option<Stretch>,
}

/// The time floor, with the claims that may change it.
#[derive(Clone, Debug)]
pub struct Floor {
    /// The later of the build time and the time of provisioning.
    lowest: Timestamp,
    memory: Memory,
}

impl Floor {
    /// Returns the floor of a device with this `memory`. `passed` are times that have certainly passed.
    pub fn new(passed: impl IntoIterator<Item = Timestamp>, memory: Memory) -> Self {
        Self { lowest: passed.into_iter().fold(Timestamp::from_unix(0), Timestamp::max), memory }
    }

    /// Returns the time below which no clock is believed.
    pub fn time(&self) -> Timestamp {
        self.memory.highest_time.map_or(self.lowest, |highest| highest.max(self.lowest))
    }

    /// Returns the confirmed part of the floor, which no single answer can set.
    fn confirmed(&self) -> Timestamp {
        self.memory.confirmed_time.map_or(self.lowest, |confirmed| confirmed.max(self.lowest)).min(self.time())
    }

    /// Returns the part that is written to `first-boot.json`.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes the time `date` of an answer, which lies within the validity of its certificate and its token.
    pub fn answered(&mut self, date: Timestamp, now: &BootMoment) {
        self.memory.expired_for = None;
        self.lower(date, now);
        self.confirm(date, now);
        if date > self.time() && date <= self.confirmed().plus(LARGEST_STEP) {
            self.memory.highest_time = Some(date);
        }
    }

    /// Lowers the floor if this answer confirms an earlier time.
    fn lower(&mut self, date: Timestamp, now: &BootMoment) {
        let earlier = self.memory.earlier_claim.take();
        if date.plus(TOLERANCE) >= self.time() {
            return;
        }
        let claim = earlier.unwrap_or_else(|| Claim::start(date, now));
        if claim.is_old_enough(now) {
            // The later of the two, so that one wrong answer can't lower the floor further than the right one does.
            self.fall_to(date.max(claim.at(now)));
        } else {
            self.memory.earlier_claim = Some(claim.noted(now));
        }
    }

    /// Raises the confirmed time if this answer confirms a later time.
    fn confirm(&mut self, date: Timestamp, now: &BootMoment) {
        let earlier = self.memory.later_claim.take().filter(|claim| date.plus(TOLERANCE) >= claim.at(now));
        let Some(claim) = earlier else {
            self.memory.later_claim = Some(Claim::start(date, now));
            return;
        };
        if claim.is_old_enough(now) {
            // The earlier of the two, which both answers agree on as a lower bound.
            let both = date.min(claim.at(now));
            self.memory.confirmed_time = Some(self.confirmed().max(both));
            self.memory.highest_time = Some(self.time().max(both));
            self.memory.later_claim = Some(Claim::start(date, now));
        } else {
            self.memory.later_claim = Some(claim.noted(now));
        }
    }

    /// Takes a certificate of the server that seems to have expired at `until`. Returns whether the memory has changed.
    pub fn looked_expired(&mut self, until: Timestamp, now: &BootMoment) -> bool {
        // The remembered time is not the cause.
        if until >= self.time() || self.time() == self.lowest {
            return false;
        }
        let Some(stretch) = &self.memory.expired_for else {
            self.memory.expired_for = Some(Stretch::start(now));
            return true;
        };
        let lowest = match stretch.elapsed(now) {
            elapsed if elapsed >= CONFIRMED_HOLDS => self.lowest,
            elapsed if elapsed >= UNCONFIRMED_HOLDS => self.confirmed(),
            _ => self.time(),
        };
        if lowest < self.time() && until >= lowest {
            self.fall_to(until);
            return true;
        }
        let is_due = stretch.boot_id != now.boot_id || stretch.since_note(now) >= NOTE_INTERVAL;
        if is_due {
            self.memory.expired_for = Some(stretch.noted(now));
        }
        is_due
    }

    /// Lowers the floor to `time`, but not below the lowest time.
    fn fall_to(&mut self, time: Timestamp) {
        let time = time.min(self.time()).max(self.lowest);
        log::warn!("the remembered time {} is too late; it is lowered to {time}", self.time());
        let confirmed = self.confirmed().min(time);
        self.memory = Memory {
            highest_time: Some(time),
            confirmed_time: self.memory.confirmed_time.map(|_| confirmed),
            later_claim: self.memory.later_claim.take(),
            ..Memory::default()
        };
    }
}

#[cfg(test)]
mod tests;
