//! Wall clock, boot clock and sleeping, behind one trait, so that tests do not depend on the machine's clocks and do not wait.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A time in UTC with a resolution of one second; written as RFC 3339 (`2026-05-03T10:00:00Z`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("format" = "date-time", "pattern" = PATTERN)))]
pub struct Timestamp(u64);

/// The written form as a regular expression, for JSON Schema.
#[cfg(feature = "schema")]
const PATTERN: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$";

/// A text is not an RFC 3339 time in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time in UTC such as 2026-05-03T10:00:00Z")]
pub struct TimestampError;

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST: u64 = 253_402_300_799;

impl Timestamp {
    /// Creates a timestamp from seconds since 1970, limited to the years that RFC 3339 can write.
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds.min(LAST))
    }

    /// Returns the seconds since 1970.
    pub fn unix(self) -> u64 {
        self.0
    }

    /// Parses the HTTP date of a `Date` or `Retry-After` header (RFC 9110, 5.6.7).
    pub fn from_http_date(text: &str) -> Option<Self> {
        httpdate::parse_http_date(text).ok().map(Self::from)
    }

    /// Returns the time that is `later` after this one.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self::from_unix(self.0.saturating_add(later.as_secs()))
    }

    /// Returns the time that is `earlier` before this one; not before 1970.
    #[must_use]
    pub fn minus(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier.as_secs()))
    }

    /// Returns the time elapsed since `earlier`; zero if `earlier` is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::from_unix(time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // RFC 3339 writes UTC as Z or as an offset of zero.
        let utc = match text.strip_suffix("+00:00").or_else(|| text.strip_suffix("-00:00")) {
            Some(local) => format!("{local}Z"),
            None => text.to_owned(),
        };
        humantime::parse_rfc3339(&utc).map(Self::from).map_err(|_| TimestampError)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(self.0)).fmt(f)
    }
}

/// The clocks of the machine, and sleeping.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the system's wall clock; on a Jetson it may be wrong by decades.
    fn wall(&self) -> Timestamp;

    /// Returns the time since boot, including suspension (`CLOCK_BOOTTIME`); it never jumps.
    fn boot(&self) -> Duration;

    /// Sleeps for this time; returns at once if [`Self::is_stopped`].
    fn sleep(&self, time: Duration);

    /// Whether a time server has set the wall clock, so that it is reliable.
    fn is_synchronised(&self) -> bool {
        false
    }

    /// Whether a signal asks the program to end, so that it must not start anything new.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// The time that a server reported, advanced by the boot clock.
#[derive(Debug, Default)]
pub struct ServerTime(Mutex<Option<(Timestamp, Duration)>>);

impl ServerTime {
    /// Stores a time that a server reported; `boot` is the boot clock at that moment.
    pub fn learn(&self, time: Timestamp, boot: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, boot));
    }

    /// Returns the server's time when the boot clock shows `boot`; `None` if no server has reported a time.
    pub fn at(&self, boot: Duration) -> Option<Timestamp> {
        let reported = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reported.map(|(time, then)| time.plus(boot.saturating_sub(then)))
    }
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn boot(&self) -> Duration {
        // clock_gettime(2) fails only for an unknown clock; CLOCK_BOOTTIME exists since Linux 2.6.39.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
    }

    #[expect(clippy::disallowed_methods, reason = "the only call that sleeps")]
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Clocks that advance only when a test advances them or something sleeps.
#[cfg(test)]
pub(crate) mod virtual_clock {
    use std::sync::Mutex;

    use super::Clock;
    use super::Duration;
    use super::Timestamp;

    #[derive(Debug)]
    pub(crate) struct VirtualClock(Mutex<(Timestamp, Duration, Vec<Duration>)>);

    impl VirtualClock {
        pub(crate) fn at(wall: &str) -> Self {
            Self(Mutex::new((wall.parse().unwrap(), Duration::from_secs(20), Vec::new())))
        }

        pub(crate) fn advance(&self, time: Duration) {
            let mut state = self.0.lock().unwrap();
            state.0 = state.0.plus(time);
            state.1 += time;
        }

        pub(crate) fn sleeps(&self) -> Vec<Duration> {
            self.0.lock().unwrap().2.clone()
        }
    }

    impl Clock for VirtualClock {
        fn wall(&self) -> Timestamp {
            self.0.lock().unwrap().0
        }

        fn boot(&self) -> Duration {
            self.0.lock().unwrap().1
        }

        fn sleep(&self, time: Duration) {
            self.advance(time);
            self.0.lock().unwrap().2.push(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: times are RFC 3339 in UTC; any other text is refused.
    #[test]
    fn timestamps_are_rfc_3339() {
        for (text, unix) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-05-03T10:00:00Z", Some(1_777_802_400)),
            ("2026-05-03T10:00:00.75Z", Some(1_777_802_400)),
            ("2026-05-03T10:00:00+00:00", Some(1_777_802_400)),
            ("2026-05-03T10:00:00+02:00", None),
            ("2026-05-03 10:00:00", None),
            ("2026-05-03", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Timestamp>().ok().map(Timestamp::unix), unix, "{text}");
        }
        assert_eq!(Timestamp::from_unix(1_777_802_400).to_string(), "2026-05-03T10:00:00Z");
        assert_eq!(Timestamp::from_unix(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }

    // Promise: in files a time is written and read as text; a number is refused.
    #[test]
    fn timestamps_are_text_in_files() {
        let (time, text) = (Timestamp::from_unix(1_777_802_400), r#""2026-05-03T10:00:00Z""#);
        assert_eq!(serde_json::to_string(&time).unwrap(), text);
        assert_eq!(serde_json::from_str::<Timestamp>(text).unwrap(), time);
        assert!(serde_json::from_str::<Timestamp>("1777802400").is_err());
    }

    // Promise: adding and subtracting never overflows, and no time has elapsed since a time in the future.
    #[test]
    fn times_stay_within_their_bounds() {
        let (time, second) = (Timestamp::from_unix, Duration::from_secs(1));
        assert_eq!((time(5).plus(second), time(5).minus(second)), (time(6), time(4)));
        assert_eq!((time(0).minus(second), time(LAST).plus(second)), (time(0), time(LAST)));
        assert_eq!((time(7).since(time(5)), time(5).since(time(7))), (2 * second, Duration::ZERO));
        assert_eq!(Timestamp::from(UNIX_EPOCH - second), time(0));
        assert_eq!(Timestamp::from_http_date("Sun, 03 May 2026 10:00:00 GMT"), Some(time(1_777_802_400)));
        assert_eq!(Timestamp::from_http_date("2026-05-03T10:00:00Z"), None);
    }

    // Promise: `SystemClock` reads the clocks of the system, and sleeps at least as long as requested.
    #[test]
    fn the_clocks_are_those_of_the_system() {
        let (clock, wait) = (SystemClock, Duration::from_millis(2));
        let (boot, wall) = (clock.boot(), Timestamp::from(SystemTime::now()));
        assert!(boot > Duration::ZERO && clock.wall() >= wall);
        clock.sleep(wait);
        assert!(clock.boot() >= boot + wait);
    }
}
