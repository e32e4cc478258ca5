//! The agent on a machine with a wrong clock, and with servers whose clock is wrong.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use azaion_tests::dev_api::{Options, Tls};
use azaion_tests::programs::{Run, native, output, start};
use azaion_tests::station::{EMAIL, SERIAL, Station, command};

const DAY: u64 = 24 * 3600;
const YEAR: i64 = 365 * 24 * 3600;
const PASSWORD: &str = "device-password-0042";
const FIRST_BOOT: &str = "var/lib/azaion/first-boot.json";

/// Creates a device that was provisioned a minute ago: only a later time than that is remembered.
fn unit(options: Options) -> anyhow::Result<Station> {
    let station = Station::new(options)?;
    station.api.add_user(EMAIL, PASSWORD, "CompanionPC");
    let (url, then) = (station.api.url(), utc("-1 minute")?);
    let lines = format!(
        "AZAION_DEVICE_SERIAL={SERIAL}\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={PASSWORD}\nAZAION_API_URL={url}\n\
         AZAION_PROVISIONED_AT={then}\n"
    );
    station.put("rootfs/etc/azaion/device.conf", lines, 0o600)?;
    station.put_policy("")?;
    Ok(station)
}

/// Returns a validity from a day ago, for so many days.
fn window(days: u64) -> Tls {
    let now = SystemTime::now();
    Tls::Window { not_before: now - Duration::from_secs(DAY), not_after: now + Duration::from_secs(days * DAY) }
}

/// Returns the path of libfaketime on Debian and Ubuntu.
fn libfaketime() -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]).output()?;
    let path = String::from_utf8(output.stdout)?.trim().to_owned();
    anyhow::ensure!(Path::new(&path).exists(), "libfaketime is missing; install the package faketime");
    Ok(path)
}

/// Runs `azaion-agent boot` with another wall clock; the boot clock is unchanged.
fn boot_at(station: &Station, clock: &str) -> anyhow::Result<Run> {
    let agent = native()?.join("azaion-agent");
    let mut command = command(&agent, &["boot", "--deadline", "2", "--root"]);
    command.arg(station.rootfs()).env("LD_PRELOAD", libfaketime()?);
    command.env("FAKETIME", clock).env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC");
    station.wait(start(&mut command)?)
}

/// Returns a time that date(1) understands, in the form that files use.
fn utc(when: &str) -> anyhow::Result<String> {
    let time = output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", when]))?;
    Ok(time.trim().to_owned())
}

/// Returns the time in so many days.
fn in_days(days: u64) -> anyhow::Result<String> {
    utc(&format!("+{days} days"))
}

fn highest(station: &Station) -> Option<String> {
    station.json(FIRST_BOOT)?.get("highest_time")?.as_str().map(str::to_owned)
}

// Promise: with a clock at 1970 and a certificate valid since yesterday the device is ready, and all written times are
// true.
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

/// The file that azaion-clock.service creates.
const SYNCHRONISED: &str = "rootfs/run/azaion-clock/synchronised";

// Promise: a clock that is ahead does not delay a device, and its time is not stored; one that a time server has set is
// trusted.
#[test]
fn a_clock_in_the_future() -> anyhow::Result<()> {
    let station = unit(Options::default())?;
    station.put(SYNCHRONISED, "", 0o644)?;
    let run = boot_at(&station, "@2061-01-01 00:00:00")?.ended_with(75)?;
    assert!(run.stderr.contains("has expired"), "{}", run.stderr);
    assert!(highest(&station).is_none());
    std::fs::remove_file(station.path(SYNCHRONISED))?;
    for clock in ["@2061-01-01 00:00:00", "@2099-01-01 00:00:00"] {
        boot_at(&station, clock)?.ended_with(0)?;
        let tomorrow = in_days(1)?;
        assert!(station.json("run/azaion/ready.json").unwrap()["since"].as_str().unwrap() < tomorrow.as_str());
        assert!(highest(&station).unwrap() < tomorrow);
        std::fs::remove_dir_all(station.inside("run"))?;
    }
    Ok(())
}

/// A server whose certificate was issued so many days after now, a day ago by its own clock.
fn issued_in(days: u64) -> Options {
    let issued = SystemTime::now() + Duration::from_secs(days * DAY);
    let tls = Tls::Window { not_before: issued, not_after: issued + Duration::from_secs(90 * DAY) };
    Options { tls, clock_offset: i64::try_from((days + 1) * DAY).unwrap(), ..Options::default() }
}

