//! Many devices behind few addresses: the agent's own schedule and the API's own limits, in virtual time.
//!
//! Addresses do not influence each other, so each is simulated alone, and the results are summed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use azaion_agent::api::retry::part_of;
use azaion_agent::device::cache::BootMoment;
use azaion_agent::device::refusals::Refusals;
use azaion_agent::device::schedule::{Failure, Outage, after};
use azaion_tests::dev_api::limits::{Limits, Refusal};

/// Devices that are switched on together start their first run within this time.
const BOOT: Duration = Duration::from_secs(5);
/// The limit: ten logins a minute for each address.
const LOGINS: usize = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// Average time between a device's calls in a long outage.
const PERIOD: Duration = Duration::from_mins(5);
/// Duration of a call without an answer.
const NO_ANSWER: Duration = Duration::from_secs(10);
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Seconds per column of the plot.
const COLUMN: usize = 10;

/// Whether the server sends `Retry-After`, as G2 and G2b do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limited {
    WithRetryAfter,
    WithoutRetryAfter,
}

/// How an API behaves while it is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    /// Answers 503 at once.
    Error,
    /// Does not answer.
    Silent,
}

/// A fleet and the outage that it goes through.
#[derive(Clone, Copy, Debug)]
struct Story {
    devices: usize,
    addresses: usize,
    limited: Limited,
    /// How long the API is down after the devices were switched on.
    down: Duration,
    how: Down,
}

/// The results; times are seconds after the return of the API.
#[derive(Default)]
struct Seen {
    calls: usize,
    /// The most calls of one device until the tenth minute of the outage, and from then on until its end.
    most_calls: usize,
    late_calls: usize,
    /// Calls in each second after the return, and devices that became ready.
    called: Vec<u32>,
    ready: Vec<u32>,
}

impl Seen {
    fn add(mut self, other: Self) -> Self {
        let sum = |into: &mut Vec<u32>, from: Vec<u32>| {
            into.resize(into.len().max(from.len()), 0);
            into.iter_mut().zip(from).for_each(|(sum, one)| *sum += one);
        };
        sum(&mut self.called, other.called);
        sum(&mut self.ready, other.ready);
        self.calls += other.calls;
        self.late_calls += other.late_calls;
        self.most_calls = self.most_calls.max(other.most_calls);
        self
    }

    fn peak(&self) -> u32 {
        self.called.iter().copied().max().unwrap_or_default()
    }

    /// Returns the seconds after which this percentage is ready.
    fn percentile(&self, percent: usize) -> usize {
        let all: usize = self.ready.iter().map(|&n| n as usize).sum();
        let mut so_far = 0;
        self.ready
            .iter()
            .position(|&n| {
                so_far += n as usize;
                so_far * 100 >= all * percent
            })
            .unwrap_or_default()
    }

    /// Returns calls per second over time, as a line of bars.
    fn plot(&self) -> String {
        let bars = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let columns: Vec<u32> = self.called.chunks(COLUMN).map(|seconds| seconds.iter().sum()).collect();
        let most = columns.iter().copied().max().unwrap_or_default().max(1);
        columns.iter().map(|&n| bars[((n * 8).div_ceil(most)) as usize]).collect()
    }
}

/// A device between its calls.
#[derive(Clone, Default)]
struct Unit {
    outage: Option<Outage>,
    calls: usize,
}

/// Simulates the devices of one address until all are ready.
fn address(story: Story, devices: usize) -> Seen {
    let (mut limits, mut seen, mut units) = (Limits::default(), Seen::default(), vec![Unit::default(); devices]);
    let mut turns: BinaryHeap<_> = (0..devices).map(|number| Reverse((part_of(BOOT), number))).collect();
    while let Some(Reverse((now, number))) = turns.pop() {
        assert!(now < story.down + Duration::from_hours(24), "a device is not ready a day after the return");
        let unit = &mut units[number];
        unit.calls += 1;
        seen.calls += 1;
        let (failure, took) = match now.checked_sub(story.down) {
            None => {
                seen.late_calls += usize::from(now >= 2 * PERIOD);
                (Failure::NoAnswer, if story.how == Down::Silent { NO_ANSWER } else { Duration::ZERO })
            }
            Some(since_return) => {
                count(&mut seen.called, since_return);
                let Some(failure) = login(&mut limits, story.limited, number, now) else {
                    count(&mut seen.ready, since_return);
                    seen.most_calls = seen.most_calls.max(unit.calls);
                    continue;
                };
                (failure, Duration::ZERO)
            }
        };
        let (wait, outage) = after(failure, unit.outage, now + took);
        unit.outage = outage;
        turns.push(Reverse((now + took + wait, number)));
    }
    seen
}

