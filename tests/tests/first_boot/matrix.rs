//! Cells of the matrix (`scenarios::matrix`) as real boots: with the board's own clock, systemd of three releases, and
//! the unit as shipped.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use azaion_agent::common::clock::Timestamp;
use azaion_tests::dev_api::{Body, Intermediary, Options, Tls};
use azaion_tests::machine::{Boot, Disk, Machine, Release, Unit};
use azaion_tests::proxy::{Mode, Proxy};
use serde_json::Value;

use super::clocks::early_clock;
use super::journal::{became_ready, not_ready, uptime};
use super::names::{by_name, know_names};
use super::{ready, socket_gives_the_token, token_is_valid, unit_of};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(365 * 24);

/// Number of releases among which the boots of `AZAION_BOOTS` are divided.
const RELEASES: usize = 3;
/// Uptime of the machine at which name resolution starts to work, if that is late.
const NAMES_COME: Duration = Duration::from_secs(45);
/// An HTML page in place of the answer makes the agent wait for five minutes.
const LONGEST: Duration = Duration::from_mins(8);

/// The time of the board's clock at power-on. systemd raises a clock that is before its own build time to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wall {
    /// 1970 until the boot is complete.
    Start1970,
    /// As set by systemd.
    BuildTime,
    DayBeforeFloor,
    Right,
    YearAhead,
    Start2061,
}

/// When the server's certificate was issued, relative to the provisioning of the device, and its validity in days.
#[derive(Clone, Copy, Debug)]
enum Issued {
    Before(Duration, u32),
    After(Duration, u32),
}

/// What is between device and API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Nothing,
    LateNames,
    /// A page with this status and `Retry-After`, once, in place of the answer to a login.
    Page(u16, Option<u32>),
    /// A proxy, which is the only one that can resolve names.
    Proxy,
}

/// The server that a device reaches at first, and rejects.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    /// Its certificate is from another CA.
    Forged,
    /// Its certificate is for another host.
    Foreign,
    /// Its certificate, which may have been stolen since, expired before the device was provisioned.
    Ended,
}

struct Cell(Wall, Issued, Between, Flaw);

const DEBIAN_11: [Cell; 4] = [
    Cell(Wall::Start1970, Issued::After(DAY.saturating_mul(3 * 365), 47), Between::Proxy, Flaw::Ended),
    Cell(Wall::Right, Issued::After(DAY.saturating_mul(47), 90), Between::LateNames, Flaw::Forged),
    Cell(Wall::Start2061, Issued::Before(YEAR, 398), Between::Page(503, None), Flaw::Foreign),
    Cell(Wall::BuildTime, Issued::After(DAY.saturating_mul(200), 200), Between::Nothing, Flaw::Ended),
];

const DEBIAN_12: [Cell; 4] = [
    Cell(Wall::Start2061, Issued::After(DAY.saturating_mul(200), 200), Between::LateNames, Flaw::Ended),
    Cell(Wall::Start1970, Issued::After(DAY, 47), Between::Nothing, Flaw::Foreign),
    Cell(Wall::DayBeforeFloor, Issued::After(DAY, 90), Between::Page(403, None), Flaw::Forged),
    Cell(Wall::YearAhead, Issued::Before(DAY, 90), Between::Proxy, Flaw::Ended),
];

const DEBIAN_13: [Cell; 4] = [
    Cell(Wall::Start1970, Issued::After(DAY.saturating_mul(47), 90), Between::Page(401, Some(15)), Flaw::Forged),
    Cell(Wall::BuildTime, Issued::Before(YEAR, 398), Between::Proxy, Flaw::Foreign),
    Cell(Wall::DayBeforeFloor, Issued::After(YEAR.saturating_mul(3), 47), Between::Nothing, Flaw::Ended),
    Cell(Wall::YearAhead, Issued::After(DAY.saturating_mul(200), 200), Between::LateNames, Flaw::Forged),
];

impl Issued {
    /// Returns the first and last moment of the certificate, for a device that was provisioned at `floor`.
    fn window(self, floor: SystemTime) -> (SystemTime, SystemTime) {
        let (not_before, days) = match self {
            Self::Before(time, days) => (floor - time, days),
            Self::After(time, days) => (floor + time, days),
        };
        (not_before, not_before + DAY * days)
    }
}

impl Wall {
    /// Returns the clock of a device that was provisioned at `floor` and starts at `now`.
    fn start(self, floor: SystemTime, now: SystemTime) -> Timestamp {
        match self {
            Self::Start1970 | Self::BuildTime => Timestamp::from_unix(86_400),
            Self::DayBeforeFloor => (floor - DAY).into(),
            Self::Right => now.into(),
            Self::YearAhead => (now + YEAR).into(),
            Self::Start2061 => Timestamp::from_unix(2_871_763_200),
        }
    }
}

impl Flaw {
    fn certificate(self, floor: SystemTime, (not_before, not_after): (SystemTime, SystemTime)) -> Tls {
        match self {
            Self::Forged => Tls::ForgedWindow { not_before, not_after },
            Self::Foreign => Tls::ForeignWindow { not_before, not_after },
            Self::Ended => Tls::Window { not_before: floor - 90 * DAY, not_after: floor - HOUR },
        }
    }
}

