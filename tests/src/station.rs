//! A flashing host with one root file system, and the development API beside it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use azaion_agent::api::http::{self, CaFile, Http};
use azaion_agent::api::session;
use azaion_agent::common::clock::SystemClock;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tempfile::TempDir;

use crate::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, DevApi, Options};
use crate::programs::{self, Run, Running};
use crate::record;
use crate::schemas;

/// The serial number of the examples.
pub const SERIAL: &str = "AZJN-0042";
/// The e-mail derived from it.
pub const EMAIL: &str = "azaion-jetson-0042@azaion.com";

/// The files that may hold a secret, with the fields; no other file in the tree may.
const SECRET_FIELDS: [(&str, &[&str]); 2] =
    [("run/azaion/token.json", &["access_token"]), ("run/azaion/refresh.json", &["refresh_token"])];
const DEVICE_CONF: &str = "etc/azaion/device.conf";

/// The flashing host. Records the output of all programs run on it, and checks for leftover files after every run.
#[derive(Debug)]
pub struct Station {
    /// The API.
    pub api: DevApi,
    dir: TempDir,
    /// JSON files that a test has put into the root file system, with their content.
    planted: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
}

impl Station {
    /// Creates a host with an empty root file system, beside an API with these options.
    ///
    /// # Errors
    /// The API can't be started.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let station = Self { api: DevApi::start(options)?, dir: tempfile::tempdir()?, planted: Mutex::default() };
        for folder in ["etc", "boot", "usr"] {
            fs::create_dir_all(station.rootfs().join(folder))?;
        }
        station.put("admin-password", ADMIN_PASSWORD, 0o600)?;
        record::secret(ADMIN_PASSWORD)?;
        Ok(station)
    }

    /// Returns the root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Returns a path on the host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns a path in the root file system.
    pub fn inside(&self, name: &str) -> PathBuf {
        self.rootfs().join(name)
    }

    /// Writes a file on the host; names starting with `rootfs/` are in the root file system.
    ///
    /// # Errors
    /// The I/O error.
    #[expect(clippy::disallowed_methods, reason = "the tests' own files")]
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> anyhow::Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("a name in a directory")?)?;
        fs::write(&path, &content).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if path.extension().is_some_and(|extension| extension == "json") {
            self.planted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(path.canonicalize()?, content.as_ref().to_vec());
        }
        Ok(())
    }

    /// Writes the API's CA into the root file system, and an `agent.toml` that names it and has these additional lines.
    ///
    /// # Errors
    /// The I/O error.
    pub fn put_policy(&self, lines: &str) -> anyhow::Result<()> {
        self.put("rootfs/etc/azaion/ca.pem", fs::read(self.api.ca_file())?, 0o644)?;
        self.put("rootfs/etc/azaion/agent.toml", format!("ca_file = \"/etc/azaion/ca.pem\"\n{lines}"), 0o644)
    }

    /// Returns a command for `azaion-provision` with exactly these arguments and an empty environment.
    ///
    /// # Errors
    /// The programs can't be built.
    pub fn provision_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        Ok(command(programs::native()?.join("azaion-provision").as_path(), arguments))
    }

    /// Runs `azaion-provision VERB …` with the options for the API and its admin.
    ///
    /// # Errors
    /// The program can't be run.
    pub fn provision(&self, arguments: &[&str]) -> anyhow::Result<Run> {
        self.wait(self.start_provision(arguments)?)
    }

    /// As [`Station::provision`], but without waiting for its end.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn start_provision(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        programs::start(self.provision_command(arguments)?.args(self.api_arguments()))
    }

    /// Returns the options for the API and its admin.
    pub fn api_arguments(&self) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let password = text(self.path("admin-password"));
        ["--api-url", &self.api.url(), "--ca-file", &text(self.api.ca_file())]
            .into_iter()
            .chain(["--admin-email", ADMIN_EMAIL, "--admin-password-file", &password])
            .map(str::to_owned)
            .collect()
    }

    /// Runs `azaion-provision device SERIAL --rootfs ROOTFS --json --owner current` with further options.
    ///
    /// # Errors
    /// The program can't be run.
    pub fn device(&self, options: &[&str]) -> anyhow::Result<Run> {
        let rootfs = self.rootfs().display().to_string();
        let fixed = ["device", SERIAL, "--rootfs", &rootfs, "--json", "--owner", "current"];
        self.provision(&[&fixed, options].concat())
    }

    /// Runs a verb that needs no API: `inspect` or `clear`.
    ///
    /// # Errors
    /// The program can't be run.
    pub fn provision_offline(&self, arguments: &[&str]) -> anyhow::Result<Run> {
        self.wait(programs::start(&mut self.provision_command(arguments)?)?)
    }

    /// Runs `azaion-agent` on the root file system.
    ///
    /// # Errors
    /// The program can't be run.
    pub fn agent(&self, arguments: &[&str]) -> anyhow::Result<Run> {
        self.agent_as(&programs::native()?.join("azaion-agent"), &[], arguments)
    }

    /// Runs the agent binary `program`, started through `wrapper`, on the root file system.
    ///
    /// # Errors
    /// The program can't be run.
    pub fn agent_as(&self, program: &Path, wrapper: &[&str], arguments: &[&str]) -> anyhow::Result<Run> {
        let mut command = match wrapper {
            [] => command(program, &[]),
            [first, rest @ ..] => {
                let mut command = command(Path::new(first), rest);
                command.arg(program);
                command
            }
        };
        let run = programs::start(command.args(arguments).arg("--root").arg(self.rootfs()))?.wait()?;
        // `token` prints the secret itself, as requested, so its output is not recorded.
        let shown =
            if arguments.contains(&"token") { Run { stdout: String::new(), ..run.clone() } } else { run.clone() };
        self.note(&shown)?;
        Ok(run)
    }

    /// Waits for a program of this host, and records its output.
    ///
    /// # Errors
    /// The wait failed, the program left a secret in a wrong file, or wrote JSON that does not match its schema.
    pub fn wait(&self, running: Running) -> anyhow::Result<Run> {
        let run = running.wait()?;
        self.note(&run)?;
        Ok(run)
    }

    fn note(&self, run: &Run) -> anyhow::Result<()> {
        record::words(&run.words())?;
        self.secrets().iter().try_for_each(|secret| record::secret(secret))?;
        self.check_json()?;
        self.no_leftovers()
    }

    /// Returns an access token of the admin.
    ///
    /// # Errors
    /// The API does not give one.
    pub fn admin_token(&self) -> anyhow::Result<String> {
        let ca = CaFile::read(&self.api.ca_file())?;
        let options = http::Options { ca: Some(&ca), proxy: None, clock: Arc::new(SystemClock) };
        let http = Http::new(&self.api.url().parse()?, options)?;
        let password = SecretString::from(ADMIN_PASSWORD);
        let (tokens, _) = session::login(&http, ADMIN_EMAIL, &password, Ok(Duration::from_secs(10)))?;
        let token = tokens.access.expose_secret().to_owned();
        record::secret(&token)?;
        Ok(token)
    }

    /// Fails if a JSON file of the agent does not match its schema. Ignores files that a test has put there.
    ///
    /// # Errors
    /// The first such file.
    pub fn check_json(&self) -> anyhow::Result<()> {
        let planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner);
        schemas::check_files(&self.rootfs(), |path, content| {
            path.canonicalize().is_ok_and(|path| planted.get(&path).is_some_and(|put| put == content))
        })
    }

    /// Returns the value of a key of the `device.conf` in the root file system, if present.
    pub fn conf(&self, key: &str) -> Option<String> {
        conf_value(&self.inside(DEVICE_CONF), key)
    }

    /// Returns the device's password, if there is a `device.conf`.
    pub fn password(&self) -> Option<String> {
        self.conf("AZAION_DEVICE_PASSWORD")
    }

    /// Returns one of the agent's JSON files, if present.
    pub fn json(&self, name: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.inside(name)).ok()?).ok()
    }

    fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = self.password().into_iter().filter(|p| p.len() >= 8).collect();
        for (file, fields) in SECRET_FIELDS {
            let Some(content) = self.json(file) else { continue };
            secrets.extend(fields.iter().filter_map(|field| Some(content.get(field)?.as_str()?.to_owned())));
        }
        secrets
    }

    /// Fails if a file of the tree holds a secret without being allowed to, or is a temporary file of ours.
    ///
    /// # Errors
    /// The first such file.
    pub fn no_leftovers(&self) -> anyhow::Result<()> {
        let secrets = self.secrets();
        let allowed: Vec<PathBuf> =
            SECRET_FIELDS.iter().map(|(file, _)| *file).chain([DEVICE_CONF]).map(|file| self.inside(file)).collect();
        for file in files_under(&self.rootfs())? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            anyhow::ensure!(!name.ends_with(".new"), "{} was left over", file.display());
            if allowed.contains(&file) {
                continue;
            }
            let content = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
            let leaked = secrets.iter().any(|secret| content.contains(secret.as_str()));
            anyhow::ensure!(!leaked, "{} holds a secret", file.display());
        }
        Ok(())
    }
}

/// Returns the value of a key of a `device.conf`, with a minimal parser.
pub fn conf_value(file: &Path, key: &str) -> Option<String> {
    // Reading a FIFO that a scenario has put there would never end.
    let text = fs::metadata(file).ok().filter(fs::Metadata::is_file).and_then(|_| fs::read_to_string(file).ok())?;
    value_in(&text, key).map(str::to_owned)
}

/// Returns the value of a key in the text of a `device.conf`.
pub fn value_in<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Returns a command with an environment that contains only PATH.
pub fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Returns all regular files under a directory.
fn files_under(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}
