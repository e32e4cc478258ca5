//! Determines the true time on a machine whose clock starts in 1970.
//!
//! The agent ignores clocks below the [floor](crate::device::time_floor). TLS checks certificates at the later of clock
//! and floor. While the clock is not synchronised, a certificate may be valid at any time from the floor on (see
//! [`Chain`](crate::api::http::Chain)). The `Date` of an answer over TLS then gives the true time, even if it is below
//! the floor: the certificate and the token of that answer are checked at that time, and the boot clock continues from
//! it. The agent never sets the system clock.

use std::sync::Arc;
use std::time::Duration;

use crate::api::fault::Fault;
use crate::api::http::{Answer, TlsClock};
use crate::api::token::{Accepted, SKEW};
use crate::common::clock::{Clock, ServerTime, Timestamp};

use super::cache::BootMoment;
use crate::device::time_floor::{Floor, Memory};

/// Returns the build time of the agent, which has certainly passed; see `build.rs`.
pub fn build_time() -> Timestamp {
    Timestamp::from_unix(env!("AZAION_BUILD_EPOCH").parse().unwrap_or_default())
}

/// The best known time.
#[derive(Debug)]
pub struct TrueTime {
    clock: Arc<dyn Clock>,
    floor: Floor,
    /// The time that the server sent.
    server_time: ServerTime,
}

impl TrueTime {
    /// Returns the time as known from `clock`, from times that have certainly `passed`, and from the remembered time.
    pub fn new(clock: Arc<dyn Clock>, passed: impl IntoIterator<Item = Timestamp>, memory: Memory) -> Self {
        let floor = Floor::new(passed.into_iter().chain([build_time()]), memory);
        Self { clock, floor, server_time: ServerTime::default() }
    }

    /// Returns the time below which no clock is believed.
    pub fn floor(&self) -> Timestamp {
        self.floor.time()
    }

    /// Returns the best known true time: that of the server, else the later of clock and floor.
    pub fn now(&self) -> Timestamp {
        self.server_time.at(self.clock.boot()).unwrap_or_else(|| self.not_before())
    }

    /// Returns the later of clock and floor.
    fn not_before(&self) -> Timestamp {
        self.clock.wall().max(self.floor())
    }

    /// Takes the time from the `Date` of an answer over TLS.
    ///
    /// # Errors
    /// A certificate of that answer's server is not valid at that time.
    pub fn learn(&self, answer: &Answer) -> Result<(), Fault> {
        let (Some(date), Some(_)) = (answer.date, &answer.chain) else { return Ok(()) };
        answer.check_date()?;
        if date < self.floor() {
            log::warn!(
                "the time of the server, {date}, is before the time floor {}; a clock is or was wrong",
                self.floor()
            );
        }
        self.server_time.learn(date, self.clock.boot());
        Ok(())
    }

    /// Returns the memory after an accepted answer. Its `Date` counts only if it lies within the validity of the
    /// server's certificate and of the token, so that no server can raise the floor far into the future.
    pub fn after_answer(&self, answer: &Answer, token: &Accepted, now: &BootMoment) -> Memory {
        let mut floor = self.floor.clone();
        if let Some(date) = confirmed_date(answer, token) {
            floor.answered(date, now);
        }
        floor.memory().clone()
    }

    /// Returns the memory after a failed call, if it has changed.
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

/// Returns the `Date` of an answer, if certificate and token are valid at that time.
fn confirmed_date(answer: &Answer, token: &Accepted) -> Option<Timestamp> {
    let date = answer.date?;
    let issued = token.issued_at.map_or(date, |issued| issued.minus(SKEW));
    let is_in_chain = answer.chain.as_ref()?.verify_at(date).is_ok();
    (is_in_chain && date >= issued && date <= token.expires_at).then_some(date)
}
