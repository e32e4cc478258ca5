//! What a compromised agent could do: a probe in its unit, on each release, and the agent itself after it has dropped
//! root.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;
use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::workspace;
use azaion_tests::station::Station;

use crate::boot::{boot, provisioned};
use crate::container::Booted;
use crate::tree::{BOOKWORM, RELEASES};

const AGENT: &str = "azaion-agent.service";
const CONF: &str = "/etc/azaion/device.conf";
/// The journal's `MESSAGE_ID` of a wrong configuration.
const MISCONFIGURED: &str = "3f96d8b27e0c4c19b5e4a80d17f29c05";
/// Permitted only before the agent drops root: until then it has read no input except the name of `device.conf`.
const BEFORE_ROOT_IS_GIVEN_UP: [&str; 4] = ["kill", "kill-manager", "read/etc/azaion/device.conf", "see-processes"];

/// The other units run a program of systemd as root, without input from others, or make one kernel query as the agent's
/// user. The list has the paths of the probe that each may write; none may start a program or reach a bus.
const OTHER_UNITS: [(&str, &[&str]); 3] = [
    ("azaion-catalog.service", &[]),
    ("azaion-clock.service", &[]),
    ("azaion-setup.service", &["write/etc", "write/etc/azaion"]),
];
const STARTS_OR_WRITES: [&str; 4] = ["systemctl", "systemd-run", "bus-", "write/"];

/// Creates secrets of others and world-writable directories: entries that a device may have and the trees lack.
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

/// Parses the result of each attempt: whether it succeeded.
fn attempts(printed: &str) -> anyhow::Result<BTreeMap<String, bool>> {
    let attempt = |line: &str| {
        let (name, outcome) = line.split_once(' ')?;
        Some((name.to_owned(), outcome == "done"))
    };
    printed.lines().map(|line| attempt(line).with_context(|| line.to_owned())).collect()
}

/// Runs the agent's unit, which must succeed.
fn start(booted: &Booted) -> anyhow::Result<()> {
    let journal = || booted.run("journalctl --no-pager -n 30");
    booted.must(&format!("systemctl start {AGENT}")).map(drop).with_context(|| journal().unwrap_or_default())
}

/// Runs the probe in one of our units, with only `ExecStart=` replaced.
fn probe_in_unit(booted: &Booted, unit: &str, prefix: &str, sleeper: &str) -> anyhow::Result<BTreeMap<String, bool>> {
    let folder = format!("/run/systemd/system/{unit}.d");
    let lines =
        format!("[Service]\\nExecStart=\\nExecStart={prefix}/opt/probe {sleeper}\\nStandardOutput=file:/opt/probed\\n");
    booted.must(&format!("mkdir -p {folder} && printf '{lines}' >{folder}/probe.conf && systemctl daemon-reload"))?;
    booted.must(&format!("systemctl restart {unit}"))?;
    let printed = booted.must("cat /opt/probed; rm /opt/probed")?;
    booted.must(&format!("rm -r {folder} && systemctl daemon-reload"))?;
    assert_eq!(booted.run("ls /tmp/from-probe /var/tmp/from-probe 2>/dev/null")?, "", "{unit}: /tmp is not private");
    attempts(&printed)
}

/// Returns the attempts for which `is_wanted` holds, by name and success.
fn names_of(probed: &BTreeMap<String, bool>, is_wanted: impl Fn(&str, bool) -> bool) -> Vec<&str> {
    probed.iter().filter(|(name, is_done)| is_wanted(name, **is_done)).map(|(name, _)| name.as_str()).collect()
}