impl Cell {
    /// Runs one device from power-on until it is ready.
    fn boots(&self, release: Release) -> anyhow::Result<()> {
        let Self(wall, issued, between, flaw) = *self;
        let unit = unit_of(release, Options::default())?;
        let api = &unit.station.api;
        let floor = SystemTime::now();
        let window = issued.window(floor);
        let now = window.0.max(floor) + HOUR;
        let ahead = now.duration_since(floor)?;
        api.set_clock_offset(i64::try_from(ahead.as_secs())?);
        api.serve_certificate(flaw.certificate(floor, window))?;
        let proxy = Proxy::start(Mode::AllowTo(([127, 0, 0, 1], api.port()).into()))?;
        let start = wall.start(floor, now);
        if matches!(wall, Wall::Start1970 | Wall::Start2061) {
            early_clock(&unit, start)?;
        }
        let mut machine = self.disk(&unit, &proxy)?.boot(&Boot { clock: Some(start), ..Boot::default() })?;

        if between == Between::LateNames {
            machine.wait_for_age(NAMES_COME);
            ensure!(api.requests().is_empty(), "a call was made before names could be resolved");
            know_names(&mut machine, true)?;
        }
        let refused = not_ready(&mut machine, "certificate")?;
        ensure!(api.calls("POST", "/login") == 0, "a password was sent to a server that is not the API");
        if let Between::Page(status, retry_after) = between {
            let page = Intermediary { status, body: Body::Page, retry_after };
            api.inject("POST", "/login", page.fault(), 1);
        }
        let (not_before, not_after) = window;
        api.serve_certificate(Tls::Window { not_before, not_after })?;
        let done = became_ready(&mut machine, 0.0, LONGEST)?;
        println!(
            "{release:?}, {wall:?}, {issued:?}, {between:?}: {flaw:?} refused at {refused:.0} s, ready at {done:.0} s"
        );
        if between == Between::Proxy {
            let password = unit.station.password().context("a password")?;
            ensure!(proxy.connections() > 0 && !proxy.has_seen(&password), "{:?}", proxy.heads());
        }
        self.check_time(&mut machine, start, done, ahead)?;
        socket_gives_the_token(&mut machine)?;
        // For this machine's own clock.
        api.serve_certificate(Tls::Valid)?;
        token_is_valid(&mut machine, api)
    }

    /// Creates the device's disk with its network settings.
    fn disk(&self, unit: &Unit, proxy: &Proxy) -> anyhow::Result<Disk> {
        match self.2 {
            Between::LateNames => by_name(unit)?,
            Between::Proxy => {
                by_name(unit)?;
                unit.station.put_policy(&format!("proxy = \"http://10.0.2.2:{}\"\n", proxy.port()))?;
            }
            Between::Nothing | Between::Page(..) => {}
        }
        Ok(unit.flash()?.reaching(proxy.port()))
    }

    /// Checks that the time that a ready device reports is true, and that it has not changed its own clock. The true
    /// time is that of this machine plus `ahead`.
    fn check_time(&self, machine: &mut Machine, start: Timestamp, done: f64, ahead: Duration) -> anyhow::Result<()> {
        ready(machine)?;
        let report: Value = serde_json::from_str(&machine.run("cat /run/azaion/ready.json")?)?;
        let since: Timestamp = report["since"].as_str().context("since when")?.parse()?;
        let ago = Duration::from_secs_f64((uptime(machine)? - done).max(0.0));
        let now = Timestamp::from(SystemTime::now() + ahead);
        ensure!(off(since.plus(ago), now) <= Duration::from_mins(1), "ready since {since}, {ago:?} ago, at {now}");
        let clock = Timestamp::from_unix(machine.run("date -u +%s")?.parse()?);
        let expected = start.plus(Duration::from_secs_f64(uptime(machine)?));
        let is_as_it_was =
            if self.0 == Wall::BuildTime { clock < since } else { off(clock, expected) < Duration::from_mins(5) };
        ensure!(is_as_it_was, "{:?}: started at {start}, and now it is {clock}", self.0);
        Ok(())
    }
}

fn off(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

fn boot(release: Release, cells: &[Cell]) -> anyhow::Result<()> {
    let Ok(boots) = std::env::var("AZAION_BOOTS") else {
        println!(
            "AZAION_BOOTS=3 boots a cell with each release, AZAION_BOOTS=12 four; on a machine without other load"
        );
        return Ok(());
    };
    for cell in cells.iter().take(boots.parse::<usize>()?.div_ceil(RELEASES)) {
        let Cell(wall, issued, between, _) = cell;
        cell.boots(release).with_context(|| format!("{release:?}, {wall:?}, {issued:?}, {between:?}"))?;
    }
    Ok(())
}

// Promise: for every clock of the board, issue time of the certificate and intermediary, a device rejects a server that
// is not the API, and becomes ready without intervention as soon as the API answers. `AZAION_BOOTS=12` tests four cells
// with each release.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn cells_with_debian_11() -> anyhow::Result<()> {
    boot(Release::Bullseye, &DEBIAN_11)
}

// Promise: the same with systemd 252.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn cells_with_debian_12() -> anyhow::Result<()> {
    boot(Release::Bookworm, &DEBIAN_12)
}

// Promise: the same with systemd 257.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn cells_with_debian_13() -> anyhow::Result<()> {
    boot(Release::Trixie, &DEBIAN_13)
}