// Promise: a certificate issued after every time known to the device is accepted, and the Date that came with it gives
// the time; if a time server has set the clock, the certificate is not valid yet.
#[test]
fn a_certificate_from_the_future() -> anyhow::Result<()> {
    for (clock, days) in [("@1970-01-01 00:00:20", 1), ("@1970-01-01 00:00:20", 200), ("+0", 3 * 365)] {
        let station = unit(issued_in(days))?;
        station.put(SYNCHRONISED, "", 0o644)?;
        let run = boot_at(&station, clock)?.ended_with(75)?;
        assert!(run.stderr.contains("not valid yet"), "{}", run.stderr);
        assert_eq!(station.api.calls("POST", "/login"), 0);
        std::fs::remove_file(station.path(SYNCHRONISED))?;
        boot_at(&station, clock)?.ended_with(0)?;
        let since = in_days(days)?;
        assert!(station.json("run/azaion/ready.json").unwrap()["since"].as_str().unwrap() > since.as_str());
        // A single answer that is far ahead is not stored at once.
        assert_eq!(highest(&station).is_some(), days < 30);
    }
    Ok(())
}

// Promise: the Date is required then: an answer without one, or with one outside the certificate's validity, is
// refused.
#[test]
fn an_unknown_time_needs_a_date() -> anyhow::Result<()> {
    let cases = [
        (Options { date_header: false, ..issued_in(200) }, "no Date header"),
        (Options { clock_offset: 0, ..issued_in(200) }, "is valid from"),
        (Options { clock_offset: i64::try_from(291 * DAY)?, ..issued_in(200) }, "was valid until"),
    ];
    for (options, says) in cases {
        let station = unit(options)?;
        let run = boot_at(&station, "@1970-01-01 00:00:20")?.ended_with(76)?;
        assert!(run.stderr.contains(says), "{says}: {}", run.stderr);
        assert!(highest(&station).is_none() && !station.inside("run/azaion/token.json").exists());
    }
    Ok(())
}

// Promise: the token is validated against the server's Date, whatever the device's clock says; a single answer that is
// more than 30 days ahead is not stored.
#[test]
fn the_servers_date_tells_the_time() -> anyhow::Result<()> {
    let station = unit(Options { clock_offset: 5 * YEAR, tls: window(10 * 365), ..Options::default() })?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert!(station.json("run/azaion/ready.json").unwrap()["since"].as_str().unwrap() > "2030-");
    assert_eq!(highest(&station), None);
    Ok(())
}

// Promise: one that is less than 30 days ahead is stored at once.
#[test]
fn a_short_step_is_remembered() -> anyhow::Result<()> {
    let station = unit(Options { clock_offset: i64::try_from(20 * DAY)?, tls: window(60), ..Options::default() })?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert!(highest(&station) > Some(in_days(19)?), "{:?}", highest(&station));
    Ok(())
}

// Promise: after an answer with a wrong Date, here 8 years ahead, the right server makes the device ready at once.
#[test]
fn one_wrong_answer_is_harmless() -> anyhow::Result<()> {
    let station = unit(Options { clock_offset: 8 * YEAR, tls: window(10 * 365), ..Options::default() })?;
    station.agent(&["boot"])?.ended_with(0)?;
    std::fs::remove_dir_all(station.inside("run"))?;
    station.api.shift_clock(-8 * YEAR);
    for clock in ["@1970-01-01 00:00:20", "+0"] {
        boot_at(&station, clock)?.ended_with(0)?;
        assert!(station.json("run/azaion/ready.json").unwrap()["since"].as_str() < Some(in_days(1)?.as_str()));
        std::fs::remove_dir_all(station.inside("run"))?;
    }
    assert!(highest(&station) < Some(in_days(1)?));
    Ok(())
}

/// Writes `first-boot.json` as an older agent left it after an answer that was so many days ahead.
fn put_highest(station: &Station, days: u64) -> anyhow::Result<()> {
    let (first, highest) = ("2026-01-01T00:00:00Z", in_days(days)?);
    let record = format!("{{\"version\":1,\"first_ready_at\":\"{first}\",\"highest_time\":\"{highest}\"}}");
    station.put(&format!("rootfs/{FIRST_BOOT}"), record, 0o644)
}

/// Makes a part of `first-boot.json` older, as if so many seconds of boot clock had passed; the rest stays.
fn age(station: &Station, part: &str, seconds: u64) -> anyhow::Result<()> {
    let mut record = station.json(FIRST_BOOT).unwrap();
    assert!(record[part].is_object(), "{record}");
    record[part]["elapsed_s"] = seconds.into();
    station.put(&format!("rootfs/{FIRST_BOOT}"), record.to_string(), 0o644)
}

// Promise: a device with a stored time that is too late, however late and by whatever version it was written, is ready
// with the right server, and answers that keep giving an earlier time for 24 h correct the stored time.
#[test]
fn a_time_that_is_too_late_is_taken_back() -> anyhow::Result<()> {
    for days in [20, 8 * 365] {
        let station = unit(Options { tls: window(10 * 365), ..Options::default() })?;
        put_highest(&station, days)?;
        station.agent(&["boot"])?.ended_with(0)?;
        assert!(highest(&station) > Some(in_days(days - 1)?));
        age(&station, "earlier_claim", DAY)?;
        std::fs::remove_dir_all(station.inside("run"))?;
        station.agent(&["boot"])?.ended_with(0)?;
        assert!(highest(&station) < Some(in_days(2)?), "{:?}", highest(&station));
        assert_eq!(station.json(FIRST_BOOT).unwrap()["first_ready_at"], "2026-01-01T00:00:00Z");
    }
    Ok(())
}

