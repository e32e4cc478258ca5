//! What a taken-over agent could do: a probe in its unit, on each release, and the agent itself once root is given up.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::Context;
use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::workspace;
use azaion_tests::station::Station;
use nix::unistd::geteuid;

use crate::boot::provisioned;
use crate::container::Booted;
use crate::tree::{BOOKWORM, RELEASES, Tree};

const AGENT: &str = "azaion-agent.service";
const CONF: &str = "/etc/azaion/device.conf";
/// The journal's `MESSAGE_ID` of a wrong configuration.
const MISCONFIGURED: &str = "3f96d8b27e0c4c19b5e4a80d17f29c05";
/// Before it gives up root, the agent may do this as well: no input but `device.conf`'s name has been read until then.
const BEFORE_ROOT_IS_GIVEN_UP: [&str; 4] = ["kill", "kill-manager", "read/etc/azaion/device.conf", "see-processes"];

/// Secrets of others, and directories that all may write to: what a unit may have that the trees have not.
const OTHERS: &str = "set -e; umask 077
mkdir -p /etc/ssh /etc/NetworkManager/system-connections /etc/wpa_supplicant /etc/netplan /home /srv
mkdir -p /run/NetworkManager/system-connections /run/netplan /run/user /run/resolvconf /run/systemd/resolve
for file in /etc/shadow- /etc/ssh/ssh_host_ed25519_key /etc/NetworkManager/system-connections/wifi.nmconnection \
    /run/NetworkManager/system-connections/wifi.nmconnection /etc/wpa_supplicant/wpa_supplicant.conf /etc/netplan/wifi.yaml \
    /run/netplan/wpa-wlan0.conf /root/secret; do echo secret >$file; done
for folder in /etc/ssh /etc/NetworkManager/system-connections /etc/wpa_supplicant /etc/netplan; do
    echo secret >$folder/open; chmod 0644 $folder/open; chmod 0755 $folder
done
mkdir -p /home/open /mnt/open /run/open /run/user/open /srv/open /var/lib/open
chmod 1777 /home/open /mnt/open /run/open /run/user/open /srv/open /var/lib/open
chmod 0755 /etc/NetworkManager /home /srv /run/NetworkManager /run/netplan /run/user /run/resolvconf /run/systemd/resolve
for file in systemd/resolve/stub-resolv.conf NetworkManager/resolv.conf resolvconf/resolv.conf; do
    echo nameserver 127.0.0.53 >/run/$file; chmod 0644 /run/$file
done
printf '[Service]\nType=oneshot\nExecStart=/bin/true\n' >/run/systemd/system/probed.service
systemctl daemon-reload
systemctl stop azaion-agent.timer";

/// What came of each attempt: whether it was done.
fn attempts(printed: &str) -> anyhow::Result<BTreeMap<String, bool>> {
    let attempt = |line: &str| {
        let (name, outcome) = line.split_once(' ')?;
        Some((name.to_owned(), outcome == "done"))
    };
    printed.lines().map(|line| attempt(line).with_context(|| line.to_owned())).collect()
}

/// Runs the agent's unit to its successful end.
fn start(booted: &Booted) -> anyhow::Result<()> {
    let journal = || booted.run("journalctl --no-pager -n 30");
    booted.must(&format!("systemctl start {AGENT}")).map(drop).with_context(|| journal().unwrap_or_default())
}

/// Runs the probe in the agent's unit, whose `ExecStart=` it replaces and nothing else.
fn probe_in_unit(booted: &Booted, prefix: &str, sleeper: &str) -> anyhow::Result<BTreeMap<String, bool>> {
    let folder = "/run/systemd/system/azaion-agent.service.d";
    let lines =
        format!("[Service]\\nExecStart=\\nExecStart={prefix}/opt/probe {sleeper}\\nStandardOutput=file:/opt/probed\\n");
    booted.must(&format!("mkdir -p {folder} && printf '{lines}' >{folder}/probe.conf && systemctl daemon-reload"))?;
    start(booted)?;
    let printed = booted.must("cat /opt/probed; rm /opt/probed")?;
    booted.must(&format!("rm -r {folder} && systemctl daemon-reload"))?;
    assert_eq!(booted.run("ls /tmp/from-probe /var/tmp/from-probe 2>/dev/null")?, "", "/tmp is not private");
    attempts(&printed)
}

fn names_of<'a>(probed: &'a BTreeMap<String, bool>, is_wanted: impl Fn(&str, bool) -> bool) -> Vec<&'a str> {
    probed.iter().filter(|(name, is_done)| is_wanted(name, **is_done)).map(|(name, _)| name.as_str()).collect()
}

// Promise: on each systemd, what runs in the agent's unit in the agent's place starts no unit, reaches no D-Bus, reads no
// secret of anybody else, writes nowhere but to its own directories, and touches no other process. Each of these attempts
// succeeds for root outside of the unit. The unit as it is becomes ready.
#[test]
fn a_taken_over_agent_is_held_back() -> anyhow::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    for release in RELEASES {
        let station = Station::new(Options::default())?;
        let tree = provisioned(release, &station)?;
        fs::copy(workspace().join("tests/scripts/sandbox-probe.sh"), tree.at("/opt/probe"))?;
        let booted = Booted::new(&tree)?;
        booted.must(OTHERS)?;
        let sleeper = booted.must("setsid sleep 1000 >/dev/null 2>&1 & echo $!")?;

        let probed = probe_in_unit(&booted, "", sleeper.trim())?;
        let succeeded = names_of(&probed, |name, is_done| is_done && !name.starts_with("own-"));
        assert_eq!(succeeded, [""; 0], "{release}: a taken-over agent can do this");
        let failed = names_of(&probed, |name, is_done| !is_done && name.starts_with("own-"));
        assert_eq!(failed, [""; 0], "{release}: the agent needs this");

        let as_root = probe_in_unit(&booted, "!", sleeper.trim())?;
        let succeeded = names_of(&as_root, |name, is_done| is_done && !name.starts_with("own-"));
        assert_eq!(succeeded, BEFORE_ROOT_IS_GIVEN_UP, "{release}");

        let outside = attempts(&booted.must(&format!("/opt/probe {sleeper}"))?)?;
        assert_eq!(names_of(&outside, |_, is_done| !is_done), [""; 0], "{release}: these prove nothing");
        assert!(probed.keys().eq(outside.keys()) && probed.len() > 60, "{}", probed.len());

        booted.must("rm -rf /run/azaion")?;
        start(&booted)?;
        assert!(booted.must("cat /run/azaion/ready.json")?.contains("\"ready\":true"), "{release}");
    }
    Ok(())
}
