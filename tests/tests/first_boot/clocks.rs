//! First boots with wrong clocks: a Jetson has no battery for its clock.

use std::time::{Duration, SystemTime};

use azaion_agent::common::clock::Timestamp;
use azaion_tests::dev_api::{Options, Tls};
use azaion_tests::machine::{Boot, Unit};

use super::{BOOT, ready, seconds, token_is_valid, unit, worked};

const DAY: Duration = Duration::from_hours(24);

/// Adds a service that simulates a driver setting the clock early in the boot: before that, systemd itself has set a
/// clock that is far off to its own build time.
pub(super) fn early_clock(unit: &Unit, time: Timestamp) -> anyhow::Result<()> {
    let order = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target systemd-journald.service\n";
    let service = format!("{order}[Service]\nType=oneshot\nExecStart=/bin/date -s @{}\n", time.unix());
    unit.put_service("early-clock.service", "sysinit.target", &service)
}

/// A simulated driver that sets the clock thirteen seconds after the kernel's start, at whatever stage the boot is.
const LATE_TIMER: &str = "[Unit]\nDefaultDependencies=no\n[Timer]\nOnBootSec=13s\nAccuracySec=1ms\n";
const LATE_CLOCK: &str = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/date -s @86400\n";

// Promise: a device that starts in 1970 and finds no time server becomes ready with a server whose certificate is valid
// since yesterday; its own clock is unchanged.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_clock_that_starts_in_1970() -> anyhow::Result<()> {
    let now = SystemTime::now();
    let tls = Tls::Window { not_before: now - DAY, not_after: now + 60 * DAY };
    let unit = unit(Options { tls, ..Options::default() })?;
    let start = Timestamp::from_unix(86_400);
    early_clock(&unit, start)?;
    let mut machine = unit.flash()?.boot(&Boot { clock: Some(start), ..Boot::default() })?;
    ready(&mut machine)?;
    assert_eq!(machine.run("date -u +%Y")?, "1970");
    token_is_valid(&mut machine, &unit.station.api)
}

// Promise: when a late driver sets the clock back to 1970, before, while or after the agent runs, the device becomes
// and stays ready, `token` prints a valid token, and renewal continues.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_clock_that_jumps_back_to_1970() -> anyhow::Result<()> {
    // Renewed when less than 40 s are left, so by the run one minute after the first.
    let options = Options { token_lifetime: Some(Duration::from_mins(2)), ..Options::default() };
    let unit = unit(options)?;
    let api = &unit.station.api;
    unit.put("etc/systemd/system/late-clock.service", LATE_CLOCK)?;
    unit.put_service("late-clock.timer", "sysinit.target", LATE_TIMER)?;
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    machine.run_until("date -u +%Y", "1970", BOOT)?;
    ready(&mut machine)?;
    let jumped = seconds(&mut machine, "late-clock.service", "ExecMainStartTimestampMonotonic")?;
    let (start, end) = worked(&mut machine)?;
    println!(
        "the clock jumped back {jumped:.1} s after the kernel's start; the agent ran from {start:.1} to {end:.1} s"
    );
    assert!(jumped >= 13.0, "{jumped}");
    token_is_valid(&mut machine, api)?;
    assert_eq!((api.calls("POST", "/login"), api.calls("POST", "/token/refresh")), (1, 0));

    let told = "journalctl -b --no-pager -o cat _SYSTEMD_UNIT=azaion-agent.service | grep -c 'is ready'";
    let before: u32 = machine.run(told)?.parse()?;
    while api.calls("POST", "/token/refresh") == 0 {
        assert!(machine.age() < 2 * BOOT, "{}", machine.run("journalctl -b --no-pager -u 'azaion*'")?);
        machine.run("sleep 2")?;
    }
    assert_eq!(api.calls("POST", "/login"), 1);
    assert_eq!(machine.run("date -u +%Y")?, "1970");
    machine.run_until("grep -c '\"ready\":true' /run/azaion/ready.json", "1", BOOT)?;
    println!("entries that say ready: {before}, then {}", machine.run(told)?);
    token_is_valid(&mut machine, api)
}