fn count(seconds: &mut Vec<u32>, at: Duration) {
    let second = usize::try_from(at.as_secs()).unwrap();
    seconds.resize(seconds.len().max(second + 1), 0);
    seconds[second] += 1;
}

/// Logs in with the correct password; returns the answer if the limit is reached.
fn login(limits: &mut Limits, limited: Limited, number: usize, now: Duration) -> Option<Failure> {
    let email = format!("{number}@azaion.com");
    match limits.attempt(ADDRESS, &email, milliseconds(now)) {
        Ok(()) => {
            limits.succeeded(&email);
            None
        }
        Err(_) if limited == Limited::WithoutRetryAfter => Some(Failure::NoAnswer),
        Err(Refusal::Limited(wait) | Refusal::Locked(wait)) => {
            Some(Failure::Asked(Duration::from_secs(wait.unsigned_abs())))
        }
    }
}

fn ratio(some: usize, of: usize) -> f64 {
    f64::from(u32::try_from(some).unwrap()) / f64::from(u32::try_from(of).unwrap())
}

fn milliseconds(time: Duration) -> i64 {
    time.as_millis().try_into().unwrap_or(i64::MAX)
}

/// Simulates a fleet on two threads.
fn run(story: Story) -> Seen {
    let devices = story.devices / story.addresses;
    let half = move |addresses: usize| (0..addresses).map(|_| address(story, devices)).fold(Seen::default(), Seen::add);
    let other = thread::spawn(move || half(story.addresses / 2));
    half(story.addresses.div_ceil(2)).add(other.join().unwrap())
}

impl Story {
    /// Returns the least time after the return in which all can be ready: given by the limit, and after a long outage
    /// by the period in which a device makes one call.
    fn least(&self) -> Duration {
        let windows = (self.devices / self.addresses - 1) / LOGINS;
        let limit = WINDOW * u32::try_from(windows).unwrap();
        if self.down > 2 * PERIOD { limit.max(PERIOD) } else { limit }
    }

    /// Returns the calls per second that the limit permits.
    fn served(&self) -> f64 {
        ratio(self.addresses * LOGINS, 60)
    }

    /// Runs it, and prints its row of the table in `docs/scale.md` and its plot.
    fn tell(self) -> Seen {
        let seen = run(self);
        let Self { devices, addresses, limited, down, how } = self;
        let (least, minutes) = (self.least().as_secs(), down.as_secs() / 60);
        let [half, most, all] = [50, 99, 100].map(|percent| seen.percentile(percent));
        let per_device = ratio(seen.calls, devices);
        let (peak, served) = (seen.peak(), self.served());
        println!(
            "| {devices} | {addresses} | {minutes} min, {how:?} | {limited:?} | {per_device:.1}, at most {} | {peak} of {served:.0} | {half} | {most} | {all} | {least} |",
            seen.most_calls
        );
        println!("calls in each {COLUMN} s after the return: [{}]", seen.plot());
        seen
    }

    /// Runs a long outage, and checks the promises.
    fn hold(self) {
        let seen = self.tell();
        let late = self.down.saturating_sub(2 * PERIOD).as_secs_f64() / PERIOD.as_secs_f64();
        // One call may be at each boundary.
        let per_device = ratio(seen.late_calls, self.devices);
        assert!(per_device <= late + 1.0, "{per_device} calls for each device after the tenth minute, {late} allowed");
        assert!(f64::from(seen.peak()) <= 2.0 * self.served().max(1.0), "{} calls in a second", seen.peak());
        let allowed = self.least().mul_f64(1.2).as_secs();
        assert!(seen.percentile(99) as u64 <= allowed, "{} s, {allowed} s allowed", seen.percentile(99));
    }
}

const MINUTES_28: Duration = Duration::from_mins(28);
const HOURS_8: Duration = Duration::from_hours(8);

