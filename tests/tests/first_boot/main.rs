//! Real first boots: an aarch64 machine, its systemd, our package, and the files that the host tool wrote.
//!
//! The tests check the serial console and the API's records. Without root they pass without testing anything; if
//! programs are missing, they print which packages to install.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod clocks;
mod good;
mod journal;
mod loader;
mod matrix;
mod names;
mod network;
mod power_cuts;
mod refused;
mod waiting;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use azaion_tests::dev_api::{DevApi, Options};
use azaion_tests::machine::{Machine, Release, Unit};
use azaion_tests::record;
use azaion_tests::schemas;
use azaion_tests::station::{EMAIL, SERIAL};
use serde_json::Value;

const AGENT: &str = "azaion-agent.service";
/// Longer than a boot takes while this machine is busy with other tests.
const BOOT: Duration = Duration::from_secs(150);

/// Creates a provisioned device with Debian 12.
fn unit(options: Options) -> anyhow::Result<Unit> {
    unit_of(Release::Bookworm, options)
}

fn unit_of(release: Release, options: Options) -> anyhow::Result<Unit> {
    azaion_tests::machine::has_programs()?;
    let unit = Unit::new(release, options)?;
    // From here on, only the device's requests are recorded.
    unit.station.api.forget_requests();
    Ok(unit)
}

/// Waits for the line on the console that says that the device is ready, and checks that all other indicators agree.
fn ready(machine: &mut Machine) -> anyhow::Result<()> {
    machine.wait_for_line(&[SERIAL, "is ready"], BOOT)?;
    let report: Value = serde_json::from_str(&machine.run("cat /run/azaion/ready.json")?)?;
    assert_eq!(report["ready"], true, "{report}");
    schemas::check("ready", &report)?;
    assert_eq!(report["signature"], "verified", "{report}");
    let files = "stat -c '%a %U:%G %n' /run/azaion/* | grep -v lock";
    assert_eq!(
        machine.run(files)?.lines().collect::<Vec<_>>(),
        [
            "644 azaion-agent:azaion /run/azaion/ready.json",
            "600 azaion-agent:azaion /run/azaion/refresh.json",
            "640 azaion-agent:azaion /run/azaion/token.json",
            "660 root:azaion /run/azaion/token.sock"
        ]
    );
    assert_eq!(machine.run("ls -A /var/lib/azaion")?, "first-boot.json\nhistory.json");
    assert_eq!(failed_units(machine)?, "", "{}", machine.run("journalctl -b --no-pager -p warning")?);
    Ok(())
}

/// Checks that the API accepts the token that `azaion-agent token` prints in the machine.
fn token_is_valid(machine: &mut Machine, api: &DevApi) -> anyhow::Result<()> {
    let token = machine.run("azaion-agent token")?;
    record::secret(&token)?;
    record::words(&machine.run("journalctl -b --no-pager")?)?;
    let config = format!("header = \"Authorization: Bearer {token}\"\n");
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--cacert"])
        .arg(api.ca_file())
        .args(["--config", "-", &format!("{}/users/current", api.url())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    curl.stdin.take().expect("curl's input").write_all(config.as_bytes())?;
    let output = curl.wait_with_output()?;
    assert!(output.status.success(), "the API rejects the token");
    assert!(String::from_utf8_lossy(&output.stdout).contains(EMAIL));
    Ok(())
}

/// Checks that the socket returns the cached token.
fn socket_gives_the_token(machine: &mut Machine) -> anyhow::Result<()> {
    let read = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/azaion/token.sock'); print(s.makefile().read())";
    let [given, cached] = [format!("python3 -c \"{read}\""), "cat /run/azaion/token.json".to_owned()]
        .map(|command| anyhow::Ok(serde_json::from_str::<Value>(&machine.run(&command)?)?));
    let (given, cached) = (given?, cached?);
    assert!(given["access_token"].is_string());
    assert!(given == cached, "the socket and token.json differ");
    schemas::check("token", &cached)?;
    Ok(())
}

fn failed_units(machine: &mut Machine) -> anyhow::Result<String> {
    machine.run("systemctl list-units --state=failed --plain --no-legend | cut -d ' ' -f 1")
}

/// Returns a property of a systemd unit.
fn property(machine: &mut Machine, unit: &str, name: &str) -> anyhow::Result<String> {
    machine.run(&format!("systemctl show {unit} -p {name} --value"))
}

/// Returns when a target was reached, in seconds since the kernel's start.
fn reached(machine: &mut Machine, target: &str) -> anyhow::Result<f64> {
    machine.run_until(&format!("systemctl is-active -q {target} && echo reached"), "reached", BOOT)?;
    seconds(machine, target, "ActiveEnterTimestampMonotonic")
}

/// Returns when the agent's last run started and ended, in seconds since the kernel's start.
fn worked(machine: &mut Machine) -> anyhow::Result<(f64, f64)> {
    let start = seconds(machine, AGENT, "ExecMainStartTimestampMonotonic")?;
    Ok((start, seconds(machine, AGENT, "ExecMainExitTimestampMonotonic")?))
}

fn seconds(machine: &mut Machine, unit: &str, name: &str) -> anyhow::Result<f64> {
    Ok(property(machine, unit, name)?.parse::<f64>()? / 1e6)
}
