//! What only a person can mend.

use azaion_tests::dev_api::Options;
use azaion_tests::machine::{Boot, Machine};
use azaion_tests::station::EMAIL;

use super::{BOOT, failed_units, property, unit};

const AGENT: &str = "azaion-agent.service";

/// Waits for the agent's failure with this code; nothing else may have failed. Then its journal entry, with the text
/// of the catalog.
fn failed_with(machine: &mut Machine, code: &str) -> anyhow::Result<String> {
    machine.run_until(&format!("systemctl show {AGENT} -p ExecMainStatus"), &format!("={code}"), BOOT)?;
    assert_eq!(failed_units(machine)?, AGENT);
    let report = machine.run("cat /run/azaion/ready.json")?;
    assert!(report.contains("\"ready\":false") && report.contains(code), "{report}");
    machine.run("journalctl --update-catalog && journalctl -b -x --no-pager -t azaion-agent")
}

// Promise: a wrong password ends in 77 and says what to do; later runs do not try it again, so the account is never
// locked; nothing else of the boot fails.
#[test]
fn a_wrong_password() -> anyhow::Result<()> {
    let Some(unit) = unit(Options { limits: true, ..Options::default() })? else { return Ok(()) };
    let api = &unit.station.api;
    api.set_password(EMAIL, "another-than-the-units");
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    let words = failed_with(&mut machine, "77")?;
    assert!(words.contains("provision the unit again"), "{words}");
    // The timer runs it again a minute later.
    let first = property(&mut machine, AGENT, "ExecMainStartTimestampMonotonic")?;
    let again = format!("systemctl show {AGENT} -p ExecMainStartTimestampMonotonic | grep -v {first} | grep -v '=0$'");
    machine.run_until(&again, "=", BOOT)?;
    failed_with(&mut machine, "77")?;
    assert_eq!((api.calls("POST", "/login"), api.is_locked(EMAIL)), (1, false));
    Ok(())
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
