//! Benchmarks both programs against the procedures without them, on the same server.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use azaion_tests::dev_api::{ADMIN_EMAIL, Hashing, Options};
use azaion_tests::programs;
use azaion_tests::station::{EMAIL, SERIAL, Station, command};

use crate::measure::{Bound, Row, in_turns, peak, time};

const DEVICE_PASSWORD: &str = "abcdefghijklmnopqrstuvwxyz012345";
/// The request body of the manual login.
const LOGIN_BODY: &str = "login.json";

/// The programs as shipped, but built for this machine.
pub(crate) struct Bench {
    provision: PathBuf,
    agent: PathBuf,
}

impl Bench {
    pub(crate) fn new() -> anyhow::Result<Self> {
        eprintln!("building the release programs; the first time takes minutes");
        // Built separately: built together, cargo would unify features that neither ships with.
        for package in ["azaion-provision", "azaion-agent"] {
            programs::build(&["--profile", "station", "-p", package])?;
        }
        let folder = programs::target_dir().join("station");
        Ok(Self { provision: folder.join("azaion-provision"), agent: folder.join("azaion-agent") })
    }

    /// Measures all rows on one server.
    pub(crate) fn rows(&self, hashing: Hashing, rounds: usize) -> anyhow::Result<[Row; 3]> {
        let station = Station::new(Options { hashing, limits: false, ..Options::default() })?;
        station.api.add_user(EMAIL, DEVICE_PASSWORD, "CompanionPC");
        let login = format!(r#"{{"email":"{EMAIL}","password":"{DEVICE_PASSWORD}"}}"#);
        station.put(LOGIN_BODY, login, 0o600)?;

        let provision = in_turns(
            rounds,
            |round| time(self.provision(&station, round)?),
            |round| time(new_script(&station, round)?),
        )?;
        let login = in_turns(rounds, |round| time(self.boot(&station, round)?), |_| time(curl(&station)))?;
        let memory = in_turns(rounds, |round| peak(&self.boot(&station, round)?), |_| peak(&curl(&station)))?;

        let row = |what, unit, (ours, theirs), bound| Row { what, ours, theirs, unit, bound: Bound::Ratio(bound) };
        Ok([
            row("azaion-provision device / script", "ms", provision, 0.5),
            row("azaion-agent boot / curl POST /login", "ms", login, 1.0),
            row("azaion-agent boot / curl, peak memory", "MiB", memory, 1.0),
        ])
    }

    /// Runs `azaion-provision` for a new device.
    fn provision(&self, station: &Station, round: usize) -> anyhow::Result<Command> {
        let (serial, rootfs) = new_device(station, 'P', round)?;
        let owner = if fs::metadata(&rootfs)?.uid() == 0 { "root" } else { "current" };
        let mut command = command(&self.provision, &["device", &serial, "--owner", owner]);
        command.arg("--rootfs").arg(rootfs).args(station.api_arguments());
        Ok(command)
    }

    /// Runs `azaion-agent boot` on a root file system that has never been booted.
    fn boot(&self, station: &Station, round: usize) -> anyhow::Result<Command> {
        let root = format!("boot-{round}");
        if station.path(&root).exists() {
            fs::remove_dir_all(station.path(&root))?;
        }
        let api = station.api.url();
        let conf = format!(
            "AZAION_DEVICE_SERIAL={SERIAL}\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={DEVICE_PASSWORD}\n\
             AZAION_API_URL={api}\nAZAION_PROVISIONED_AT=2026-01-01T00:00:00Z\n"
        );
        let etc = format!("{root}/etc/azaion");
        station.put(&format!("{etc}/device.conf"), conf, 0o600)?;
        station.put(&format!("{etc}/ca.pem"), fs::read(station.api.ca_file())?, 0o644)?;
        station.put(&format!("{etc}/agent.toml"), "ca_file = \"/etc/azaion/ca.pem\"\n", 0o644)?;
        let mut command = command(&self.agent, &["boot", "--root"]);
        command.arg(station.path(&root));
        Ok(command)
    }
}

/// Returns the script's command for this device.
pub(crate) fn script(station: &Station, serial: &str, rootfs: &Path) -> Command {
    let mut command = command(&programs::workspace().join("tests/bench/provision.sh"), &[serial]);
    command
        .arg(rootfs)
        .env("API_URL", station.api.url())
        .env("CA_FILE", station.api.ca_file())
        .env("ADMIN_EMAIL", ADMIN_EMAIL)
        .env("ADMIN_PASSWORD_FILE", station.path("admin-password"));
    command
}

/// Returns a `curl` command that logs the device in.
fn curl(station: &Station) -> Command {
    let mut command = command(Path::new("curl"), &["-fsS", "-o", "/dev/null", "-H", "Content-Type: application/json"]);
    command.arg("--cacert").arg(station.api.ca_file());
    command.arg("-d").arg(format!("@{}", station.path(LOGIN_BODY).display()));
    command.arg(format!("{}/login", station.api.url()));
    command
}

fn new_script(station: &Station, round: usize) -> anyhow::Result<Command> {
    let (serial, rootfs) = new_device(station, 'S', round)?;
    Ok(script(station, &serial, &rootfs))
}

/// Returns an unused serial and an empty root file system for it.
fn new_device(station: &Station, whose: char, round: usize) -> anyhow::Result<(String, PathBuf)> {
    let serial = format!("AZJN-{whose}{round:05}");
    let rootfs = station.path(&serial);
    fs::create_dir_all(rootfs.join("etc"))?;
    Ok((serial, rootfs))
}
