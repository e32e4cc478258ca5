//! A flashing host with one image, and the user who works there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, Options};
use azaion_tests::programs::{Run, Running, copy_to, native, start};
use azaion_tests::record;
use azaion_tests::station::{Station, command};
use nix::unistd::geteuid;
use serde_json::Value;

use crate::archive;
use crate::oracle;
use crate::recipe::Kind;

/// The serial of most tests, and its e-mail.
pub(crate) const SERIAL: &str = "AZJN-0042";
pub(crate) const EMAIL: &str = "azaion-jetson-0042@azaion.com";
/// Another device.
pub(crate) const OTHER: &str = "AZJN-0043";
pub(crate) const OTHER_EMAIL: &str = "azaion-jetson-0043@azaion.com";
/// The name of the image; a compressed disk image has an additional extension.
const IMAGE: &str = "system.img";
/// Longer than any run may take: none may hang.
const PATIENCE: &str = "10";

/// The user of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// The user who runs the tests.
    Caller,
    /// An unprivileged user who owns the image; for tests that root runs.
    Nobody,
}

const NOBODY: u32 = 65534;

/// The flashing host. Its image is in a separate directory, so that leftovers beside it are visible.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) station: Station,
    user: User,
}

impl Bench {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Self::with(User::Caller)
    }

    /// Creates it with all that the user needs, wherever the workspace is.
    pub(crate) fn with(user: User) -> anyhow::Result<Self> {
        Self::of(Station::new(Options::default())?, user)
    }

    /// The same for a host whose API has its own options.
    pub(crate) fn of(station: Station, user: User) -> anyhow::Result<Self> {
        let bench = Self { station, user };
        let station = &bench.station;
        fs::set_permissions(station.path(""), fs::Permissions::from_mode(0o755))?;
        fs::copy(station.api.ca_file(), station.path("ca.pem"))?;
        fs::set_permissions(station.path("ca.pem"), fs::Permissions::from_mode(0o644))?;
        station.put("secret", ADMIN_PASSWORD, 0o600)?;
        fs::create_dir(station.path("images"))?;
        if user == User::Nobody {
            copy_to("azaion-provision", &station.path("azaion-provision"))?;
            bench.give("secret")?;
            bench.give("images")?;
        }
        Ok(bench)
    }

    /// Makes the host's user the owner of a file.
    pub(crate) fn give(&self, name: &str) -> anyhow::Result<()> {
        let owner = (self.user == User::Nobody).then_some(NOBODY);
        Ok(chown(self.station.path(name), owner, owner)?)
    }

    /// Makes the host's user the owner of the image, and of its checksum file, if there is one.
    pub(crate) fn give_image(&self) -> anyhow::Result<()> {
        let (image, sum) = (self.name(), format!("{}.sha1sum", self.name()));
        for name in [image, sum].map(|name| format!("images/{name}")) {
            if self.path(&name).exists() {
                self.give(&name)?;
            }
        }
        Ok(())
    }

    /// Returns the path of the image, under whichever of its two names exists.
    pub(crate) fn image(&self) -> PathBuf {
        let of_disk_image = self.station.path(&format!("images/{}", Kind::Ext4Zst.named(IMAGE)));
        if of_disk_image.exists() { of_disk_image } else { self.station.path(&format!("images/{IMAGE}")) }
    }

    /// Returns the image's name.
    pub(crate) fn name(&self) -> String {
        self.image().file_name().unwrap().to_string_lossy().into_owned()
    }

    /// Returns the path of the checksum state beside the image.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("images").join(format!(".{}.azaion-sha1", self.name()))
    }

    /// Returns another path on the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.station.path(name)
    }

    /// Returns an `azaion-provision` command as the host's user, killed if it hangs.
    pub(crate) fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut wrapped = command(Path::new("timeout"), &[PATIENCE]);
        match self.user {
            User::Caller => wrapped.arg(native()?.join("azaion-provision")),
            User::Nobody => wrapped.uid(NOBODY).gid(NOBODY).arg(self.path("azaion-provision")),
        };
        wrapped.args(arguments);
        Ok(wrapped)
    }

    /// Returns the options for the API.
    pub(crate) fn api(&self) -> Vec<String> {
        let text = |name| self.path(name).display().to_string();
        ["--api-url", &self.station.api.url(), "--ca-file", &text("ca.pem"), "--admin-email", ADMIN_EMAIL]
            .into_iter()
            .chain(["--admin-password-file", &text("secret")])
            .map(str::to_owned)
            .collect()
    }

    /// Returns the `device` command on the image.
    pub(crate) fn device_command(&self, serial: &str, options: &[&str]) -> anyhow::Result<Command> {
        let image = self.image().display().to_string();
        let mut command = self.command(&["device", serial, "--rootfs", &image, "--json"])?;
        command.args(options).args(self.api());
        Ok(command)
    }

    /// Runs `device`.
    pub(crate) fn device(&self, serial: &str, options: &[&str]) -> anyhow::Result<Run> {
        self.wait(start(&mut self.device_command(serial, options)?)?)
    }

    /// Runs a verb on the image that needs no API.
    pub(crate) fn verb(&self, verb: &str) -> anyhow::Result<Run> {
        let image = self.image().display().to_string();
        self.wait(start(&mut self.command(&[verb, &image, "--json"])?)?)
    }

    /// Waits for a run, and records its output.
    pub(crate) fn wait(&self, running: Running) -> anyhow::Result<Run> {
        let run = self.station.wait(running)?;
        for code in [70, 101, 124] {
            anyhow::ensure!(run.code != Some(code), "a panic, or a hang: {}", run.words());
        }
        Ok(run)
    }

    /// Returns the output of `inspect` for the image.
    pub(crate) fn inspect(&self) -> anyhow::Result<Value> {
        Ok(self.verb("inspect")?.ended_with(0)?.json_lines()?.remove(0))
    }

    /// Returns the password in the image, if any, as other programs read it, and records it as a secret.
    pub(crate) fn password(&self) -> anyhow::Result<Option<String>> {
        password_in(&self.image())
    }

    /// Returns the names beside the image, including the image.
    pub(crate) fn beside(&self) -> anyhow::Result<Vec<String>> {
        let entries = fs::read_dir(self.path("images"))?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// Checks that the image holds this device's complete file, the account accepts its password, and no leftover is
    /// beside it.
    pub(crate) fn holds(&self, serial: &str, email: &str) -> anyhow::Result<()> {
        oracle::is_private_in(&self.image())?;
        let conf = conf_in(&self.image())?;
        let value = |key: &str| conf.get(key).map_or("", String::as_str);
        assert_eq!((value("SERIAL"), value("EMAIL")), (serial, email));
        record::secret(value("PASSWORD"))?;
        assert!(self.station.api.password_is(email, value("PASSWORD")), "the API rejects the password");
        self.has_no_leftovers()
    }

    /// Checks that the checksum beside the image is correct, if present, and that only it and the checksum state are
    /// there.
    pub(crate) fn has_no_leftovers(&self) -> anyhow::Result<()> {
        archive::sum_is_right(&self.image())?;
        let has_sum = archive::sum_file(&self.image()).exists();
        let (image, state) = (self.name(), self.state());
        let expected = if has_sum { vec![image.clone(), format!("{image}.sha1sum")] } else { vec![image] };
        let mut names = self.beside()?;
        if has_sum || archive::is_tar(&self.image())? {
            names.retain(|name| !state.ends_with(name));
        }
        assert_eq!(names, expected);
        Ok(())
    }
}

