//! Nothing is in the way.

use std::fs;

use azaion_tests::dev_api::Options;
use azaion_tests::machine::{Boot, Image, Release};

use super::{property, reached, ready, token_is_valid, unit, unit_of, worked};

fn becomes_ready(release: Release) -> anyhow::Result<()> {
    let Some(unit) = unit_of(release, Options::default())? else { return Ok(()) };
    let api = &unit.station.api;
    let disk = unit.flash()?;
    let mut machine = disk.boot(&Boot::default())?;
    ready(&mut machine)?;
    // One login, and nothing that is not needed.
    let asked: Vec<String> = api.requests().iter().map(|call| format!("{} {}", call.method, call.path)).collect();
    assert_eq!(asked, ["POST /login", "GET /.well-known/jwks.json"]);

    let (start, end) = worked(&mut machine)?;
    println!(
        "{release:?}: ready {end:.1} s after the kernel's start, {:.1} s of it the agent's; multi-user.target at {:.1} s",
        end - start,
        reached(&mut machine, "multi-user.target")?
    );
    token_is_valid(&mut machine, api)?;
    machine.power_off()?;
    disk.check()?;
    assert!(disk.read("/var/lib/azaion/first-boot.json")?.contains("first_ready_at"));
    assert_eq!(api.users().len(), 1);
    Ok(())
}

// Promise (AC-3): a unit that was provisioned and flashed becomes ready on its first boot by itself, with one login.
// Debian 12 has systemd 252.
#[test]
fn debian_12() -> anyhow::Result<()> {
    becomes_ready(Release::Bookworm)
}

// Promise: the same with systemd 247.
#[test]
fn debian_11() -> anyhow::Result<()> {
    becomes_ready(Release::Bullseye)
}

// Promise: the same with systemd 257.
#[test]
fn debian_13() -> anyhow::Result<()> {
    becomes_ready(Release::Trixie)
}

// Promise: the same where the host tool wrote into an image that was made before, raw or sparse.
#[test]
fn provisioned_images() -> anyhow::Result<()> {
    for kind in [Image::Raw, Image::Sparse] {
        let Some(unit) = unit(Options::default())? else { return Ok(()) };
        let disk = unit.flash_then_provision(kind)?;
        unit.station.api.forget_requests();
        let mut machine = disk.boot(&Boot::default())?;
        ready(&mut machine)?;
        assert_eq!(
            machine.run("stat -c '%a %u:%g %s' /etc/azaion/device.conf /etc/azaion")?,
            "600 0:0 4096\n755 0:0 4096"
        );
        token_is_valid(&mut machine, &unit.station.api)?;
        machine.power_off()?;
        disk.check()?;
    }
    Ok(())
}

// Promise: a default target that conflicts with multi-user.target, as NVIDIA's set-up dialogue has it, does not hold
// the agent up.
#[test]
fn a_default_target_other_than_multi_user() -> anyhow::Result<()> {
    let Some(unit) = unit(Options::default())? else { return Ok(()) };
    unit.put(
        "etc/systemd/system/nv-oem-config.target",
        "[Unit]\nDescription=Set-up dialogue\nRequires=basic.target\nAfter=basic.target rescue.target\n\
         Conflicts=rescue.service rescue.target multi-user.target\nAllowIsolate=yes\n",
    )?;
    let default = unit.station.inside("etc/systemd/system/default.target");
    fs::remove_file(&default)?;
    std::os::unix::fs::symlink("/etc/systemd/system/nv-oem-config.target", default)?;
    let mut machine = unit.flash()?.boot(&Boot::default())?;
    ready(&mut machine)?;
    reached(&mut machine, "nv-oem-config.target")?;
    assert_eq!(property(&mut machine, "multi-user.target", "ActiveState")?, "inactive");
    Ok(())
}

// Promise: later boots become ready, too; also with a token that ran out while the unit was off, another key and
// another certificate of the server, and another CA that the fleet's policy names by then.
#[test]
fn later_boots() -> anyhow::Result<()> {
    let Some(unit) = unit(Options::default())? else { return Ok(()) };
    let api = &unit.station.api;
    let disk = unit.flash()?;
    let mut machine = disk.boot(&Boot::default())?;
    ready(&mut machine)?;
    machine.power_off()?;
    let first = disk.read("/var/lib/azaion/first-boot.json")?;

    // Twelve hours later, with a clock that knows nothing of them.
    api.shift_clock(12 * 3600);
    let mut machine = disk.boot(&Boot::default())?;
    ready(&mut machine)?;
    token_is_valid(&mut machine, api)?;
    machine.power_off()?;

    api.rotate_keys(false);
    api.renew_certificate(false)?;
    let mut machine = disk.boot(&Boot::default())?;
    ready(&mut machine)?;
    token_is_valid(&mut machine, api)?;
    api.renew_certificate(true)?;
    machine.run(&format!("cat >/etc/azaion/ca.pem <<'PEM'\n{}PEM", fs::read_to_string(api.ca_file())?))?;
    machine.power_off()?;

    let mut machine = disk.boot(&Boot::default())?;
    ready(&mut machine)?;
    token_is_valid(&mut machine, api)?;
    machine.power_off()?;

    let ready_first = |text: &str| -> anyhow::Result<String> {
        Ok(serde_json::from_str::<serde_json::Value>(text)?["first_ready_at"].to_string())
    };
    assert_eq!(ready_first(&disk.read("/var/lib/azaion/first-boot.json")?)?, ready_first(&first)?);
    Ok(())
}
