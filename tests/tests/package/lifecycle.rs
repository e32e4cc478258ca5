//! Installing, upgrading, removing and purging with dpkg and apt.

use std::fs;
use std::process::Command;

use azaion_tests::dev_api::Options;
use azaion_tests::programs::output;
use azaion_tests::station::Station;

use crate::container::Booted;
use crate::tree::{BOOKWORM, Tree, native_package};

const CONF: &str = "/etc/azaion/device.conf";

// Promise: on a running device apt install starts the agent, an upgrade keeps it running without a new login and keeps
// an admin's decision to disable it, remove deletes the token, and purge deletes all but the credentials, which are
// deleted on request.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn apt_manages_a_running_unit() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let tree = Tree::new(BOOKWORM)?;
    tree.provision(&station)?;
    for version in ["1", "2", "3"] {
        native_package(&tree.at("/opt"), version)?;
    }
    let booted = Booted::new(&tree)?;
    let install = |version: &str| booted.must(&format!("apt-get install -y -q /opt/azaion-agent_{version}_*.deb"));
    let timer = || anyhow::Ok(booted.run("systemctl is-active azaion-agent.timer")?.trim().to_owned());
    let socket = || anyhow::Ok(booted.run("systemctl is-active azaion-agent-token.socket")?.trim().to_owned());
    let is_there = |path: &str| anyhow::Ok(!booted.run(&format!("ls -d {path} 2>/dev/null"))?.is_empty());
    let is_ready = || booted.wait_for("grep -c '\"ready\":true' /run/azaion/ready.json", "1");

    install("1")?;
    is_ready()?;
    assert_eq!(booted.must("stat -c '%a %U:%G' /run/azaion/token.json")?.trim(), "640 azaion-agent:azaion");
    assert_eq!(timer()?, "active");
    assert!(booted.must("journalctl --list-catalog")?.contains("The device @AZAION_SERIAL@ is ready"));
    assert_eq!(booted.must("dpkg --verify azaion-agent")?, "");
    assert_eq!(booted.must("stat -c '%F %a %U:%G' /run/azaion/token.sock")?.trim(), "socket 660 root:azaion");

    let logins = station.api.calls("POST", "/login");
    install("2")?;
    booted.wait_for("systemctl is-active azaion-agent.service", "inactive")?;
    assert_eq!((timer()?.as_str(), station.api.calls("POST", "/login")), ("active", logins));
    assert_eq!(socket()?, "active");
    is_ready()?;

    booted.must("systemctl mask --now azaion-agent.timer azaion-agent-token.socket")?;
    install("3")?;
    // Not "inactive": systemd calls a timer that is masked while it runs a failed one.
    assert_ne!(timer()?, "active");
    assert_ne!(socket()?, "active");
    booted.must("systemctl unmask azaion-agent.timer azaion-agent-token.socket")?;

    booted.must("touch /run/azaion/.autopilot.new && apt-get remove -y -q azaion-agent")?;
    // Only another program's file is left.
    assert_eq!(booted.must("ls -A /run/azaion")?, ".autopilot.new\n");
    booted.must("rm -r /run/azaion")?;
    assert!(!is_there("/usr/bin/azaion-agent")?);
    assert!(is_there("/var/lib/azaion")? && is_there(CONF)?);
    assert_eq!(booted.run("systemctl list-units --all --no-legend 'azaion-agent*'")?, "");

    install("1")?;
    is_ready()?;
    booted.must("apt-get purge -y -q azaion-agent")?;
    assert!(!is_there("/run/azaion")? && !is_there("/var/lib/azaion")? && is_there(CONF)?);

    install("2")?;
    is_ready()?;
    booted.must("rm /etc/azaion/ca.pem; AZAION_PURGE_CREDENTIALS=yes apt-get purge -y -q azaion-agent")?;
    assert!(!is_there("/etc/azaion")?);
    Ok(())
}

// Promise: in a root file system under construction, dpkg installs and removes the package and changes only its files:
// no group, no unit and no daemon there.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn dpkg_in_a_chroot_leaves_only_its_files() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let tree = Tree::new(BOOKWORM)?;
    tree.provision(&station)?;
    let package = native_package(&tree.at("/opt"), "1")?;
    let before = tree.listing("/etc")?;
    let conf = fs::read(tree.at(CONF))?;
    let package = package.strip_prefix(tree.path())?.display().to_string();
    for (verb, what) in [("--install", package.as_str()), ("--remove", "azaion-agent"), ("--purge", "azaion-agent")] {
        let said = output(Command::new("chroot").arg(tree.path()).args(["dpkg", verb, what]))?;
        assert!(!said.contains("systemctl") && !said.contains("Failed"), "{said}");
        let changed: Vec<String> = tree.listing("/etc")?.into_iter().filter(|line| !before.contains(line)).collect();
        assert_eq!(changed, [""; 0], "{verb} changed /etc");
    }
    assert!(fs::read(tree.at(CONF))? == conf, "device.conf was touched");
    assert!(!tree.at("/usr/bin/azaion-agent").exists());
    Ok(())
}
