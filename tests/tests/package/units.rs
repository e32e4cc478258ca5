//! The systemd units, as each systemd version parses them.

use std::fs;

use azaion_tests::programs::workspace;

use crate::container::run_in;
use crate::tree::{RELEASES, Tree, native_package};

const UNITS: [&str; 8] = [
    "azaion-agent.service",
    "azaion-agent.timer",
    "azaion-agent-token.socket",
    "azaion-agent-token@.service",
    "azaion-catalog.service",
    "azaion-clock.service",
    "azaion-clock.timer",
    "azaion-setup.service",
];
/// Maximum exposure of `systemd-analyze security`.
const EXPOSURE: f64 = 1.5;

// Promise: the units load without warnings on systemd 247, 252 and 257, and score 1.5 or better if the version supports
// the check.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn every_systemd_reads_them_in_silence() -> anyhow::Result<()> {
    let packages = tempfile::tempdir()?;
    let package = native_package(packages.path(), "1")?;
    for release in RELEASES {
        let tree = Tree::new(release)?;
        tree.unpack(&package)?;
        let (_, version) = run_in(&tree, &["systemd-analyze", "--version"])?;
        let version: u32 = version.split_whitespace().nth(1).unwrap_or_default().parse()?;
        // The tree has no `man`; another test checks the pages.
        let (ok, said) = run_in(&tree, &[&["systemd-analyze", "verify", "--man=no"], &UNITS[..]].concat())?;
        assert!(ok && said.is_empty(), "systemd {version}: {said}");
        // `--offline` came with 250.
        if version < 250 {
            continue;
        }
        for unit in UNITS.iter().filter(|unit| unit.ends_with(".service")) {
            let (ok, said) = run_in(&tree, &["systemd-analyze", "security", "--offline=true", "--no-pager", unit])?;
            let exposure = said.split_once("Overall exposure level for ").and_then(|(_, rest)| rest.split(' ').nth(1));
            let exposure: f64 = exposure.unwrap_or_default().parse()?;
            println!("systemd {version}: {unit} {exposure}");
            assert!(ok && exposure <= EXPOSURE, "{said}");
        }
    }
    Ok(())
}

/// The settings in which the timer's service and the socket's per-client service differ: program, duration, rate, and
/// reporting.
const DIFFERENT: [&str; 14] = [
    "Environment",
    "ExecStart",
    "ExecStartPre",
    "LogLevelMax",
    "NotifyAccess",
    "Restart",
    "RestartPreventExitStatus",
    "RestartSec",
    "RuntimeMaxSec",
    "StandardError",
    "StandardInput",
    "StandardOutput",
    "TimeoutStartSec",
    "Type",
];

/// Returns the settings of a unit's section `[Service]`, without comments.
fn settings(unit: &str) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(workspace().join("systemd").join(unit))?;
    let (_, service) = text.split_once("[Service]\n").unwrap_or_default();
    let is_common = |line: &&str| {
        let (key, _) = line.split_once('=').unwrap_or_default();
        !line.starts_with('#') && !key.is_empty() && !DIFFERENT.contains(&key)
    };
    Ok(service.lines().filter(is_common).map(str::to_owned).collect())
}

// Promise: the service for a client of the socket has the same user, directories and sandbox as the agent's service.
#[test]
fn the_sandbox_for_a_client_is_that_of_the_service() -> anyhow::Result<()> {
    let service = settings("azaion-agent.service")?;
    assert!(service.len() > 40, "{service:?}");
    assert_eq!(settings("azaion-agent-token@.service")?, service);
    Ok(())
}
