//! The life of an archive on a flashing host, from the first device to the last, checked by GNU tar, zstd and sha1sum.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use azaion_tests::programs::start;
use azaion_tests::station::command;

use crate::archive::{self, Unpacked, all_else, all_else_in, rich, sum_file, sum_of};
use crate::bench::{Bench, EMAIL, OTHER, OTHER_EMAIL, SERIAL, Snapshot, User};
use crate::oracle::{differences, has_bytes, raw_copy, run, text};
use crate::recipe::{self, Kind, Tree, own, put};

const PASSWORD: &str = "AZAION_DEVICE_PASSWORD=";
const EARLIER: &str = "of-an-earlier-time";
/// Maximum growth of an archive in bytes for its first device.
const GROWTH: u64 = 64 << 10;

/// The form of the checksum file around the digits, and the directory in which `sha1sum -c` finds the image by it.
pub(crate) struct Form {
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    pub(crate) check_in: Option<&'static str>,
}

/// The form that NVIDIA's scripts write.
pub(crate) const DIGITS: Form = Form { before: "", after: "\n", check_in: None };

/// How an archive is created.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Options of tar, and the names that are packed.
    pub(crate) pack: &'static [&'static str],
    pub(crate) change: Tree,
    pub(crate) form: Form,
    /// Shell commands that compress `archive` into `system.img`, if it is compressed.
    pub(crate) compress: Option<&'static str>,
}

/// The directory exists with another owner.
pub(crate) const ODD_FOLDER: Tree = |tree| {
    rich(tree)?;
    put(&tree.join("etc/azaion/agent.toml"), "", 0o600)?;
    own(&tree.join("etc/azaion/agent.toml"), 1000, 0o640)?;
    own(&tree.join("etc/azaion"), 1000, 0o2770)
};
/// A directory that was provisioned for this device.
pub(crate) const PROVISIONED: Tree = |tree| provisioned(tree, SERIAL, EMAIL, 0o600);
/// The same, with a wrong mode.
pub(crate) const OPEN: Tree = |tree| provisioned(tree, SERIAL, EMAIL, 0o644);
/// A directory that was provisioned for another device.
pub(crate) const OF_ANOTHER: Tree = |tree| provisioned(tree, OTHER, OTHER_EMAIL, 0o600);
/// An empty file.
pub(crate) const EMPTY_FILE: Tree = |tree| put(&tree.join("etc/azaion/device.conf"), "", 0o644);

fn provisioned(tree: &Path, serial: &str, email: &str, mode: u32) -> anyhow::Result<()> {
    let text = format!(
        "AZAION_DEVICE_SERIAL={serial}\nAZAION_DEVICE_EMAIL={email}\n{PASSWORD}{EARLIER}\n\
         AZAION_API_URL=https://old.example\n"
    );
    put(&tree.join("etc/azaion/device.conf"), text, mode)
}

/// An archive on a flashing host.
pub(crate) struct Life<'r> {
    bench: Bench,
    row: &'r Row,
}

impl<'r> Life<'r> {
    pub(crate) fn new(row: &'r Row, user: User) -> anyhow::Result<Self> {
        let bench = Bench::with(user)?;
        recipe::tree(&bench, row.change)?;
        let archive = if row.compress.is_some() { bench.path("images/archive") } else { bench.image() };
        archive::pack(&bench, &archive, row.pack)?;
        if let Some(commands) = row.compress {
            run("env", &["-C", text(&bench.path("images")), "bash", "-euo", "pipefail", "-c", commands])?;
            fs::rename(archive, bench.path("archive"))?;
        }
        put(&sum_file(&bench.image()), "", 0o640)?;
        let life = Self { bench, row };
        put(&life.sum(), life.right_sum()?, 0o640)?;
        life.bench.give_image()?;
        Ok(life)
    }

    fn kind(&self) -> Kind {
        if self.row.compress.is_some() { Kind::TarZst } else { Kind::Tar }
    }

    fn sum(&self) -> PathBuf {
        sum_file(&self.bench.image())
    }

    /// Returns the correct content of the checksum file.
    fn right_sum(&self) -> anyhow::Result<String> {
        Ok([self.row.form.before, &sum_of(&self.bench.image())?, self.row.form.after].concat())
    }

    /// Returns the paths of the image, its checksum, and the checksum state.
    fn files(&self) -> [PathBuf; 3] {
        [self.bench.image(), self.sum(), self.bench.state()]
    }

    /// Checks what must hold after every run: the checksum, its form, and all content that is not ours.
    fn is_in_order(&self) -> anyhow::Result<()> {
        assert_eq!(fs::read_to_string(self.sum())?, self.right_sum()?);
        if let Some(folder) = self.row.form.check_in {
            let mut check: Command = command(Path::new("sha1sum"), &["-c", "--strict", "--quiet", text(&self.sum())]);
            start(check.current_dir(self.bench.path(folder)))?.wait()?.ended_with(0)?;
        }
        let attributes = self.row.pack.contains(&"--xattrs");
        let (is, was) =
            (all_else(&self.bench.image(), attributes)?, all_else_in(&self.bench.path("tree"), attributes)?);
        assert!(is == was, "other files have changed");
        self.has_the_same_members()?;
        self.bench.has_no_leftovers()
    }

    /// Checks that a compressed archive packed without credentials still contains its original bytes, up to the end
    /// marker.
    fn has_the_same_members(&self) -> anyhow::Result<()> {
        let packed = self.bench.path("tree/etc/azaion/device.conf");
        if self.kind() == Kind::Tar || packed.exists() {
            return Ok(());
        }
        let (was, is) = (fs::read(self.bench.path("archive"))?, fs::read(raw_copy(&self.bench.image())?.path())?);
        let end = was.iter().rposition(|&byte| byte != 0).unwrap_or_default();
        assert!(is.starts_with(&was[..=end]), "members have changed");
        Ok(())
    }