// Promise: on each systemd, a program in the agent's unit in place of the agent starts no unit, reaches no D-Bus, reads
// no secret of others, writes only to its own directories, and affects no other process. Each of these attempts
// succeeds for root outside the unit. The unmodified unit becomes ready.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_taken_over_agent_is_held_back() -> anyhow::Result<()> {
    for release in RELEASES {
        let (_station, tree, booted) = boot(release)?;
        fs::copy(workspace().join("tests/scripts/sandbox-probe.sh"), tree.at("/opt/probe"))?;
        booted.must(OTHERS)?;
        let sleeper = booted.must("setsid sleep 1000 >/dev/null 2>&1 & echo $!")?;

        let probed = probe_in_unit(&booted, AGENT, "", sleeper.trim())?;
        let succeeded = names_of(&probed, |name, is_done| is_done && !name.starts_with("own-"));
        assert_eq!(succeeded, [""; 0], "{release}: a compromised agent can do this");
        let failed = names_of(&probed, |name, is_done| !is_done && name.starts_with("own-"));
        assert_eq!(failed, [""; 0], "{release}: the agent needs this");

        let as_root = probe_in_unit(&booted, AGENT, "!", sleeper.trim())?;
        let succeeded = names_of(&as_root, |name, is_done| is_done && !name.starts_with("own-"));
        assert_eq!(succeeded, BEFORE_ROOT_IS_GIVEN_UP, "{release}");

        for (unit, may) in OTHER_UNITS {
            let probed = probe_in_unit(&booted, unit, "", sleeper.trim())?;
            let succeeded = names_of(&probed, |name, is_done| {
                is_done && STARTS_OR_WRITES.iter().any(|start| name.starts_with(start))
            });
            assert_eq!(succeeded, may, "{release}: {unit}");
        }

        let outside = attempts(&booted.must(&format!("/opt/probe {sleeper}"))?)?;
        assert_eq!(names_of(&outside, |_, is_done| !is_done), [""; 0], "{release}: these prove nothing");
        assert!(probed.keys().eq(outside.keys()) && probed.len() > 60, "{}", probed.len());

        booted.must("rm -rf /run/azaion")?;
        start(&booted)?;
        assert!(booted.must("cat /run/azaion/ready.json")?.contains("\"ready\":true"), "{release}");
    }
    Ok(())
}

// Promise: on each systemd the agent in its unit, while it waits for an answer, is no longer root in any respect and
// has no capability; a wrong configuration ends it with 78 and an entry in the journal; files of a release that ran as
// root do not block it; and started manually by root it leaves no file that the unit could not use.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn the_agent_is_a_user_of_its_own() -> anyhow::Result<()> {
    for release in RELEASES {
        let (station, _tree, booted) = boot(release)?;
        booted.must("systemctl stop azaion-agent.timer")?;
        waits_without_rights(&station, &booted).context(release)?;
        ends_with_78(&booted).context(release)?;
        takes_over_older_files(&booted).context(release)?;
        is_the_same_by_hand(&booted).context(release)?;
        works_without_user_namespaces(&booted).context(release)?;
    }
    Ok(())
}

