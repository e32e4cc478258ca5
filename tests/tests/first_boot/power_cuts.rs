//! Power cuts during the first boot.

use std::time::Duration;

use azaion_tests::dev_api::Options;
use azaion_tests::machine::{Boot, Disk, Machine, Unit, pause};
use azaion_tests::schemas;
use rand::RngExt;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use serde_json::Value;

use super::{BOOT, ready, unit};

/// Number of cuts; `AZAION_POWER_CUTS` overrides it.
const TIMES: u32 = 2;

/// Cuts the power of a first boot: alternately at any moment of the boot, and close to the agent's run.
fn cut(unit: &Unit, machine: Machine, turn: u32) {
    let mut random = UnwrapErr(SysRng);
    let moment = if turn.is_multiple_of(2) {
        let before = unit.station.api.calls("POST", "/login");
        while unit.station.api.calls("POST", "/login") == before {
            assert!(machine.age() < BOOT, "no login: {}", machine.console());
            pause(Duration::from_millis(10));
        }
        random.random_range(0..1_500)
    } else {
        random.random_range(3_000..20_000)
    };
    pause(Duration::from_millis(moment));
    println!("power cut {:.1} s after power-on", machine.age().as_secs_f64());
    machine.cut_power();
}

/// Checks that every file on the disk is complete.
fn whole(disk: &Disk) -> anyhow::Result<()> {
    disk.check()?;
    assert_eq!(disk.list("/var/lib/azaion")?, ["first-boot.json", "history.json"]);
    let first: Value = serde_json::from_str(&disk.read("/var/lib/azaion/first-boot.json")?)?;
    assert!(first["first_ready_at"].is_string(), "{first}");
    let history: Value = serde_json::from_str(&disk.read("/var/lib/azaion/history.json")?)?;
    schemas::check("first-boot", &first)?;
    schemas::check("history", &history)?;
    let last = history["changes"].as_array().and_then(|changes| changes.last());
    assert!(last.is_some_and(|change| change["state"] == "ready"), "{history}");
    assert_eq!(disk.list("/etc/azaion")?.len(), 3, "device.conf, agent.toml, ca.pem");
    Ok(())
}

// Promise: whenever the power is cut during the first boot, the next boot from the same disk becomes ready; no file is
// partial, and none exists twice.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn at_any_moment_of_the_first_boot() -> anyhow::Result<()> {
    let times = std::env::var("AZAION_POWER_CUTS").map_or(Ok(TIMES), |times| times.parse())?;
    let unit = unit(Options::default())?;
    for turn in 1..=times {
        let disk = unit.flash()?;
        cut(&unit, disk.boot(&Boot::default())?, turn);
        let mut machine = disk.boot(&Boot::default())?;
        ready(&mut machine)?;
        machine.power_off()?;
        whole(&disk)?;
    }
    assert_eq!(unit.station.api.users().len(), 1);
    Ok(())
}
