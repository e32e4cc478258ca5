//! The agent on a machine whose clock is wrong, and with servers whose clock is.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use azaion_tests::dev_api::{Options, Tls};
use azaion_tests::programs::{Run, native, start};
use azaion_tests::station::{Station, command};

const DAY: u64 = 24 * 3600;
const YEAR: i64 = 365 * 24 * 3600;
const FIRST_BOOT: &str = "var/lib/azaion/first-boot.json";

fn unit(options: Options) -> anyhow::Result<Station> {
    let station = Station::new(options)?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    Ok(station)
}

/// From a day ago, for so many days.
fn window(days: u64) -> Tls {
    let now = SystemTime::now();
    Tls::Window { not_before: now - Duration::from_secs(DAY), not_after: now + Duration::from_secs(days * DAY) }
}

/// Where Debian and Ubuntu have libfaketime.
fn libfaketime() -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]).output()?;
    let path = String::from_utf8(output.stdout)?.trim().to_owned();
    anyhow::ensure!(Path::new(&path).exists(), "libfaketime is missing; install the package faketime");
    Ok(path)
}

/// `azaion-agent boot` with a wall clock that says something else; the boot clock goes on as it is.
fn boot_at(station: &Station, clock: &str) -> anyhow::Result<Run> {
    let agent = native()?.join("azaion-agent");
    let mut command = command(&agent, &["boot", "--deadline", "2", "--root"]);
    command.arg(station.rootfs()).env("LD_PRELOAD", libfaketime()?);
    command.env("FAKETIME", clock).env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC");
    station.wait(start(&mut command)?)
}

fn highest(station: &Station) -> Option<String> {
    station.json(FIRST_BOOT)?.get("highest_time")?.as_str().map(str::to_owned)
}

// Promise: a clock at 1970 and a certificate valid since yesterday: ready, and all times written are true ones.
#[test]
fn a_clock_at_1970() -> anyhow::Result<()> {
    let station = unit(Options { tls: window(60), ..Options::default() })?;
    boot_at(&station, "@1970-01-01 00:00:20")?.ended_with(0)?;
    let ready = station.json("run/azaion/ready.json").unwrap();
    for time in [&ready["since"], &ready["expires_at"], &station.json(FIRST_BOOT).unwrap()["first_ready_at"]] {
        assert!(time.as_str().unwrap() > "2026-", "{time}");
    }
    // The clock stays at 1970: the token is still fresh on the boot clock.
    let calls = station.api.requests().len();
    boot_at(&station, "@1970-01-01 00:00:40")?.ended_with(0)?;
    assert_eq!(station.api.requests().len(), calls);
    Ok(())
}

// Promise: a clock that lies ahead makes TLS fail, not the unit's state: it is waited for.
#[test]
fn a_clock_in_the_future() -> anyhow::Result<()> {
    let station = unit(Options::default())?;
    let run = boot_at(&station, "@2099-01-01 00:00:00")?.ended_with(75)?;
    assert!(run.stderr.contains("TLS"), "{}", run.stderr);
    assert!(highest(&station).is_none());
    Ok(())
}

// Promise: the token is judged by what the server's Date says, whatever the own clock says.
#[test]
fn the_servers_date_tells_the_time() -> anyhow::Result<()> {
    let station = unit(Options { clock_offset: 5 * YEAR, tls: window(10 * 365), ..Options::default() })?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert!(highest(&station).unwrap().as_str() > "2030-");
    Ok(())
}

// Promise: no server can push the floor beyond the validity of its own certificate.
#[test]
fn a_date_beyond_the_certificate_is_not_remembered() -> anyhow::Result<()> {
    let station = unit(Options { clock_offset: 5 * YEAR, tls: window(60), ..Options::default() })?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert_eq!(highest(&station), None);
    Ok(())
}

// Promise: nor beyond the token's: the claims decide as well.
#[test]
fn a_date_beyond_the_token_is_not_believed() -> anyhow::Result<()> {
    use azaion_tests::dev_api::{BadToken, Fault};
    let station = unit(Options { clock_offset: 5 * YEAR, tls: window(10 * 365), ..Options::default() })?;
    station.api.inject("POST", "/login", Fault::Token(BadToken::Expired(3600)), usize::MAX);
    station.agent(&["boot"])?.ended_with(76)?;
    assert_eq!(highest(&station), None);
    Ok(())
}

// Promise: a Date below the floor is ignored; a token of that time has then expired.
#[test]
fn a_date_in_the_past_is_ignored() -> anyhow::Result<()> {
    let station = unit(Options { clock_offset: -10 * YEAR, ..Options::default() })?;
    let run = station.agent(&["boot"])?.ended_with(76)?;
    assert!(run.stderr.contains("its clock is wrong") && run.stderr.contains("expired"), "{}", run.stderr);
    Ok(())
}

// Promise: a server that sends no Date is judged by clock and floor, and nothing is remembered.
#[test]
fn no_date_at_all() -> anyhow::Result<()> {
    let station = unit(Options { date_header: false, ..Options::default() })?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert_eq!(highest(&station), None);
    Ok(())
}

// Promise: the highest time ever sure of is a floor for certificates, on a later boot with a clock at 1970.
#[test]
fn the_remembered_time_is_a_floor() -> anyhow::Result<()> {
    let in_days = |days: u64| {
        let output = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("+{days} days")]).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    for (days, code) in [(30, 0), (90, 75)] {
        let station = unit(Options { tls: window(60), clock_offset: i64::try_from(30 * DAY)?, ..Options::default() })?;
        let record = format!(
            "{{\"version\":1,\"first_ready_at\":\"2026-01-01T00:00:00Z\",\"highest_time\":\"{}\"}}",
            in_days(days)?
        );
        station.put(&format!("rootfs/{FIRST_BOOT}"), record, 0o644)?;
        boot_at(&station, "@1970-01-01 00:00:20")?.ended_with(code)?;
    }
    Ok(())
}
