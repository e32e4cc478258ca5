//! Archives of every kind that can be provisioned, from the first device to the last, as GNU tar and sha1sum see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use azaion_tests::programs::start;
use azaion_tests::station::command;

use crate::archive::{self, Unpacked, all_else, all_else_in, rich, sum_file, sum_of};
use crate::bench::{Bench, EMAIL, OTHER, OTHER_EMAIL, SERIAL, STATE, Snapshot, User, for_each};
use crate::oracle::{differences, has_bytes, run, text};
use crate::recipe::{self, PLAIN, Tree, own, put};

const PASSWORD: &str = "AZAION_DEVICE_PASSWORD=";
const EARLIER: &str = "of-an-earlier-time";

/// How the sum stands in its file, around the digits; and the folder in which `sha1sum -c` finds the image by it.
struct Form {
    before: &'static str,
    after: &'static str,
    check_in: Option<&'static str>,
}

const USUAL: Form = Form { before: "", after: "  system.img\n", check_in: Some("images") };
const BINARY: Form = Form { before: "", after: " *system.img\n", check_in: Some("images") };
const WITH_A_PATH: Form = Form { before: "", after: "  images/system.img\n", check_in: Some(".") };
const BSD: Form = Form { before: "SHA1 (system.img) = ", after: "\n", check_in: Some("images") };
const DIGITS: Form = Form { before: "", after: "\n", check_in: None };
const ONLY_DIGITS: Form = Form { before: "", after: "", check_in: None };

struct Row {
    name: &'static str,
    /// Options of tar, and the names that are packed.
    pack: &'static [&'static str],
    change: Tree,
    form: Form,
}

const fn row(name: &'static str, pack: &'static [&'static str], change: Tree, form: Form) -> Row {
    Row { name, pack, change, form }
}

/// The folder is there, for somebody else.
const ODD_FOLDER: Tree = |tree| {
    rich(tree)?;
    put(&tree.join("etc/azaion/agent.toml"), "", 0o600)?;
    own(&tree.join("etc/azaion/agent.toml"), 1000, 0o640)?;
    own(&tree.join("etc/azaion"), 1000, 0o2770)
};
/// Of a directory that was provisioned for this unit.
const PROVISIONED: Tree = |tree| provisioned(tree, SERIAL, EMAIL, 0o600);
/// So it was, and its mode is not as it should be.
const OPEN: Tree = |tree| provisioned(tree, SERIAL, EMAIL, 0o644);
/// Of a directory that was provisioned for another unit.
const OF_ANOTHER: Tree = |tree| provisioned(tree, OTHER, OTHER_EMAIL, 0o600);
/// An empty file.
const EMPTY_FILE: Tree = |tree| put(&tree.join("etc/azaion/device.conf"), "", 0o644);

fn provisioned(tree: &Path, serial: &str, email: &str, mode: u32) -> anyhow::Result<()> {
    let text = format!(
        "AZAION_DEVICE_SERIAL={serial}\nAZAION_DEVICE_EMAIL={email}\n{PASSWORD}{EARLIER}\n\
         AZAION_API_URL=https://old.example\n"
    );
    put(&tree.join("etc/azaion/device.conf"), text, mode)
}

const ROWS: [Row; 17] = [
    row("gnu", &["--format=gnu", "."], rich, USUAL),
    row("gnu, names without ./", &["--format=gnu", "boot", "etc", "usr"], rich, WITH_A_PATH),
    row("pax", &["--xattrs", "."], rich, USUAL),
    row("pax, names without ./", &["--xattrs", "etc", "usr", "boot"], rich, BINARY),
    row("ustar", &["--format=ustar", "."], rich, BSD),
    row("ustar, names without ./", &["--format=ustar", "usr", "boot", "etc"], rich, DIGITS),
    row("gnu, a folder of somebody else", &["--format=gnu", "."], ODD_FOLDER, ONLY_DIGITS),
    row("pax, a folder of somebody else", &["--xattrs", "."], ODD_FOLDER, WITH_A_PATH),
    row("ustar, a folder of somebody else", &["--format=ustar", "boot", "etc", "usr"], ODD_FOLDER, USUAL),
    row("gnu, provisioned", &["--format=gnu", "."], PROVISIONED, USUAL),
    row("pax, provisioned", &["--xattrs", "boot", "etc", "usr"], PROVISIONED, BSD),
    row("pax, provisioned, open to all", &["--xattrs", "."], OPEN, BINARY),
    row("ustar, provisioned for another", &["--format=ustar", "."], OF_ANOTHER, USUAL),
    row("pax, provisioned for another", &["--xattrs", "."], OF_ANOTHER, USUAL),
    row("an empty file", &["--format=gnu", "."], EMPTY_FILE, USUAL),
    row("no more than its end marks", &["--format=gnu", "-b1", "."], PLAIN, USUAL),
    row("much room behind its end", &["--format=gnu", "-b200", "."], PLAIN, USUAL),
];

/// An archive on a station.
struct Life<'r> {
    bench: Bench,
    row: &'r Row,
}

