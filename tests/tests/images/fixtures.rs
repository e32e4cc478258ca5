//! Files that each version of `azaion-provision` left behind, read by this version.
//!
//! `tests/data/fixtures` contains the files, `expected.tsv` lists their content, and `make` creates both.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use azaion_tests::dev_api::Options;
use azaion_tests::programs::{Run, start, workspace};
use azaion_tests::record;
use azaion_tests::station::{Station, value_in};
use serde_json::Value;

use crate::archive::{sum_file, sum_is_right};
use crate::bench::{Bench, User, for_each};
use crate::oracle::{content_in, has_bytes, is_private_in, is_whole, run, text};

const HEADER: &str = "name\tkind\tstate\tserial\temail\tpassword\toutcome\tmade_by";
/// The address of the API in every `device.conf` of the fixtures (`listen` in `make`). Below the kernel's ephemeral
/// ports.
const API: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 21443);
/// How long to wait while another process that runs this test uses that port.
const PORT_PATIENCE: Duration = Duration::from_mins(2);
/// A device without a fixture.
const OTHER: (&str, &str) = ("AZJN-9999", "azaion-jetson-9999@azaion.com");

/// What `device` reports for the fixture's device, or for another one if it holds none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Created,
    Reused,
    /// 66, because nothing proves that the wrong checksum was caused by this program.
    Refused,
}

/// The content of a fixture.
#[derive(Debug)]
struct Device {
    serial: String,
    email: String,
    password: String,
}

/// A row of `expected.tsv`.
#[derive(Debug)]
struct Row {
    name: String,
    kind: String,
    state: String,
    device: Option<Device>,
    outcome: Outcome,
}

fn folder() -> PathBuf {
    workspace().join("tests/data/fixtures")
}

fn table() -> anyhow::Result<Vec<Row>> {
    let text = fs::read_to_string(folder().join("expected.tsv"))?;
    let (header, rows) = text.split_once('\n').context("there is no header")?;
    ensure!(header == HEADER, "the columns are {header:?}");
    rows.lines().map(|line| Row::parse(line).with_context(|| line.to_owned())).collect()
}

impl Row {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, kind, state, serial, email, password, outcome, made_by] = fields[..] else {
            bail!("{} columns", fields.len())
        };
        ensure!(!made_by.is_empty() && name.starts_with(&format!("{kind}-{state}")), "name or version is wrong");
        let device = match [serial, email, password] {
            ["-", "-", "-"] => None,
            fields => {
                ensure!(!fields.contains(&"-"), "a device with less than serial, e-mail and password");
                let [serial, email, password] = fields.map(str::to_owned);
                Some(Device { serial, email, password })
            }
        };
        let outcome = match outcome {
            "created" => Outcome::Created,
            "reused" => Outcome::Reused,
            "refused" => Outcome::Refused,
            other => bail!("unknown outcome {other}"),
        };
        Ok(Self { name: name.to_owned(), kind: kind.to_owned(), state: state.to_owned(), device, outcome })
    }
}

#[expect(clippy::disallowed_methods, reason = "no clock of a program under test is involved")]
fn wait_for_the_port() {
    std::thread::sleep(Duration::from_millis(200));
}

/// Starts the host whose API has the address in the fixtures, as soon as no other process listens there.
fn station() -> anyhow::Result<Station> {
    let start = Instant::now();
    loop {
        match Station::new(Options { listen: SocketAddr::from(API), ..Options::default() }) {
            Err(_) if start.elapsed() < PORT_PATIENCE => wait_for_the_port(),
            station => return station,
        }
    }
}

/// A fixture that a test may change.
struct Copy<'r> {
    bench: Bench,
    row: &'r Row,
}

impl<'r> Copy<'r> {
    fn new(row: &'r Row) -> anyhow::Result<Self> {
        let copy = Self { bench: Bench::of(station()?, User::Caller)?, row };
        if let Some(device) = &row.device {
            record::secret(&device.password)?;
            copy.bench.station.api.add_user(&device.email, &device.password, "CompanionPC");
        }
        copy.reset()?;
        Ok(copy)
    }

    /// Copies the fixture again. A checkout keeps neither modes nor holes nor empty directories.
    fn reset(&self) -> anyhow::Result<()> {
        let images = self.images();
        fs::remove_dir_all(&images)?;
        run("cp", &["-r", "--sparse=always", text(&folder().join(&self.row.name)), text(&images)])?;
        if self.row.kind == "directory" && self.row.state == "cleared" {
            fs::create_dir_all(self.target().join("etc/azaion"))?;
        }
        run("chmod", &["-R", "u=rwX,go=rX", text(&images)])?;
        for file in files_under(&images)? {
            let name = file.to_string_lossy();
            let is_private = !name.contains("/rootfs/") || name.contains("device.conf");
            if is_private && !name.ends_with(".sha1sum") {
                fs::set_permissions(&file, Permissions::from_mode(0o600))?;
            }
        }
        Ok(())
    }

