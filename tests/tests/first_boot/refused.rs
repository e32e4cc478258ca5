//! What only a person can mend.

use std::collections::HashSet;

use azaion_tests::dev_api::{DevApi, Options};
use azaion_tests::machine::{Boot, Machine, Unit};
use azaion_tests::station::EMAIL;

use super::{AGENT, BOOT, failed_units, property, reached, unit};

/// Waits for the agent's failure with this code, and the boot's end; nothing else may have failed. Then its journal
/// entry, with the text of the catalog.
fn failed_with(machine: &mut Machine, code: &str) -> anyhow::Result<String> {
    machine.run_until(&format!("systemctl show {AGENT} -p ExecMainStatus"), &format!("={code}"), BOOT)?;
    reached(machine, "multi-user.target")?;
    assert_eq!(failed_units(machine)?, AGENT);
    let report = machine.run("cat /run/azaion/ready.json")?;
    assert!(report.contains("\"ready\":false") && report.contains(code), "{report}");
    machine.run("journalctl --update-catalog && journalctl -b -x --no-pager -t azaion-agent")
}

/// A unit whose account was spoilt, and its machine after the first run, which says what to do.
fn refused(spoil: impl FnOnce(&DevApi)) -> anyhow::Result<Option<(Unit, Machine)>> {
    let Some(unit) = unit(Options { limits: true, ..Options::default() })? else { return Ok(None) };
    spoil(&unit.station.api);
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    let words = failed_with(&mut machine, "77")?;
    assert!(words.contains("provision the unit again"), "{words}");
    Ok(Some((unit, machine)))
}

/// Whether the credentials were tried once, however many runs there were, and the account is still open to its owner.
fn tried_once(unit: &Unit, machine: &mut Machine) -> anyhow::Result<()> {
    failed_with(machine, "77")?;
    let api = &unit.station.api;
    assert_eq!((api.calls("POST", "/login"), api.is_locked(EMAIL)), (1, false));
    Ok(())
}

// Promise: a wrong password ends in 77 and says what to do; later runs do not try it again, so the account is never
// locked; nothing else of the boot fails.
#[test]
fn a_wrong_password() -> anyhow::Result<()> {
    let spoil = |api: &DevApi| api.set_password(EMAIL, "another-than-the-units");
    let Some((unit, mut machine)) = refused(spoil)? else { return Ok(()) };
    // The timer runs it again a minute later.
    let first = property(&mut machine, AGENT, "ExecMainStartTimestampMonotonic")?;
    let again = format!("systemctl show {AGENT} -p ExecMainStartTimestampMonotonic | grep -v {first} | grep -v '=0$'");
    machine.run_until(&again, "=", BOOT)?;
    tried_once(&unit, &mut machine)
}

// Promise: a disabled account ends in 77, too, and is tried once in ten minutes of the timer's runs.
#[test]
fn a_disabled_user() -> anyhow::Result<()> {
    let Some((unit, mut machine)) = refused(|api| api.disable(EMAIL, true))? else { return Ok(()) };
    let mut runs = HashSet::from([property(&mut machine, AGENT, "InvocationID")?]);
    // As many as the timer starts in ten minutes.
    while runs.len() <= 10 {
        let (code, said) = machine.attempt(&format!("systemctl start {AGENT}"))?;
        assert_ne!(code, 0, "{said}");
        runs.insert(property(&mut machine, AGENT, "InvocationID")?);
    }
    tried_once(&unit, &mut machine)
}

// Promise: a broken device.conf ends in 78, names file and line, and asks nobody; nothing else of the boot fails.
#[test]
fn a_broken_device_conf() -> anyhow::Result<()> {
    let Some(unit) = unit(Options::default())? else { return Ok(()) };
    unit.station.put("rootfs/etc/azaion/device.conf", "AZAION_DEVICE_EMAIL=x@azaion.com\nno key\n", 0o600)?;
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    let words = failed_with(&mut machine, "78")?;
    assert!(words.contains("/etc/azaion/device.conf:2"), "{words}");
    assert_eq!(unit.station.api.requests().len(), 0);
    Ok(())
}
