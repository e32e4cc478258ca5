//! What time it really is, on a machine whose clock starts in 1970.
//!
//! No clock below the floor is believed: the agent's build time, the time of provisioning and the highest time
//! that a run has been sure of have certainly passed. Certificates are judged by the later of clock and floor. The
//! `Date` of an answer that came through TLS then tells the real time, and the boot clock carries it on. The system
//! clock is never set.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::clock::{Clock, Timestamp};
use crate::http::{Answer, TlsClock};
use crate::token::{Accepted, SKEW};

/// The time that a build has certainly passed; see `build.rs`.
pub fn build_time() -> Timestamp {
    Timestamp::from_unix(env!("AZAION_BUILD_EPOCH").parse().unwrap_or_default())
}

/// The best known time.
#[derive(Debug)]
pub struct TrueTime {
    clock: Arc<dyn Clock>,
    floor: Timestamp,
    /// What the server said, and the boot clock at that moment.
    told: Mutex<Option<(Timestamp, Duration)>>,
}

impl TrueTime {
    /// Knows nothing yet but `clock` and times that have certainly passed.
    pub fn new(clock: Arc<dyn Clock>, passed: impl IntoIterator<Item = Timestamp>) -> Self {
        let floor = passed.into_iter().fold(build_time(), Timestamp::max);
        Self { clock, floor, told: Mutex::new(None) }
    }

    /// The time below which no clock is believed.
    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    /// The true time as far as known: what the server told, else the later of clock and floor.
    pub fn now(&self) -> Timestamp {
        match *self.told.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((time, at)) => time.plus(self.clock.boot().saturating_sub(at)),
            None => self.not_before(),
        }
    }

    /// The later of clock and floor.
    fn not_before(&self) -> Timestamp {
        self.clock.wall().max(self.floor)
    }

    /// Learns the time from an answer that came through TLS; a time below the floor is ignored.
    pub fn learn(&self, answer: &Answer) {
        let Some(date) = answer.date.filter(|_| answer.certificate.is_some()) else {
            return;
        };
        if date < self.floor {
            log::warn!("the server says it is {date}, which is past; its clock is wrong");
            return;
        }
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, self.clock.boot()));
    }

    /// A time to be remembered across boots: that of `answer`, if it lies within the validity of the server's
    /// certificate and of the token, so that no server can push the floor into a far future.
    pub fn sure_of(&self, answer: &Answer, token: &Accepted) -> Option<Timestamp> {
        let date = answer.date.filter(|date| *date >= self.floor)?;
        let (from, until) = validity(answer.certificate.as_deref()?)?;
        let issued = token.issued_at.map_or(date, |issued| issued.minus(SKEW));
        (date >= from && date <= until && date >= issued && date <= token.expires_at).then_some(date)
    }
}

impl TlsClock for TrueTime {
    fn now(&self) -> Timestamp {
        self.not_before()
    }
}

/// From when until when a certificate (DER) is valid.
fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let time = |t: x509_cert::time::Time| Timestamp::from_unix(t.to_unix_duration().as_secs());
    Some((time(validity.not_before), time(validity.not_after)))
}