impl<'r> Life<'r> {
    fn new(row: &'r Row, user: User) -> anyhow::Result<Self> {
        let bench = Bench::with(user)?;
        recipe::tree(&bench, row.change)?;
        archive::pack(&bench, &bench.image(), row.pack)?;
        put(&sum_file(&bench.image()), "", 0o640)?;
        let life = Self { bench, row };
        put(&life.sum(), life.right_sum()?, 0o640)?;
        for name in ["system.img", "system.img.sha1sum"] {
            life.bench.give(&format!("images/{name}"))?;
        }
        Ok(life)
    }

    fn sum(&self) -> PathBuf {
        sum_file(&self.bench.image())
    }

    /// What has to be in the file with the sum.
    fn right_sum(&self) -> anyhow::Result<String> {
        Ok([self.row.form.before, &sum_of(&self.bench.image())?, self.row.form.after].concat())
    }

    /// The image, its sum, and the state of that.
    fn files(&self) -> [PathBuf; 3] {
        [self.bench.image(), self.sum(), self.bench.path("images").join(STATE)]
    }

    /// What has to be so after every run: the sum, its form, and all that is not ours.
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
        self.bench.is_tidy()
    }

    /// The unit's file is in force, and no other password is in the archive.
    fn holds(&self, serial: &str, email: &str) -> anyhow::Result<()> {
        self.bench.holds(serial, email)?;
        let lines = run("grep", &["-ac", PASSWORD, text(&self.bench.image())])?;
        assert_eq!(lines.trim(), "1", "passwords in the archive");
        self.is_in_order()
    }

    /// Runs something that leaves all as it is.
    fn unchanged(&self, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let files = || self.files().into_iter().filter(|file| file.exists());
        let before = files().map(|file| Ok((Snapshot::of(&file)?, file))).collect::<anyhow::Result<Vec<_>>>()?;
        run()?;
        assert_eq!(files().count(), before.len());
        before.iter().try_for_each(|(before, file)| before.is_still(file))
    }

    /// Runs something that changes bytes of one block alone.
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

    /// What only reads says what is there.
    fn looks(&self, email: Option<&str>) -> anyhow::Result<()> {
        self.unchanged(|| {
            self.check()?;
            let told = self.bench.inspect()?;
            assert_eq!((told["kind"].as_str(), told["email"].as_str()), (Some("tar"), email));
            Ok(())
        })
    }

    fn device(&self, serial: &str, options: &[&str], outcome: &str) -> anyhow::Result<()> {
        let report = self.bench.device(serial, options)?.ended_with(0)?.json_lines()?.remove(0);
        assert_eq!((report["outcome"].as_str(), report["targets"][0]["kind"].as_str()), (Some(outcome), Some("tar")));
        Ok(())
    }

    fn clear(&self) -> anyhow::Result<bool> {
        let record = self.bench.verb("clear")?.ended_with(0)?.json_lines()?.remove(0);
        Ok(record["cleared"] == true)
    }

    /// Takes out what is in it: no byte of a password is left then, and there is nothing to be taken out.
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

    /// What was packed with the rest, for another unit, stays until it is asked for.
    fn packed_for_another(&self) -> anyhow::Result<()> {
        self.looks(Some(OTHER_EMAIL))?;
        self.unchanged(|| self.bench.device(SERIAL, &[])?.ended_with(73).map(drop))?;
        self.cleared(&[])
    }

    /// A device, the same, another, none, and a third.
    fn whole(&self) -> anyhow::Result<()> {
        let packed = self.bench.inspect()?["email"].as_str().map(str::to_owned);
        let first = packed.filter(|email| email == EMAIL);
        if self.bench.inspect()?["email"] == OTHER_EMAIL {
            self.packed_for_another()?;
        }
        self.looks(first.as_deref())?;
        self.device(SERIAL, &[], "created")?;
        self.holds(SERIAL, EMAIL)?;
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

fn lives(user: User) {
    for_each(&ROWS, |row| row.name.to_owned(), |row| Life::new(row, user)?.whole());
}

// Promise: every usual archive takes a device's file, as GNU tar unpacks it, its sum follows, and nothing else changes.
#[test]
fn from_the_first_device_to_the_last() {
    lives(User::Caller);
}

// Promise: archives need no root at all.
#[test]
fn without_any_privilege() {
    if crate::bench::is_root() {
        lives(User::Nobody);
    }
}
