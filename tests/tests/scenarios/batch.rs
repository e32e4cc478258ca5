//! `azaion-provision batch`: a list of units in one run, told by what it promises.

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

/// A station whose units each have a target of their own, copied from a base of the same kind.
struct Line {
    station: Station,
    kind: Kind,
    base: PathBuf,
}

impl Line {
    /// Of folders, copied from the station's root file system.
    fn new(options: Options) -> anyhow::Result<Self> {
        let station = Station::new(options)?;
        let line = Self { base: station.rootfs(), kind: Kind::Directory, station };
        fs::create_dir(line.units())?;
        Ok(line)
    }

    /// Of targets of this kind.
    fn of(kind: Kind, options: Options) -> anyhow::Result<Self> {
        let mut line = Self::new(options)?;
        (line.kind, line.base) = (kind, line.station.path("base/rootfs"));
        kind.make(&line, &line.base)?;
        Ok(line)
    }

    fn units(&self) -> PathBuf {
        self.station.path("units")
    }

    /// The target of a unit.
    fn target(&self, serial: &str) -> PathBuf {
        self.units().join(serial)
    }

    /// `batch LIST` with a target of the folder for each unit, and what is missing copied from the root file system.
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

    /// A batch with exactly these arguments and those that reach the API.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<Run> {
        self.wait(self.station.start_provision(&[&["batch"], arguments].concat())?)
    }

    /// Waits for it, and notes what must not have been said.
    fn wait(&self, running: Running) -> anyhow::Result<Run> {
        let run = self.station.wait(running)?;
        for unit in fs::read_dir(self.units())? {
            let password = conf_value(&unit?.path().join(CONF), "AZAION_DEVICE_PASSWORD");
            password.map_or(Ok(()), |password| record::secret(&password))?;
        }
        Ok(run)
    }

    /// Fails unless the unit's file is its own and lets it in.
    fn is_let_in(&self, serial: &str) -> anyhow::Result<()> {
        self.lets_in(&self.kind.conf(self, &self.target(serial))?, serial)
    }

    fn lets_in(&self, conf: &Path, serial: &str) -> anyhow::Result<()> {
        let value = |key: &str| conf_value(conf, &format!("AZAION_DEVICE_{key}")).unwrap_or_default();
        let (email, password) = (email(serial), value("PASSWORD"));
        ensure!((value("SERIAL"), value("EMAIL")) == (serial.to_owned(), email.clone()), "{} of {serial}", text(conf));
        ensure!(self.station.api.password_is(&email, &password), "the password of {serial} does not let it in");
        record::secret(&password)
    }

    fn created(&self) -> usize {
        self.station.api.calls("POST", "/users")
    }

    fn logins(&self) -> usize {
        self.station.api.calls("POST", "/login")
    }
}

/// The serials `AZJN-{from}` to `AZJN-{to}`, as in a range.
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

/// The outcome of each unit in a run with `--json`, in the order of their ends.
fn outcomes(run: &Run) -> anyhow::Result<Vec<(String, String)>> {
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let mut lines = run.json_lines()?;
    lines.pop().context("there is no summary")?;
    Ok(lines.iter().map(|line| (field(line, "serial"), field(line, "outcome"))).collect())
}

/// Runs somebody else's program to its successful end; what it says.
fn said(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    output(&mut command(Path::new(program), arguments))
}

/// Runs one of ours through a shell: `script` has it as `"$@"`.
fn through_shell(script: &str, ours: &Command) -> anyhow::Result<Running> {
    let mut shell = command(Path::new("sh"), &["-c", script, "sh"]);
    start(shell.arg(ours.get_program()).args(ours.get_args()))
}
