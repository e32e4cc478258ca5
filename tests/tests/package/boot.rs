//! An unpacked package on the first boot of each release.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::Context;
use azaion_tests::dev_api::Options;
use azaion_tests::programs::output;
use azaion_tests::record;
use azaion_tests::schemas;
use azaion_tests::station::{EMAIL, SERIAL, Station, conf_value};

use crate::container::Booted;
use crate::tree::{BOOKWORM, RELEASES, Tree, native_package};

/// Creates a tree with the unpacked package and a provisioned device, and nothing else.
pub(crate) fn provisioned(release: &str, station: &Station) -> anyhow::Result<Tree> {
    let packages = tempfile::tempdir()?;
    let tree = Tree::new(release)?;
    tree.unpack(&native_package(packages.path(), "1")?)?;
    tree.provision(station)?;
    let password = conf_value(&tree.at("/etc/azaion/device.conf"), "AZAION_DEVICE_PASSWORD");
    record::secret(&password.unwrap_or_default())?;
    Ok(tree)
}

/// Creates a host, and boots a tree that was provisioned on it.
pub(crate) fn boot(release: &str) -> anyhow::Result<(Station, Tree, Booted)> {
    let station = Station::new(Options::default())?;
    let tree = provisioned(release, &station)?;
    let booted = Booted::new(&tree)?;
    Ok((station, tree, booted))
}

// Promise: on each systemd an unpacked package makes the device ready in its sandbox: files with their modes and
// groups, one line on the console, STATUS=, the catalog's advice, and the next run within about a minute. The sandbox
// also lets the agent read the board's module.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn an_unpacked_package_makes_the_unit_ready() -> anyhow::Result<()> {
    for release in RELEASES {
        let (_station, _tree, booted) = boot(release)?;
        let show = |property: &str| booted.run(&format!("systemctl show -P {property} azaion-agent.service"));
        assert_eq!(show("ExecMainStatus")?.trim(), "0", "{release}: {}", booted.run("journalctl --no-pager -n 50")?);
        assert_eq!(booted.run("systemctl list-units --failed --no-legend 'azaion*'")?, "", "{release}");
        let files = booted.must("stat -c '%n %a %U:%G' /run/azaion /run/azaion/* /var/lib/azaion/* | LC_ALL=C sort")?;
        let expected = [
            "/run/azaion 755 azaion-agent:azaion",
            "/run/azaion/agent.lock 600 azaion-agent:azaion",
            "/run/azaion/ready.json 644 azaion-agent:azaion",
            "/run/azaion/refresh.json 600 azaion-agent:azaion",
            "/run/azaion/token.json 640 azaion-agent:azaion",
            "/run/azaion/token.sock 660 root:azaion",
            "/var/lib/azaion/first-boot.json 644 azaion-agent:azaion",
            "/var/lib/azaion/history.json 644 azaion-agent:azaion",
        ];
        let files: Vec<&str> = files.lines().collect();
        // Refresh tokens exist only in some generations of the API.
        let expected: Vec<&str> =
            expected.into_iter().filter(|line| !line.contains("refresh") || files.contains(line)).collect();
        assert_eq!(files, expected, "{release}");
        schemas::check_files(&booted.at("/"), |_, _| false).with_context(|| release.to_string())?;
        // The journal forwards the line, which may take a moment.
        booted.wait_for_console("is ready")?;
        let console = booted.console()?;
        let told = console.lines().filter(|line| line.contains(SERIAL) && line.contains("is ready")).count();
        assert_eq!(told, 1, "{release}: {console}");
        assert!(show("StatusText")?.contains("is ready"), "{release}");
        // By identifier: journald cannot determine the unit of a process that has already ended.
        let journal = booted.run("journalctl --no-pager -x -t azaion-agent")?;
        assert!(journal.contains(&format!("valid token of {EMAIL}")), "{release}: {journal}");
        assert!(!journal.contains("can't be switched off"), "{release}: {journal}");
        let timer = booted.run("systemctl show -P NextElapseUSecMonotonic azaion-agent.timer")?;
        assert!(!["", "infinity"].contains(&timer.trim()), "{release}: no next run: {timer:?}");
        sees_its_module(&booted, release)?;
    }
    Ok(())
}

/// Simulates one module after another in the container, at the path below `/sys` where a Jetson's kernel shows it.
fn sees_its_module(booted: &Booted, release: &str) -> anyhow::Result<()> {
    booted.must("echo AZAION_MODULE_SERIAL=1423221050123 >>/etc/azaion/device.conf")?;
    booted.must("mount -t tmpfs none /sys/firmware && mkdir -p /sys/firmware/devicetree/base")?;
    for (module, code) in [("1423221050123", "0"), ("1423221050124", "78"), ("1423221050123", "0")] {
        booted.must(&format!("printf '{module}\\0' >/sys/firmware/devicetree/base/serial-number"))?;
        booted.run("systemctl start azaion-agent.service")?;
        let ended = booted.run("systemctl show -P ExecMainStatus azaion-agent.service")?;
        assert_eq!(ended.trim(), code, "{release}: {}", booted.run("journalctl --no-pager -n 20")?);
        let has_token = booted.run("ls /run/azaion/token.json")?;
        assert_eq!(!has_token.is_empty(), code == "0", "{release}");
    }
    Ok(())
}

// Promise: the group is also created in a root file system that has booted before, where systemd's own service for it
// does nothing; and a default target that conflicts with multi-user.target does not prevent any unit from starting.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_used_root_file_system_will_do() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let tree = provisioned(BOOKWORM, &station)?;
    File::create(tree.at("/etc/.updated"))?;
    output(Command::new("touch").args(["--date", "+1 day"]).arg(tree.at("/etc/.updated")))?;
    let target = "[Unit]\nRequires=basic.target\nAfter=basic.target\nConflicts=multi-user.target\nAllowIsolate=yes\n";
    tree.write("/etc/systemd/system/nv-oem-config.target", target)?;
    symlink("nv-oem-config.target", tree.at("/etc/systemd/system/default.target"))?;
    let booted = Booted::new(&tree)?;
    let sysusers = booted.run("systemctl show -P ConditionResult systemd-sysusers.service")?;
    assert_eq!(sysusers.trim(), "no", "the tree has never booted");
    assert_eq!(booted.run("systemctl is-active multi-user.target")?.trim(), "inactive");
    assert_eq!(booted.must("stat -c %G /run/azaion/token.json")?.trim(), "azaion");
    Ok(())
}

// Promise: systemd sees the exit code of the failure, and the timer continues after it, without a start limit.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_failed_run_is_tried_again() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let tree = provisioned(BOOKWORM, &station)?;
    station.api.set_password(EMAIL, "another-password");
    let booted = Booted::new(&tree)?;
    let status = "systemctl show -P ExecMainStatus azaion-agent.service";
    assert_eq!(booted.run(status)?.trim(), "77");
    assert_eq!(booted.must("cat /run/azaion/ready.json")?.matches("\"ready\":false").count(), 1);
    let calls = station.api.calls("POST", "/login");
    for _ in 0..20 {
        booted.run("systemctl start azaion-agent.service")?;
    }
    assert_eq!(booted.run("systemctl show -P Result azaion-agent.service")?.trim(), "exit-code");
    assert_eq!(booted.run(status)?.trim(), "77");
    assert_eq!(station.api.calls("POST", "/login"), calls, "refused credentials were tried again within the hour");
    assert_eq!(booted.run("systemctl is-active azaion-agent.timer")?.trim(), "active");
    Ok(())
}
