//! State that all connections of one server share.

use super::certificates::Authority;
use super::faults::Script;
use super::keys::Keys;
use super::limits::Limits;
use super::store::Store;
use super::{Options, Request};
use rustls::ServerConfig;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use time::OffsetDateTime;

/// A test's callback for when a request has arrived.
pub(super) type Hook = Box<dyn FnOnce() + Send>;

/// Locks a mutex, also after a panic in another thread: the data is still consistent, because no lock is held across a
/// change that could panic halfway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shared state of a running server.
pub(super) struct State {
    pub(super) options: Options,
    pub(super) store: Store,
    pub(super) keys: Mutex<Keys>,
    /// The cached list of keys and the time at which it was stored.
    pub(super) cached_keys: Mutex<Option<(i64, Value)>>,
    pub(super) limits: Mutex<Limits>,
    pub(super) script: Mutex<Script>,
    pub(super) hooks: Mutex<Vec<(String, String, Hook)>>,
    pub(super) log: Mutex<Log>,
    pub(super) authority: Mutex<Authority>,
    /// `None`: plain http.
    pub(super) tls: Mutex<Option<Arc<ServerConfig>>>,
    /// Seconds added to the clock.
    pub(super) clock_offset: AtomicI64,
    /// A hash of no password, so that an unknown e-mail takes as long as a wrong password.
    pub(super) decoy_hash: String,
}

impl State {
    /// Returns the server's time in milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        let true_time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let offset = self.clock_offset.load(Ordering::Relaxed);
        i64::try_from(true_time).unwrap_or(i64::MAX).saturating_add(offset.saturating_mul(1000))
    }

    /// Returns the server's time as a `Date` header; `None` if outside the range of such a header.
    pub(super) fn date(&self) -> Option<String> {
        /// 9999-12-31T23:59:59Z in seconds since 1970: `httpdate` panics beyond it.
        const LAST: u64 = 253_402_300_799;
        let since_1970 = Duration::from_millis(u64::try_from(self.now()).ok()?);
        (since_1970.as_secs() <= LAST).then(|| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since_1970))
    }

    /// Removes and returns the hook of this request, which runs once.
    pub(super) fn take_hook(&self, method: &str, path: &str) -> Option<Hook> {
        let mut hooks = lock(&self.hooks);
        let index = hooks.iter().position(|(of_method, of_path, _)| of_method == method && of_path == path)?;
        Some(hooks.remove(index).2)
    }
}

/// Formats a time in milliseconds since 1970 as .NET does: RFC 3339, UTC.
pub(super) fn utc(milliseconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}

/// The requests so far, each with a number that stays unique after clearing.
#[derive(Default)]
pub(super) struct Log {
    next: u64,
    requests: Vec<(u64, Request)>,
}

impl Log {
    /// Records a request whose header has arrived, and returns its number.
    pub(super) fn arrived(&mut self, method: String, path: String, peer: IpAddr) -> u64 {
        let number = self.next;
        self.next += 1;
        let request =
            Request { method, path, status: None, peer, at: Instant::now(), body_bytes: 0, is_no_cache: false };
        self.requests.push((number, request));
        number
    }

    /// Updates the record of a request, unless it was cleared meanwhile.
    pub(super) fn amend(&mut self, number: u64, change: impl FnOnce(&mut Request)) {
        let found = self.requests.iter_mut().rev().find(|(n, _)| *n == number);
        if let Some((_, request)) = found {
            change(request);
        }
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().map(|(_, request)| request)
    }

    pub(super) fn forget(&mut self) {
        self.requests.clear();
    }
}