fn waits_without_rights(station: &Station, booted: &Booted) -> anyhow::Result<()> {
    booted.must("rm -rf /run/azaion")?;
    station.api.forget_requests();
    station.api.inject("POST", "/login", Fault::Hang, usize::MAX);
    booted.must(&format!("systemctl start --no-block {AGENT}"))?;
    let main = format!("systemctl show -P MainPID {AGENT}");
    while station.api.calls("POST", "/login") == 0 {
        booted.wait_for(&format!("systemctl is-active {AGENT}"), "activating")?;
    }
    let status = booted.must(&format!("cat /proc/$({main})/status"))?;
    let ids = booted.must("id -u azaion-agent; getent group azaion | cut -d : -f 3")?;
    let [uid, gid] = ids.lines().collect::<Vec<_>>()[..] else { anyhow::bail!("{ids}") };
    let is = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap_or("missing").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!((is("Uid"), is("Gid")), ([uid; 4].join(" "), [gid; 4].join(" ")));
    assert!(["", gid].contains(&is("Groups").as_str()), "{}", is("Groups"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(is(set), "0000000000000000", "{set}");
    }
    // CAP_SETGID and CAP_SETUID, which nothing can restore: there are no new privileges.
    assert_eq!((is("CapBnd").as_str(), is("NoNewPrivs").as_str()), ("00000000000000c0", "1"));
    booted.must(&format!("systemctl stop {AGENT}"))?;
    station.api.clear_faults();
    Ok(())
}

fn ends_with_78(booted: &Booted) -> anyhow::Result<()> {
    let spoilt = [
        ("mv {conf} /etc/conf", "mv /etc/conf {conf}", "is missing"),
        ("chmod 0644 {conf}", "chmod 0600 {conf}", "has mode 0644"),
        (
            "chmod 0600 /etc/azaion/agent.toml",
            "chmod 0644 /etc/azaion/agent.toml",
            "agent.toml (it is not read as root: chmod",
        ),
        ("chmod 0600 /etc/azaion/ca.pem", "chmod 0644 /etc/azaion/ca.pem", "ca.pem (it is not read as root: chmod"),
    ];
    for (spoil, mend, says) in spoilt {
        booted.must("rm -rf /run/azaion; journalctl --rotate --vacuum-time=1s >/dev/null 2>&1; sleep 1.1")?;
        booted.must(&spoil.replace("{conf}", CONF))?;
        booted.run(&format!("systemctl start {AGENT}"))?;
        let ended = booted.run(&format!("systemctl show -P ExecMainStatus {AGENT}"))?;
        assert_eq!(ended.trim(), "78", "{spoil}: {}", booted.run("journalctl --no-pager -n 20")?);
        let entries = booted.must(&format!("journalctl --no-pager --since -1s MESSAGE_ID={MISCONFIGURED}"))?;
        assert!(entries.contains(says), "{spoil}: {entries}");
        assert!(booted.must("cat /run/azaion/ready.json")?.contains("\"code\":78"), "{spoil}");
        booted.must(&mend.replace("{conf}", CONF))?;
    }
    start(booted)
}

/// Checks that the agent's user owns its files, and no others. The socket belongs to systemd.
fn belong_to_the_agent(booted: &Booted) -> anyhow::Result<()> {
    let files = "/run/azaion /run/azaion/*.json /run/azaion/*.lock /var/lib/azaion /var/lib/azaion/*";
    let owners = booted.must(&format!("stat -c %U:%G {files} | sort -u"))?;
    assert_eq!(owners, "azaion-agent:azaion\n", "{}", booted.run("ls -l /run/azaion /var/lib/azaion")?);
    Ok(())
}

fn takes_over_older_files(booted: &Booted) -> anyhow::Result<()> {
    // Releases that ran as root kept no history.
    let old = "rm -f /var/lib/azaion/history.json && chown -R root:root /run/azaion/* /var/lib/azaion && \
               chown root:azaion /run/azaion/token.json";
    // After an upgrade the directories belong to root, too. While a run of the old agent ends, they already belong to
    // the new one.
    for directory in ["root:azaion", "azaion-agent:azaion"] {
        booted.must(&format!("{old} && chown {directory} /run/azaion /var/lib/azaion"))?;
        let renewed = "sed -i 's/\"lifetime_s\":[0-9]*/\"lifetime_s\":0/' /run/azaion/token.json";
        booted.must(renewed)?;
        start(booted)?;
        assert!(booted.must("cat /run/azaion/ready.json")?.contains("\"ready\":true"));
        belong_to_the_agent(booted)?;
    }
    Ok(())
}

fn is_the_same_by_hand(booted: &Booted) -> anyhow::Result<()> {
    for line in ["azaion-agent token", "azaion-agent status --login", "azaion-agent boot --now", "azaion-agent status"]
    {
        for before in ["rm -rf /run/azaion /var/lib/azaion", "chown -R root:root /run/azaion /var/lib/azaion", "true"] {
            if line == "azaion-agent status" && before.starts_with("rm") {
                continue;
            }
            booted.must(&format!("{before}; {line} >/dev/null")).context(line)?;
            belong_to_the_agent(booted)?;
        }
    }
    start(booted)
}

/// Uses the manual's drop-in for kernels without user namespaces.
fn works_without_user_namespaces(booted: &Booted) -> anyhow::Result<()> {
    let folder = "/run/systemd/system/azaion-agent.service.d";
    booted.must(&format!(
        "mkdir -p {folder} && printf '[Service]\nPrivateUsers=no\n' >{folder}/users.conf && systemctl daemon-reload"
    ))?;
    booted.must("rm -rf /run/azaion")?;
    start(booted)?;
    belong_to_the_agent(booted)
}

// Promise: while the user cannot be created, the unit reports it and is retried; once the user exists, the device
// becomes ready, and the socket exists.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn without_its_user_it_is_tried_again() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let tree = provisioned(BOOKWORM, &station)?;
    fs::create_dir_all(tree.at("/etc/systemd/system/azaion-setup.service.d"))?;
    tree.write(
        "/etc/systemd/system/azaion-setup.service.d/fails.conf",
        "[Service]\nExecStartPre=/bin/sh -c 'test -e /run/mended'\n",
    )?;
    // systemd's own service would create it as well.
    std::os::unix::fs::symlink("/dev/null", tree.at("/etc/systemd/system/systemd-sysusers.service"))?;
    let booted = Booted::new(&tree)?;
    let status = format!("systemctl show -P ExecMainStatus {AGENT}");
    // EXIT_USER of systemd.exec(5).
    assert_eq!(booted.must(&status)?.trim(), "217");
    let timer = booted.run("systemctl show -P NextElapseUSecMonotonic azaion-agent.timer")?;
    assert!(!["", "infinity"].contains(&timer.trim()), "no next run: {timer:?}");
    booted.must("touch /run/mended")?;
    start(&booted)?;
    assert_eq!(booted.must(&status)?.trim(), "0");
    // The socket needs the group, too, so it could not start.
    booted.wait_for("stat -c '%F %a %U:%G' /run/azaion/token.sock", "socket 660 root:azaion")
}
