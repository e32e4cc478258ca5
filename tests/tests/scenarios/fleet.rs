//! Many units at once behind few addresses: the agent's own policy of waiting, and the API's own limits, on virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use azaion_agent::device::backoff::Patience;
use azaion_agent::device::settings::DEFAULT_DEADLINE;
use azaion_agent::fault::{Class, Fault, Problem};
use azaion_agent::retry::{POLICY, Waits, part_of};
use azaion_tests::dev_api::limits::{Limits, Refusal};

/// Units that are switched on together reach their first run within this time.
const BOOT: Duration = Duration::from_secs(5);
/// Of azaion-agent.timer: from the end of a run to the next, and over how long systemd spreads that.
const TIMER: Duration = Duration::from_mins(1);
const ACCURACY: Duration = Duration::from_secs(5);
/// What the limit lets through: ten a minute for each address.
const LOGINS: usize = 10;
const WINDOW: Duration = Duration::from_mins(1);

/// Whether the server says how long to wait, as G2 and G2b do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limited {
    WithRetryAfter,
    WithoutRetryAfter,
}

/// A unit between its tries.
struct Unit {
    address: IpAddr,
    email: String,
    /// Of the run that it is in.
    run: Option<(Waits, Duration)>,
    patience: Patience,
    /// Until when the last run was told to wait.
    backoff: Duration,
    /// Where in the timer's window this machine's runs lie.
    timer: Duration,
    ready: Option<Duration>,
}

impl Unit {
    /// How long until its next turn: it sits a wait out, or its run ends and the timer starts another.
    fn pause_or_end(&mut self, wait: Duration, now: Duration) -> Duration {
        self.patience.pause(wait, now).unwrap_or_else(|| {
            self.patience = Patience::new(true, now + self.timer);
            self.timer
        })
    }
}

struct Fleet {
    units: Vec<Unit>,
    limits: Limits,
    limited: Limited,
    /// When each login came.
    calls: Vec<Duration>,
    /// When whose turn is next.
    turns: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Fleet {
    fn new(units: usize, addresses: u32, limited: Limited) -> Self {
        let unit = |(number, address): (usize, u32)| Unit {
            address: Ipv4Addr::from_bits(0x0A00_0000 + address % addresses).into(),
            email: format!("azaion-jetson-{number:06}@azaion.com"),
            run: None,
            patience: Patience::new(true, Duration::ZERO),
            backoff: Duration::ZERO,
            timer: TIMER + part_of(ACCURACY),
            ready: None,
        };
        Self {
            units: (0..units).zip(0..).map(unit).collect(),
            limits: Limits::default(),
            limited,
            calls: Vec::new(),
            turns: (0..units).map(|number| Reverse((part_of(BOOT), number))).collect(),
        }
    }

    /// Lets time pass until all are ready.
    fn run(&mut self) {
        while let Some(Reverse((now, number))) = self.turns.pop() {
            assert!(now < Duration::from_hours(24), "unit {number} is not ready after a day");
            if let Some(next) = self.turn(now, number) {
                self.turns.push(Reverse((now + next, number)));
            }
        }
    }

    /// What a unit does now, and how long it waits then; nothing if it is ready.
    fn turn(&mut self, now: Duration, number: usize) -> Option<Duration> {
        let unit = &mut self.units[number];
        let left = unit.backoff.saturating_sub(now);
        if !left.is_zero() {
            return Some(unit.pause_or_end(left, now));
        }
        let (waits, until) = unit.run.get_or_insert_with(|| (Waits::new(POLICY), now + DEFAULT_DEADLINE));
        let left = until.saturating_sub(now);
        self.calls.push(now);
        let Err(fault) = login(&mut self.limits, self.limited, unit.address, &unit.email, now) else {
            unit.ready = Some(now);
            return None;
        };
        if let Some(wait) = waits.after(&fault, left) {
            return Some(wait);
        }
        unit.run = None;
        let asked = fault.retry_after;
        unit.backoff = now + asked.unwrap_or_default();
        Some(asked.map_or(unit.timer, |wait| unit.pause_or_end(wait, now)))
    }

    /// When so many in a hundred were ready.
    fn percentile(&self, percent: usize) -> f64 {
        let mut ready: Vec<Duration> = self.units.iter().filter_map(|unit| unit.ready).collect();
        ready.sort();
        ready[(ready.len() * percent).div_ceil(100) - 1].as_secs_f64()
    }

    /// The most logins in a second.
    fn peak(&self) -> usize {
        let mut seconds = HashMap::new();
        self.calls.iter().for_each(|call| *seconds.entry(call.as_secs()).or_insert(0) += 1);
        seconds.into_values().max().unwrap_or_default()
    }

    fn locked(&self) -> usize {
        let end = milliseconds(self.calls.last().copied().unwrap_or_default());
        self.units.iter().filter(|unit| self.limits.is_locked(&unit.email, end)).count()
    }
}

fn login(limits: &mut Limits, limited: Limited, address: IpAddr, email: &str, now: Duration) -> Result<(), Fault> {
    let wait = match limits.attempt(address, email, milliseconds(now)) {
        Ok(()) => {
            limits.succeeded(email);
            return Ok(());
        }
        Err(Refusal::Limited(wait) | Refusal::Locked(wait)) => Duration::from_secs(wait.unsigned_abs()),
    };
    Err(Fault {
        step: "POST /login".to_owned(),
        host: "admin".to_owned(),
        retry_after: (limited == Limited::WithRetryAfter).then_some(wait),
        problem: Problem::Status { status: 429, code: Some(51), class: Class::Later },
    })
}

fn milliseconds(time: Duration) -> i64 {
    time.as_millis().try_into().unwrap_or(i64::MAX)
}

/// The least time in which so many units can log in from one address.
fn least(units: usize) -> Duration {
    WINDOW * u32::try_from((units - 1) / LOGINS).unwrap_or(u32::MAX)
}

/// Runs a fleet, prints its row of the table in `docs/scale.md`, and holds it against the least time possible.
fn hold(units: usize, addresses: u32, limited: Limited) {
    let mut fleet = Fleet::new(units, addresses, limited);
    fleet.run();
    let [half, most, all] = [50, 99, 100].map(|percent| fleet.percentile(percent));
    let (calls, peak) = (fleet.calls.len(), fleet.peak());
    println!("| {units} | {addresses} | {limited:?} | {calls} | {peak} | {half:.0} | {most:.0} | {all:.0} |");
    assert_eq!(fleet.locked(), 0);
    // Without its word, a run ends after a minute of trying, and the next one comes a minute later.
    let factor = if limited == Limited::WithRetryAfter { 1.5 } else { 2.5 };
    let allowed = (BOOT + least(units / addresses as usize).mul_f64(factor)).as_secs_f64();
    assert!(all <= allowed, "{all:.0} s, and {allowed:.0} s allowed");
}

// Promise: fifty units that are switched on together behind one address are all ready within one and a half times the
// least time that its limit allows; no account is locked. A server that does not say how long to wait costs more.
#[test]
fn fifty_units_behind_one_address() {
    for limited in [Limited::WithRetryAfter, Limited::WithoutRetryAfter] {
        (0..20).for_each(|_| hold(50, 1, limited));
    }
}

// Promise: ten thousand units over five hundred addresses, after a power failure, are no slower than those behind one
// of the addresses alone.
#[test]
fn ten_thousand_units_after_a_power_failure() {
    for limited in [Limited::WithRetryAfter, Limited::WithoutRetryAfter] {
        hold(10_000, 500, limited);
    }
}