    fn images(&self) -> PathBuf {
        self.bench.path("images")
    }

    /// The name depends on the kind: the flasher decides by it how to unpack the file.
    fn target(&self) -> PathBuf {
        self.images().join(match self.row.kind.as_str() {
            "directory" => "rootfs",
            "ext4.zst" => "system.img.zst",
            _ => "system.img",
        })
    }

    fn run(&self, arguments: &[&str], has_api: bool) -> anyhow::Result<Run> {
        let mut command = self.bench.command(arguments)?;
        if has_api {
            command.args(["--owner", "current"]).args(self.bench.api());
        }
        self.bench.wait(start(command.arg("--json"))?)
    }

    fn inspect(&self) -> anyhow::Result<Value> {
        Ok(self.run(&["inspect", text(&self.target())], false)?.ended_with(0)?.json_lines()?.remove(0))
    }

    fn is_empty(&self) -> anyhow::Result<()> {
        let report = self.inspect()?;
        ensure!(report["empty"] == true && report.get("serial").is_none(), "inspect: {report}");
        Ok(())
    }

    /// Runs `device` and compares what it reports.
    fn device(&self, serial: &str, email: &str, outcome: Outcome) -> anyhow::Result<()> {
        let run = self.run(&["device", serial, "--rootfs", text(&self.target())], true)?;
        if outcome == Outcome::Refused {
            let run = run.ended_with(66)?;
            ensure!(run.stderr.contains("generate the images again"), "{}", run.stderr);
            return Ok(());
        }
        let report = run.ended_with(0)?.json_lines()?.remove(0);
        let expected = if outcome == Outcome::Created { "created" } else { "reused" };
        ensure!(report["outcome"] == expected, "outcome: {report}");
        ensure!(report["targets"][0]["kind"] == self.row.kind.as_str(), "kind: {report}");
        self.holds(serial, email).map(drop)
    }

    /// Returns the `device.conf` in the target, as other programs read it.
    fn conf(&self) -> anyhow::Result<String> {
        match self.row.kind.as_str() {
            "directory" => Ok(fs::read_to_string(self.target().join("etc/azaion/device.conf")).unwrap_or_default()),
            _ => content_in(&self.target()),
        }
    }

    /// Checks that the target is valid and holds this device with its account's password, and that no leftover is
    /// beside it.
    fn holds(&self, serial: &str, email: &str) -> anyhow::Result<String> {
        let is_same = self.row.device.as_ref().is_some_and(|device| device.serial == serial);
        if self.row.kind == "directory" {
            let mode = fs::metadata(self.target().join("etc/azaion/device.conf"))?.permissions().mode();
            ensure!(mode & 0o7777 == 0o600, "mode {mode:o}");
        } else if ["packed", "killed-copy"].contains(&self.row.state.as_str()) && is_same {
            // A file of another size, which it keeps until another device replaces it.
            is_whole(&self.target())?;
        } else {
            is_private_in(&self.target())?;
        }
        let conf = self.conf()?;
        let value = |key: &str| value_in(&conf, &format!("AZAION_DEVICE_{key}")).unwrap_or_default();
        ensure!((value("SERIAL"), value("EMAIL")) == (serial, email), "it is the device.conf of {}", value("SERIAL"));
        let password = value("PASSWORD").to_owned();
        record::secret(&password)?;
        ensure!(self.bench.station.api.password_is(email, &password), "the account has another password");
        self.is_whole()?;
        Ok(password)
    }

    /// Checks that the checksum is correct, and that only the target, its checksum and the checksum state are there.
    fn is_whole(&self) -> anyhow::Result<()> {
        sum_is_right(&self.target())?;
        self.has_no_leftovers()
    }

    fn has_no_leftovers(&self) -> anyhow::Result<()> {
        let target = self.target();
        let name = target.file_name().unwrap().to_string_lossy().into_owned();
        let has_sum = folder().join(&self.row.name).join(format!("{name}.sha1sum")).exists();
        ensure!(has_sum == sum_file(&target).exists(), "the checksum file");
        let known = [name.clone(), format!("{name}.sha1sum"), format!(".{name}.azaion-sha1")];
        for name in self.bench.beside()? {
            ensure!(known.contains(&name), "{name} is left beside the target");
        }
        for file in files_under(&self.images())? {
            ensure!(file.extension().is_none_or(|extension| extension != "new"), "{} is left", file.display());
        }
        Ok(())
    }

    /// Checks that `inspect` reports what the table says and changes nothing.
    fn is_inspected(&self) -> anyhow::Result<()> {
        let before = contents(&self.images())?;
        let report = self.inspect()?;
        ensure!(report["kind"] == self.row.kind.as_str(), "inspect: {report}");
        match &self.row.device {
            None => self.is_empty()?,
            Some(device) => {
                ensure!(report["empty"] != true, "inspect finds no device");
                ensure!(report["serial"] == device.serial.as_str(), "inspect: {report}");
                ensure!(report["email"] == device.email.as_str(), "inspect: {report}");
                ensure!(report["mode"] == "0600", "inspect: {report}");
                let conf = self.conf()?;
                ensure!(value_in(&conf, "AZAION_DEVICE_PASSWORD") == Some(&device.password), "another password");
            }
        }
        if self.row.kind != "directory" {
            is_whole(&self.target())?;
        }
        ensure!(contents(&self.images())? == before, "inspect changed something");
        Ok(())
    }