/// Returns the password in an image, if any, as other programs read it, and records it as a secret.
pub(crate) fn password_in(image: &Path) -> anyhow::Result<Option<String>> {
    let password = conf_in(image)?.remove("PASSWORD");
    password.iter().try_for_each(|password| record::secret(password))?;
    Ok(password)
}

/// Returns the values of the device's file in an image, by the last parts of their keys.
pub(crate) fn conf_in(image: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = oracle::content_in(image)?;
    let pairs = text.lines().filter_map(|line| line.strip_prefix("AZAION_DEVICE_")?.split_once('='));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// Everything that must not change in a file that is left alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    identity: (u64, u32, u32, u32, i64, i64),
    bytes: Vec<u8>,
}

impl Snapshot {
    pub(crate) fn of(file: &Path) -> anyhow::Result<Self> {
        let metadata = fs::metadata(file)?;
        let owner = (metadata.mode(), metadata.uid(), metadata.gid());
        let identity = (metadata.ino(), owner.0, owner.1, owner.2, metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { identity, bytes: fs::read(file)? })
    }

    /// Fails if the file was replaced or has other bytes.
    pub(crate) fn is_still(&self, file: &Path) -> anyhow::Result<()> {
        let now = Self::of(file)?;
        anyhow::ensure!(self.bytes == now.bytes, "{} has other bytes now", file.display());
        anyhow::ensure!(self.identity == now.identity, "{:?} was {:?}", now.identity, self.identity);
        Ok(())
    }

    /// Returns only the bytes.
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Whether loop devices can be used.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Runs a test for every row of a table, and reports all failures together.
pub(crate) fn for_each<'r, Row: 'r>(
    rows: impl IntoIterator<Item = &'r Row>,
    name: impl Fn(&Row) -> String,
    one: impl Fn(&Row) -> anyhow::Result<()>,
) {
    let mut failed = Vec::new();
    for row in rows {
        // The panic message is on standard error.
        match catch_unwind(AssertUnwindSafe(|| one(row))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{}: {error:#}", name(row))),
            Err(_) => failed.push(format!("{}: panicked, see above", name(row))),
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