    /// Checks that the device's file takes effect, and that no other password is in the archive.
    fn holds(&self, serial: &str, email: &str) -> anyhow::Result<()> {
        self.bench.holds(serial, email)?;
        let archive = raw_copy(&self.bench.image())?;
        let lines = run("grep", &["-ac", PASSWORD, text(archive.path())])?;
        assert_eq!(lines.trim(), "1", "passwords in the archive");
        self.is_in_order()
    }

    /// Runs a closure that must change nothing.
    fn unchanged(&self, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let files = || self.files().into_iter().filter(|file| file.exists());
        let before = files().map(|file| Ok((Snapshot::of(&file)?, file))).collect::<anyhow::Result<Vec<_>>>()?;
        run()?;
        assert_eq!(files().count(), before.len());
        before.iter().try_for_each(|(before, file)| before.is_still(file))
    }

    /// Runs a closure that must change only bytes of one block.
    fn changes_one_block(&self, change: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let before = self.bench.path("before");
        fs::copy(self.bench.image(), &before)?;
        change()?;
        assert_eq!(before.metadata()?.len(), self.bench.image().metadata()?.len());
        let places = differences(&before, &self.bench.image())?;
        assert!(places.last().unwrap() - places[0] < 4096, "{places:?}");
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        let image = self.bench.image();
        let mut check = self.bench.command(&["check", "--rootfs", text(&image), "--json"])?;
        let run = self.bench.wait(start(check.args(self.bench.api()))?)?;
        for check in run.ended_with(0)?.json_lines()? {
            assert_ne!(check["status"], "failed", "{check}");
        }
        Ok(())
    }

    /// Checks the output of the read-only verbs.
    fn looks(&self, email: Option<&str>) -> anyhow::Result<()> {
        self.unchanged(|| {
            self.check()?;
            let told = self.bench.inspect()?;
            assert_eq!((told["kind"].as_str(), told["email"].as_str()), (Some(self.kind().name()), email));
            Ok(())
        })
    }

    fn device(&self, serial: &str, options: &[&str], outcome: &str) -> anyhow::Result<()> {
        let report = self.bench.device(serial, options)?.ended_with(0)?.json_lines()?.remove(0);
        let (outcome_is, kind) = (report["outcome"].as_str(), report["targets"][0]["kind"].as_str());
        assert_eq!((outcome_is, kind), (Some(outcome), Some(self.kind().name())));
        Ok(())
    }

    fn clear(&self) -> anyhow::Result<bool> {
        let record = self.bench.verb("clear")?.ended_with(0)?.json_lines()?.remove(0);
        Ok(record["cleared"] == true)
    }

    /// Clears the archive: it contains no byte of a password then, and a second `clear` has nothing to remove.
    fn cleared(&self, passwords: &[String]) -> anyhow::Result<()> {
        assert!(self.clear()?, "nothing was cleared");
        assert_eq!(self.bench.inspect()?["empty"], true);
        for secret in passwords.iter().map(String::as_str).chain([PASSWORD, EARLIER]) {
            assert!(!has_bytes(&self.bench.image(), secret)?, "a password is still there");
        }
        let unpacked = Unpacked::new(&self.bench.image())?;
        unpacked.is_private()?;
        assert!(!unpacked.content().contains("AZAION_"), "{}", unpacked.content());
        self.is_in_order()?;
        self.unchanged(|| {
            assert!(!self.clear()?, "cleared twice");
            Ok(())
        })
    }

    /// Checks that credentials packed for another device stay unless replacing them is requested.
    fn packed_for_another(&self) -> anyhow::Result<()> {
        self.looks(Some(OTHER_EMAIL))?;
        self.unchanged(|| self.bench.device(SERIAL, &[])?.ended_with(73).map(drop))?;
        self.cleared(&[])
    }

    /// Checks that credentials packed for another device are replaced on request, and that no byte of their password is
    /// left.
    pub(crate) fn replaced(&self) -> anyhow::Result<()> {
        self.device(SERIAL, &["--replace"], "created")?;
        self.holds(SERIAL, EMAIL)?;
        assert!(!has_bytes(&self.bench.image(), EARLIER)?, "the other's password is still there");
        Ok(())
    }

    /// Runs the complete life: a device, the same one again, another, none, and a third.
    pub(crate) fn whole(&self) -> anyhow::Result<()> {
        let packed = self.bench.inspect()?["email"].as_str().map(str::to_owned);
        let first = packed.filter(|email| email == EMAIL);
        if self.bench.inspect()?["email"] == OTHER_EMAIL {
            self.packed_for_another()?;
        }
        self.looks(first.as_deref())?;
        let size = self.bench.image().metadata()?.len();
        self.device(SERIAL, &[], "created")?;
        self.holds(SERIAL, EMAIL)?;
        let is = self.bench.image().metadata()?.len();
        assert!(is <= size + GROWTH, "grown from {size} to {is}");
        let mut passwords = Vec::from_iter(self.bench.password()?);
        self.unchanged(|| self.device(SERIAL, &[], "reused"))?;
        self.looks(Some(EMAIL))?;
        self.unchanged(|| self.bench.device(OTHER, &[])?.ended_with(73).map(drop))?;
        self.changes_one_block(|| self.device(OTHER, &["--replace"], "created"))?;
        self.holds(OTHER, OTHER_EMAIL)?;
        passwords.extend(self.bench.password()?);
        self.changes_one_block(|| self.cleared(&passwords))?;
        self.changes_one_block(|| self.device("AZJN-0044", &["--verify"], "created"))?;
        self.holds("AZJN-0044", "azaion-jetson-0044@azaion.com")
    }
}
