//! Failures that only a person can fix.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use azaion_tests::dev_api::{DevApi, Options};
use azaion_tests::machine::{Boot, Machine, Unit};
use azaion_tests::station::EMAIL;

use super::{AGENT, BOOT, failed_units, property, reached, ready, token_is_valid, unit};

/// Waits for the agent's failure with this code and the end of the boot; nothing else may have failed. Returns its
/// journal entry with the catalog text.
fn failed_with(machine: &mut Machine, code: &str) -> anyhow::Result<String> {
    machine.run_until(&format!("systemctl show {AGENT} -p ExecMainStatus"), &format!("={code}"), BOOT)?;
    reached(machine, "multi-user.target")?;
    assert_eq!(failed_units(machine)?, AGENT);
    let report = machine.run("cat /run/azaion/ready.json")?;
    assert!(report.contains("\"ready\":false") && report.contains(code), "{report}");
    machine.run("journalctl --update-catalog && journalctl -b -x --no-pager -t azaion-agent")
}

/// Creates a device whose account was broken, and its machine after the first run, which logs what to do.
fn refused(spoil: impl FnOnce(&DevApi)) -> anyhow::Result<(Unit, Machine)> {
    let unit = unit(Options { limits: true, ..Options::default() })?;
    spoil(&unit.station.api);
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    let words = failed_with(&mut machine, "77")?;
    assert!(words.contains("provision the device again"), "{words}");
    Ok((unit, machine))
}

// Promise: a wrong password ends in 77 and the message says what to do; nothing else of the boot fails. The timer's
// next run, a minute later, tries a second time, because this device was never ready: if the account has been fixed by
// then, the device becomes ready without intervention.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_wrong_password() -> anyhow::Result<()> {
    let spoil = |api: &DevApi| api.set_password(EMAIL, "another-than-the-units");
    let (unit, mut machine) = refused(spoil)?;
    let api = &unit.station.api;
    assert_eq!(api.calls("POST", "/login"), 1);
    api.set_password(EMAIL, &unit.station.password().context("the device's password")?);
    ready(&mut machine)?;
    assert_eq!((api.calls("POST", "/login"), api.is_locked(EMAIL)), (2, false));
    token_is_valid(&mut machine, api)
}

// Promise: a disabled account ends in 77, too. However many runs there are, the login is tried a second time after a
// minute at the earliest, and a third time no earlier than five minutes later; the account is never locked.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_disabled_user() -> anyhow::Result<()> {
    let (unit, mut machine) = refused(|api| api.disable(EMAIL, true))?;
    let mut runs = HashSet::from([property(&mut machine, AGENT, "InvocationID")?]);
    // As many as the timer starts in ten minutes.
    while runs.len() <= 10 {
        let (code, said) = machine.attempt(&format!("systemctl start {AGENT}"))?;
        assert_ne!(code, 0, "{said}");
        runs.insert(property(&mut machine, AGENT, "InvocationID")?);
    }
    failed_with(&mut machine, "77")?;
    let api = &unit.station.api;
    let calls: Vec<_> = api.requests().into_iter().filter(|call| call.path == "/login").map(|call| call.at).collect();
    assert!(calls.len() <= 2 && calls.windows(2).all(|pair| pair[1] - pair[0] > Duration::from_secs(59)), "{calls:?}");
    assert!(!api.is_locked(EMAIL));
    Ok(())
}

// Promise: a broken device.conf ends in 78, with file and line in the message, and without a prompt; nothing else of
// the boot fails.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_broken_device_conf() -> anyhow::Result<()> {
    let unit = unit(Options::default())?;
    unit.station.put("rootfs/etc/azaion/device.conf", "AZAION_DEVICE_EMAIL=x@azaion.com\nno key\n", 0o600)?;
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    let words = failed_with(&mut machine, "78")?;
    assert!(words.contains("/etc/azaion/device.conf:2"), "{words}");
    assert_eq!(unit.station.api.requests().len(), 0);
    Ok(())
}
