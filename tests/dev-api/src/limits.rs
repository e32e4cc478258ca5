//! Login limits: per address, per account, and the account lock after consecutive failures.
//!
//! Times are milliseconds since 1970 on the server's clock, so that a test can shift that clock instead of waiting.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Logins per address: 10 in a sliding 60 s.
const PER_ADDRESS: Window = Window { most: 10, milliseconds: 60_000 };
/// Failed logins per account: 5 in a sliding 300 s.
const PER_ACCOUNT: Window = Window { most: 5, milliseconds: 300_000 };
/// Consecutive failures that lock an account.
const FAILURES_TO_LOCK: u32 = 10;
/// Duration of a lock: 900 s.
const LOCK_MILLISECONDS: i64 = 900_000;

/// Why a login is rejected before its credentials are checked, and for how many seconds.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many logins from this address or failures on this account.
    Limited(i64),
    /// The account is locked.
    Locked(i64),
}

/// A maximum number of events within a sliding window.
struct Window {
    most: usize,
    milliseconds: i64,
}

impl Window {
    /// Drops events outside the window; when full, returns the seconds until the next event is allowed.
    fn wait(&self, events: &mut VecDeque<i64>, now: i64) -> Option<i64> {
        events.retain(|at| now - at < self.milliseconds);
        if events.len() < self.most {
            return None;
        }
        events.front().map(|oldest| seconds(oldest + self.milliseconds - now))
    }
}

/// Rounds up to whole seconds, so that a client that obeys is never too early.
fn seconds(milliseconds: i64) -> i64 {
    (milliseconds + 999) / 1000
}

/// The highest failure counts ever reached by an account.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// Failed logins in total.
    pub total: usize,
    /// The most consecutive ones; ten lock the account.
    pub most_in_a_row: u32,
    /// The most within 300 s; five are the limit.
    pub most_in_300_s: usize,
}

#[derive(Default)]
struct Account {
    failed: VecDeque<i64>,
    in_a_row: u32,
    locked_until: i64,
    worst: Failures,
}

/// All counters.
#[derive(Default)]
pub struct Limits {
    addresses: HashMap<IpAddr, VecDeque<i64>>,
    /// By lower-case e-mail, whether such a user exists or not.
    accounts: HashMap<String, Account>,
}

impl Limits {
    /// Counts a login attempt, or returns why it is rejected. An attempt over the limit of its address is not counted.
    pub fn attempt(&mut self, peer: IpAddr, email: &str, now: i64) -> Result<(), Refusal> {
        let attempts = self.addresses.entry(peer).or_default();
        if let Some(wait) = PER_ADDRESS.wait(attempts, now) {
            return Err(Refusal::Limited(wait));
        }
        attempts.push_back(now);
        let account = self.account(email);
        if account.locked_until > now {
            return Err(Refusal::Locked(seconds(account.locked_until - now)));
        }
        match PER_ACCOUNT.wait(&mut account.failed, now) {
            Some(wait) => Err(Refusal::Limited(wait)),
            None => Ok(()),
        }
    }

    /// Counts a failed login, and locks the account after too many consecutive ones.
    pub fn failed(&mut self, email: &str, now: i64) {
        let account = self.account(email);
        account.failed.push_back(now);
        account.failed.retain(|at| now - at < PER_ACCOUNT.milliseconds);
        account.in_a_row += 1;
        account.worst = Failures {
            total: account.worst.total + 1,
            most_in_a_row: account.worst.most_in_a_row.max(account.in_a_row),
            most_in_300_s: account.worst.most_in_300_s.max(account.failed.len()),
        };
        if account.in_a_row >= FAILURES_TO_LOCK {
            account.in_a_row = 0;
            account.locked_until = now + LOCK_MILLISECONDS;
        }
    }

    /// Resets the count of consecutive failures after a success.
    pub fn succeeded(&mut self, email: &str) {
        self.account(email).in_a_row = 0;
    }

    /// Returns the failure counts of an account so far.
    pub fn failures(&self, email: &str) -> Failures {
        self.accounts.get(&email.to_lowercase()).map(|account| account.worst).unwrap_or_default()
    }

    /// Returns whether the account is locked.
    pub fn is_locked(&self, email: &str, now: i64) -> bool {
        self.accounts.get(&email.to_lowercase()).is_some_and(|account| account.locked_until > now)
    }

    fn account(&mut self, email: &str) -> &mut Account {
        self.accounts.entry(email.to_lowercase()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const OTHER_PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);

    /// Ten logins in 60 s per address, sliding: the eleventh waits for the first to leave.
    #[test]
    fn ten_logins_a_minute_per_address() {
        let mut limits = Limits::default();
        for second in 0..10 {
            let email = format!("user-{second}@azaion.com");
            assert_eq!(limits.attempt(PEER, &email, second * 1000), Ok(()));
        }
        let eleventh = |limits: &mut Limits, now| limits.attempt(PEER, "e@azaion.com", now);
        assert_eq!(eleventh(&mut limits, 10_000), Err(Refusal::Limited(50)));
        assert_eq!(eleventh(&mut limits, 59_001), Err(Refusal::Limited(1)));
        assert_eq!(limits.attempt(OTHER_PEER, "e@azaion.com", 59_001), Ok(()));
        assert_eq!(eleventh(&mut limits, 60_000), Ok(()));
        assert_eq!(eleventh(&mut limits, 60_000), Err(Refusal::Limited(1)));
    }

    /// Five failures in 300 s per account; ten consecutive ones lock it for 900 s; a success between them resets the
    /// count.
    #[test]
    fn failures_limit_and_then_lock_an_account() {
        let mut limits = Limits::default();
        let fail_five = |limits: &mut Limits, now| {
            for _ in 0..5 {
                assert_eq!(limits.attempt(PEER, "A@azaion.com", now), Ok(()));
                limits.failed("a@azaion.com", now);
            }
        };
        fail_five(&mut limits, 0);
        let refused = limits.attempt(PEER, "a@azaion.com", 100_000);
        assert_eq!(refused, Err(Refusal::Limited(200)));
        limits.succeeded("a@azaion.com");
        fail_five(&mut limits, 300_000);
        assert!(!limits.is_locked("a@azaion.com", 300_000));
        let worst = Failures { total: 10, most_in_a_row: 5, most_in_300_s: 5 };
        assert_eq!(limits.failures("A@azaion.com"), worst);
        fail_five(&mut limits, 600_000);
        assert!(limits.is_locked("a@azaion.com", 600_000));
        let refused = limits.attempt(PEER, "a@azaion.com", 700_000);
        assert_eq!(refused, Err(Refusal::Locked(800)));
        assert!(!limits.is_locked("a@azaion.com", 1_500_000));
        assert_eq!(limits.attempt(PEER, "a@azaion.com", 1_500_000), Ok(()));
    }
}