    /// Checks that the device in it keeps its password; if there is none, another device gets the target.
    fn is_provisioned(&self) -> anyhow::Result<()> {
        let before = contents(&self.images())?;
        match &self.row.device {
            None => self.device(OTHER.0, OTHER.1, self.row.outcome)?,
            Some(device) => {
                self.device(&device.serial, &device.email, self.row.outcome)?;
                if self.row.outcome != Outcome::Refused {
                    let password = self.holds(&device.serial, &device.email)?;
                    ensure!(password == device.password, "the device has a new password");
                }
            }
        }
        if self.row.outcome == Outcome::Refused {
            ensure!(contents(&self.images())? == before, "it was refused, but changed");
        }
        Ok(())
    }

    /// Checks that a batch skips a confirmed device without a call, and confirms others, which takes a login.
    fn is_batched(&self) -> anyhow::Result<()> {
        let Some(device) = self.row.device.as_ref().filter(|_| self.row.outcome == Outcome::Reused) else {
            return Ok(());
        };
        self.reset()?;
        // Without space for the checksum line there is none for the confirmation comment either.
        let is_confirmable = self.row.state != "no-checksum-line";
        for is_confirmed in [self.row.state == "confirmed", is_confirmable] {
            let api = &self.bench.station.api;
            api.forget_requests();
            let list = format!("{0}..{0}", device.serial);
            let report = self.run(&["batch", &list, "--rootfs", text(&self.target())], true)?.ended_with(0)?;
            ensure!(report.json_lines()?[0]["outcome"] == "reused", "batch: {}", report.stdout);
            let calls: Vec<String> = api.requests().into_iter().map(|request| request.path).collect();
            let expected: &[&str] = if is_confirmed { &[] } else { &["/login"] };
            ensure!(calls == expected, "a batch called {calls:?}, confirmed: {is_confirmed}");
            let password = self.holds(&device.serial, &device.email)?;
            ensure!(password == device.password, "the device has a new password");
        }
        Ok(())
    }

    /// Checks that `clear` removes every byte of the password from all files, compressed or not, and the next device
    /// gets the target.
    fn is_cleared(&self) -> anyhow::Result<()> {
        self.reset()?;
        let report = self.run(&["clear", text(&self.target())], false)?.ended_with(0)?.json_lines()?.remove(0);
        ensure!(report["cleared"] == self.row.device.is_some(), "clear: {report}");
        let password = self.row.device.as_ref().map(|device| device.password.as_str());
        for secret in password.into_iter().chain(["AZAION_DEVICE_PASSWORD"]) {
            for file in files_under(&self.images())? {
                ensure!(!has_bytes(&file, secret)?, "{} still has a password", file.display());
            }
        }
        self.is_empty()?;
        if self.row.kind != "directory" {
            is_whole(&self.target())?;
        }
        if self.row.outcome == Outcome::Refused {
            self.has_no_leftovers()?;
            return self.device(OTHER.0, OTHER.1, Outcome::Refused);
        }
        self.is_whole()?;
        if self.bench.station.api.user(OTHER.1).is_some() {
            self.bench.station.api.delete_user(OTHER.1);
        }
        self.device(OTHER.0, OTHER.1, Outcome::Created)
    }

    fn is_read(&self) -> anyhow::Result<()> {
        self.is_inspected()?;
        self.is_provisioned().context("device")?;
        self.is_batched().context("batch")?;
        self.is_cleared().context("clear")
    }
}

/// Returns all regular files under a directory.
fn files_under(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let all = run("find", &[text(folder), "-type", "f"])?;
    Ok(all.lines().map(PathBuf::from).collect())
}

fn contents(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    files_under(folder)?.into_iter().map(|file| Ok((file.clone(), fs::read(file)?))).collect()
}

/// Every state that a version left behind can be inspected, provisioned, confirmed by a batch, and cleared.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn every_state_is_read() {
    let rows = table().expect("the table");
    for_each(&rows, |row| row.name.clone(), |row| Copy::new(row)?.is_read());
}

/// Each row has its files, each directory of files has its row, and each kind has all usual states.
#[test]
fn table_and_files_agree() -> anyhow::Result<()> {
    let rows = table()?;
    let mut names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    found.sort();
    assert_eq!(names, found, "rows and directories");
    for kind in ["directory", "ext4", "sparse", "tar", "tar.zst", "ext4.zst"] {
        for state in ["never", "device", "confirmed", "cleared"] {
            assert!(rows.iter().any(|row| row.kind == kind && row.state == state), "{kind}, {state}: no fixture");
        }
    }
    Ok(())
}