// Promise: the same if that time makes the server's certificate look expired, so that no answer comes: after 6 h the
// part that no two answers confirm is dropped.
#[test]
fn a_time_beyond_the_certificate_is_taken_back() -> anyhow::Result<()> {
    let station = unit(Options { tls: window(60), ..Options::default() })?;
    put_highest(&station, 8 * 365)?;
    boot_at(&station, "+0")?.ended_with(75)?;
    age(&station, "expired_for", 6 * 3600 - 600)?;
    boot_at(&station, "+0")?.ended_with(75)?;
    assert!(highest(&station) > Some(in_days(8 * 364)?));
    age(&station, "expired_for", 6 * 3600)?;
    boot_at(&station, "+0")?.ended_with(75)?;
    assert!(highest(&station) < Some(in_days(61)?), "{:?}", highest(&station));
    boot_at(&station, "+0")?.ended_with(0)?;
    Ok(())
}

// Promise: a step of more than 30 days is stored once two answers confirm it, 24 h of boot clock apart.
#[test]
fn two_answers_that_agree_are_remembered() -> anyhow::Result<()> {
    let station = unit(Options { clock_offset: 5 * YEAR, tls: window(10 * 365), ..Options::default() })?;
    station.agent(&["boot"])?.ended_with(0)?;
    // The server's clock advances with the boot clock.
    for (seconds, is_remembered) in [(DAY / 2, false), (DAY, true)] {
        age(&station, "later_claim", seconds)?;
        station.api.shift_clock(i64::try_from(DAY / 2)?);
        std::fs::remove_dir_all(station.inside("run"))?;
        station.agent(&["boot"])?.ended_with(0)?;
        assert_eq!(highest(&station).is_some_and(|highest| highest.as_str() > "2030-"), is_remembered, "{seconds}");
    }
    Ok(())
}

// Promise: a certificate that has expired by the Date that came with it is refused, even if the device's clock has no
// better time; that time is not stored either.
#[test]
fn a_date_beyond_the_certificate_is_refused() -> anyhow::Result<()> {
    for clock_offset in [5 * YEAR, i64::try_from(61 * DAY)?, -10 * YEAR, -i64::try_from(2 * DAY)?] {
        let station = unit(Options { clock_offset, tls: window(60), ..Options::default() })?;
        for clock in ["@1970-01-01 00:00:20", "+0"] {
            let run = boot_at(&station, clock)?.ended_with(76)?;
            assert!(run.stderr.contains("its clock is wrong, or its certificate has expired"), "{}", run.stderr);
        }
        assert_eq!(highest(&station), None);
        assert!(!station.inside("run/azaion/token.json").exists());
    }
    Ok(())
}

// Promise: nor is a time beyond the token's expiry: the claims count as well.
#[test]
fn a_date_beyond_the_token_is_not_believed() -> anyhow::Result<()> {
    use azaion_tests::dev_api::{BadToken, Fault};
    let station = unit(Options { clock_offset: 5 * YEAR, tls: window(10 * 365), ..Options::default() })?;
    station.api.inject("POST", "/login", Fault::Token(BadToken::Expired(3600)), usize::MAX);
    station.agent(&["boot"])?.ended_with(76)?;
    assert_eq!(highest(&station), None);
    Ok(())
}

// Promise: a Date below the floor is still used as the time, with a certificate that is valid then; the floor itself,
// which has certainly passed, stays.
#[test]
fn a_date_in_the_past_tells_the_time() -> anyhow::Result<()> {
    let now = SystemTime::now();
    let year = Duration::from_secs(365 * DAY);
    let tls = Tls::Window { not_before: now - 20 * year, not_after: now + year };
    let station = unit(Options { clock_offset: -10 * YEAR, tls, ..Options::default() })?;
    let run = station.agent(&["boot"])?.ended_with(0)?;
    assert!(run.stderr.contains("a clock is or was wrong"), "{}", run.stderr);
    assert!(station.json("run/azaion/ready.json").unwrap()["expires_at"].as_str() < Some("2020"));
    assert_eq!(highest(&station), None);
    Ok(())
}

// Promise: an answer without a Date is validated by clock and floor, and no time is stored.
#[test]
fn no_date_at_all() -> anyhow::Result<()> {
    let station = unit(Options { date_header: false, ..Options::default() })?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert_eq!(highest(&station), None);
    Ok(())
}

// Promise: the highest confirmed time is a floor for certificates, on a later boot with a clock at 1970.
#[test]
fn the_remembered_time_is_a_floor() -> anyhow::Result<()> {
    for (days, code) in [(30, 0), (90, 75)] {
        let station = unit(Options { tls: window(60), clock_offset: i64::try_from(30 * DAY)?, ..Options::default() })?;
        put_highest(&station, days)?;
        boot_at(&station, "@1970-01-01 00:00:20")?.ended_with(code)?;
    }
    Ok(())
}
