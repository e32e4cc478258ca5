//! What time it really is, on a machine whose clock starts in 1970.
//!
//! No clock below the [floor](crate::device::time_floor) is believed. TLS checks certificates at the later of clock and floor, and where
//! nobody has synchronised the clock, at any time from the floor on (see [`Chain`](crate::api::http::Chain)). The
//! `Date` of an answer that came through TLS then tells the real time, also where it lies below the floor: by it the
//! certificate and the token of that answer are checked, and the boot clock carries it on. The system clock is never set.

use std::sync::Arc;
use std::time::Duration;

use crate::api::fault::Fault;
use crate::api::http::{Answer, TlsClock};
use crate::api::token::{Accepted, SKEW};
use crate::common::clock::{Clock, ServerTime, Timestamp};

use super::cache::BootMoment;
use crate::device::time_floor::{Floor, Memory};

/// The time that a build has certainly passed; see `build.rs`.
pub fn build_time() -> Timestamp {
    Timestamp::from_unix(env!("AZAION_BUILD_EPOCH").parse().unwrap_or_default())
}

/// The best known time.
#[derive(Debug)]
pub struct TrueTime {
    clock: Arc<dyn Clock>,
    floor: Floor,
    /// What the server said.
    told: ServerTime,
}

impl TrueTime {
    /// Knows nothing yet but `clock`, times that have certainly passed, and what is remembered.
    pub fn new(clock: Arc<dyn Clock>, passed: impl IntoIterator<Item = Timestamp>, memory: Memory) -> Self {
        let floor = Floor::new(passed.into_iter().chain([build_time()]), memory);
        Self { clock, floor, told: ServerTime::default() }
    }

    /// The time below which no clock is believed.
    pub fn floor(&self) -> Timestamp {
        self.floor.time()
    }

    /// The true time as far as known: what the server told, else the later of clock and floor.
    pub fn now(&self) -> Timestamp {
        self.told.at(self.clock.boot()).unwrap_or_else(|| self.not_before())
    }

    /// The later of clock and floor.
    fn not_before(&self) -> Timestamp {
        self.clock.wall().max(self.floor())
    }

    /// Learns the time from the `Date` of an answer that came through TLS.
    ///
    /// # Errors
    /// A certificate of that answer's server is not valid at that time.
    pub fn learn(&self, answer: &Answer) -> Result<(), Fault> {
        let (Some(date), Some(_)) = (answer.date, &answer.chain) else { return Ok(()) };
        answer.check_date()?;
        if date < self.floor() {
            log::warn!("the server says that it is {date}, which is before {}; a clock is or was wrong", self.floor());
        }
        self.told.learn(date, self.clock.boot());
        Ok(())
    }

    /// What is to be remembered after an answer that was accepted. Its `Date` counts if it lies within the validity of
    /// the server's certificate and of the token, so that no server can push the floor into a far future.
    pub fn after_answer(&self, answer: &Answer, token: &Accepted, now: &BootMoment) -> Memory {
        let mut floor = self.floor.clone();
        if let Some(date) = sure_of(answer, token) {
            floor.answered(date, now);
        }
        floor.memory().clone()
    }

    /// What is to be remembered after a call that failed, if that has changed.
    pub fn after_fault(&self, fault: &Fault, now: &BootMoment) -> Option<Memory> {
        let mut floor = self.floor.clone();
        let is_changed = floor.looked_expired(fault.certificate_ended()?, now);
        is_changed.then(|| floor.memory().clone())
    }
}

impl TlsClock for TrueTime {
    fn now(&self) -> Timestamp {
        self.not_before()
    }

    fn boot(&self) -> Duration {
        self.clock.boot()
    }

    fn unknown_since(&self) -> Option<Timestamp> {
        (!self.clock.is_synchronised()).then(|| self.floor())
    }
}

/// The `Date` of an answer, if certificate and token agree with it.
fn sure_of(answer: &Answer, token: &Accepted) -> Option<Timestamp> {
    let date = answer.date?;
    let issued = token.issued_at.map_or(date, |issued| issued.minus(SKEW));
    let is_in_chain = answer.chain.as_ref()?.verify_at(date).is_ok();
    (is_in_chain && date >= issued && date <= token.expires_at).then_some(date)
}
