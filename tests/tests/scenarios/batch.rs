//! `azaion-provision batch`: a list of devices in one run, one module per group of promises.

mod admin;
mod dry_run;
mod examples;
mod failures;
mod interrupted;
mod kind;
mod lists;
mod stations;
mod targets;
mod terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use azaion_tests::dev_api::Options;
use azaion_tests::programs::{Run, Running, output, start};
use azaion_tests::record;
use azaion_tests::station::{Station, command, conf_value};
use kind::Kind;
use serde_json::Value;

const CONF: &str = "etc/azaion/device.conf";

/// A host whose devices each have their own target, copied from a template of the same kind.
struct Line {
    station: Station,
    kind: Kind,
    base: PathBuf,
}

impl Line {
    /// With directories, copied from the host's root file system.
    fn new(options: Options) -> anyhow::Result<Self> {
        let station = Station::new(options)?;
        let line = Self { base: station.rootfs(), kind: Kind::Directory, station };
        fs::create_dir(line.units())?;
        Ok(line)
    }

    /// With targets of this kind.
    fn of(kind: Kind, options: Options) -> anyhow::Result<Self> {
        let mut line = Self::new(options)?;
        (line.kind, line.base) = (kind, line.station.path("base/rootfs"));
        kind.make(&line, &line.base)?;
        Ok(line)
    }

    fn units(&self) -> PathBuf {
        self.station.path("units")
    }

    /// Returns the target of a device.
    fn target(&self, serial: &str) -> PathBuf {
        self.units().join(serial)
    }

    /// Returns the arguments of `batch LIST` with a target for each device, copied from the root file system if
    /// missing.
    fn arguments(&self, list: &str, options: &[&str]) -> Vec<String> {
        let (template, base) = (text(&self.target("{serial}")), text(&self.base));
        let fixed = ["batch", list, "--rootfs", &template, "--base", &base, "--owner", "current"];
        fixed.iter().chain(options).copied().map(str::to_owned).collect()
    }

    fn start(&self, list: &str, options: &[&str]) -> anyhow::Result<Running> {
        let arguments = self.arguments(list, options);
        self.station.start_provision(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn batch(&self, list: &str, options: &[&str]) -> anyhow::Result<Run> {
        self.wait(self.start(list, options)?)
    }

    /// Runs a batch with exactly these arguments and the API options.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<Run> {
        self.wait(self.station.start_provision(&[&["batch"], arguments].concat())?)
    }

    /// Waits for it, and records the secrets that must not appear in its output.
    fn wait(&self, running: Running) -> anyhow::Result<Run> {
        let run = self.station.wait(running)?;
        for unit in fs::read_dir(self.units())? {
            let password = conf_value(&unit?.path().join(CONF), "AZAION_DEVICE_PASSWORD");
            password.map_or(Ok(()), |password| record::secret(&password))?;
        }
        Ok(run)
    }

    /// Checks that the device's file is its own, and that the API accepts it.
    fn is_let_in(&self, serial: &str) -> anyhow::Result<()> {
        self.lets_in(&self.kind.conf(self, &self.target(serial))?, serial)
    }

    fn lets_in(&self, conf: &Path, serial: &str) -> anyhow::Result<()> {
        let value = |key: &str| conf_value(conf, &format!("AZAION_DEVICE_{key}")).unwrap_or_default();
        let (email, password) = (email(serial), value("PASSWORD"));
        ensure!((value("SERIAL"), value("EMAIL")) == (serial.to_owned(), email.clone()), "{} of {serial}", text(conf));
        ensure!(self.station.api.password_is(&email, &password), "the API rejects the password of {serial}");
        record::secret(&password)
    }

    fn created(&self) -> usize {
        self.station.api.calls("POST", "/users")
    }

    fn logins(&self) -> usize {
        self.station.api.calls("POST", "/login")
    }
}

/// Returns the serials `AZJN-{from}` to `AZJN-{to}`, as in a range.
fn serials(from: usize, to: usize) -> Vec<String> {
    (from..=to).map(|number| format!("AZJN-{number:04}")).collect()
}

fn range(from: usize, to: usize) -> String {
    format!("AZJN-{from:04}..AZJN-{to:04}")
}

fn email(serial: &str) -> String {
    format!("azaion-jetson-{}@azaion.com", serial.trim_start_matches("AZJN-").to_lowercase())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Returns the outcome of each device in a run with `--json`, in the order of completion.
fn outcomes(run: &Run) -> anyhow::Result<Vec<(String, String)>> {
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let mut lines = run.json_lines()?;
    lines.pop().context("there is no summary")?;
    Ok(lines.iter().map(|line| (field(line, "serial"), field(line, "outcome"))).collect())
}

/// Runs another program, which must succeed, and returns its output.
fn said(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    output(&mut command(Path::new(program), arguments))
}

/// Runs one of our programs through a shell, where `script` refers to it as `"$@"`.
fn through_shell(script: &str, ours: &Command) -> anyhow::Result<Running> {
    let mut shell = command(Path::new("sh"), &["-c", script, "sh"]);
    start(shell.arg(ours.get_program()).args(ours.get_args()))
}
