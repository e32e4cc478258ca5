//! Services that the agent needs and that start late.

use std::fs;
use std::time::Duration;

use azaion_tests::dev_api::Options;
use azaion_tests::machine::{Boot, pause};

use super::{reached, ready, unit};

// Promise: while the API is down, multi-user.target is reached at most a second later than without the agent.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn an_api_that_is_down_does_not_delay_the_boot() -> anyhow::Result<()> {
    let unit = unit(Options::default())?;
    let boot = || -> anyhow::Result<f64> {
        let disk = unit.flash()?;
        disk.close_api(true)?;
        reached(&mut disk.boot(&Boot { steady: true, ..Boot::default() })?, "multi-user.target")
    };
    let with = boot()?;
    let mut links = 0;
    for target in ["timers.target", "sysinit.target", "basic.target"] {
        let Ok(wants) = fs::read_dir(unit.station.inside(&format!("usr/lib/systemd/system/{target}.wants"))) else {
            continue;
        };
        for link in wants.map(|entry| entry.map(|entry| entry.path())) {
            let link = link?;
            if link.to_string_lossy().contains("/azaion-") {
                fs::remove_file(link)?;
                links += 1;
            }
        }
    }
    assert!(links > 0, "nothing starts the agent");
    let without = boot()?;
    println!("multi-user.target with the agent {with:.2} s after the kernel's start, without it {without:.2} s");
    assert!(with < without + 1.0, "{with:.2} s, and {without:.2} s without the agent");
    Ok(())
}

// Promise: if the API comes up after 40 s, the device becomes ready without intervention; no job of the boot waits for
// it.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn an_api_that_comes_late() -> anyhow::Result<()> {
    let unit = unit(Options::default())?;
    let disk = unit.flash()?;
    disk.close_api(true)?;
    let mut machine = disk.boot(&Boot::default())?;
    let at = reached(&mut machine, "multi-user.target")?;
    println!("the API is down: multi-user.target {at:.1} s after the kernel's start");
    for target in ["multi-user.target", "timers.target", "basic.target"] {
        let before = machine.run(&format!("systemctl list-dependencies --plain --after {target}"))?;
        assert!(!before.contains("azaion-agent.service"), "{before}");
    }
    machine.wait_for_age(Duration::from_secs(40));
    assert!(!machine.console().contains("is ready"));
    disk.close_api(false)?;
    ready(&mut machine)?;
    println!("the API was up after 40 s: ready after {:.0} s", machine.age().as_secs_f64());
    Ok(())
}

// Promise: the agent waits for a network that is 20 s late.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_network_that_comes_late() -> anyhow::Result<()> {
    let unit = unit(Options::default())?;
    let mut machine = unit.flash()?.boot(&Boot { unplugged: true, ..Boot::default() })?;
    reached(&mut machine, "multi-user.target")?;
    pause(Duration::from_secs(20));
    assert_eq!(unit.station.api.requests().len(), 0);
    machine.plug(true)?;
    ready(&mut machine)
}

// Promise: the agent waits if the API's name can't be resolved at first.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_name_that_comes_late() -> anyhow::Result<()> {
    let unit = unit(Options::default())?;
    unit.address("admin.azaion.test")?;
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    reached(&mut machine, "multi-user.target")?;
    pause(Duration::from_secs(10));
    assert_eq!(unit.station.api.requests().len(), 0);
    machine.run("echo '10.0.2.2 admin.azaion.test' >> /etc/hosts")?;
    ready(&mut machine)
}
