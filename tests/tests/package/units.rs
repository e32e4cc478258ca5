//! The units, as each systemd reads them.

use nix::unistd::geteuid;

use crate::container::run_in;
use crate::tree::{RELEASES, Tree, native_package};

const UNITS: [&str; 6] = [
    "azaion-agent.service",
    "azaion-agent.timer",
    "azaion-catalog.service",
    "azaion-clock.service",
    "azaion-clock.timer",
    "azaion-setup.service",
];
/// What `systemd-analyze security` may say at most.
const EXPOSURE: f64 = 1.5;

// Promise: the units load without a word on systemd 247, 252 and 257, and score 1.5 or better where it can be asked.
#[test]
fn every_systemd_reads_them_in_silence() -> anyhow::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let packages = tempfile::tempdir()?;
    let package = native_package(packages.path(), "1")?;
    for release in RELEASES {
        let tree = Tree::new(release)?;
        tree.unpack(&package)?;
        let (_, version) = run_in(&tree, &["systemd-analyze", "--version"])?;
        let version: u32 = version.split_whitespace().nth(1).unwrap_or_default().parse()?;
        // The tree has no `man`; the pages have a test of their own.
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