// Promise: fifty devices that are switched on together behind one address are all ready within one and a half times the
// least time that its limit allows; a server without `Retry-After` costs more.
#[test]
fn fifty_devices_behind_one_address() {
    for (limited, factor) in [(Limited::WithRetryAfter, 1.5), (Limited::WithoutRetryAfter, 2.5)] {
        for _ in 0..20 {
            let story = Story { devices: 50, addresses: 1, limited, down: Duration::ZERO, how: Down::Error };
            let all = story.tell().percentile(100) as u64;
            let allowed = (BOOT + story.least().mul_f64(factor)).as_secs();
            assert!(all <= allowed, "{all} s, {allowed} s allowed");
        }
    }
}

// Promise: ten thousand devices over five hundred addresses, after a site's power failure with the API down for 28
// minutes or 8 hours: few calls, no rush on its return, and 99 % ready within 1.2 times the least possible time.
#[test]
fn ten_thousand_devices_after_a_power_failure() {
    for down in [MINUTES_28, HOURS_8] {
        for (limited, how) in [(Limited::WithRetryAfter, Down::Error), (Limited::WithoutRetryAfter, Down::Silent)] {
            Story { devices: 10_000, addresses: 500, limited, down, how }.hold();
        }
    }
}

// Promise: the same for a million over fifty thousand. Takes minutes: only if AZAION_FLEET asks for so many devices.
#[test]
fn a_million_devices_after_a_power_failure() {
    let devices: usize = std::env::var("AZAION_FLEET").ok().and_then(|n| n.parse().ok()).unwrap_or_default();
    if devices < 20 {
        println!("AZAION_FLEET=1000000 runs this");
        return;
    }
    for down in [MINUTES_28, HOURS_8] {
        let (limited, how) = (Limited::WithRetryAfter, Down::Error);
        Story { devices, addresses: devices / 20, limited, down, how }.hold();
    }
}

/// Returns the calls of a device with wrong credentials over a day: it boots each `boots`, and a person tries each
/// `tries`.
fn refused_for_a_day(boots: Duration, tries: Duration) -> Vec<Duration> {
    let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
    let (mut known, mut failures) = (None::<Refusals>, Vec::new());
    let (mut now, mut booted, mut boot, mut due) = (Duration::ZERO, Duration::ZERO, 0, Duration::ZERO);
    while now < day {
        if now >= booted + boots {
            (booted, boot, due) = (now, boot + 1, now);
        }
        let since_boot = now.saturating_sub(booted);
        let moment = BootMoment { boot_id: boot.to_string(), since_boot };
        let is_person = now.as_secs().is_multiple_of(tries.as_secs());
        let is_open = known.as_ref().is_none_or(|known| known.gate("conf", &moment).is_zero());
        if is_open && (now >= due || is_person) {
            let refusals = Refusals::add(known.take(), "conf", &moment);
            let failure = Failure::Refused { in_a_row: refusals.in_a_row(), was_ready: false };
            due = now + after(failure, None, since_boot).0;
            known = Some(refusals);
            failures.push(now);
        } else if let Some(noted) = known.as_ref().filter(|_| !is_open).and_then(|known| known.noted(&moment)) {
            known = Some(noted);
        }
        now += second;
    }
    failures
}

// Promise: no schedule of runs, boots and people gets an account limited (5 failures in 300 s) or locked (10
// consecutive ones within the 900 s of a lock); an unattended device tries after 1, 5, 15 and then 60 minutes.
#[test]
fn no_account_is_locked() {
    let (never, day) = (Duration::from_hours(48), Duration::from_hours(24));
    let minutes: Vec<u64> = refused_for_a_day(never, never).iter().map(|at| at.as_secs() / 60).collect();
    assert_eq!(minutes[..6], [0, 1, 6, 21, 81, 141]);
    for boots in [20, 61, 299, 1000, 5000].map(Duration::from_secs).into_iter().chain([never]) {
        for tries in [5, 30, 290, 3000].map(Duration::from_secs).into_iter().chain([day]) {
            let failures = refused_for_a_day(boots, tries);
            for (window, most) in [(300, 5), (900, 9)] {
                let within = |&start: &Duration| {
                    failures.iter().filter(|&&at| at >= start && at < start + Duration::from_secs(window)).count()
                };
                let worst = failures.iter().map(within).max().unwrap_or_default();
                assert!(worst <= most, "boots each {boots:?}, tries each {tries:?}: {worst} in {window} s");
            }
        }
    }
}
