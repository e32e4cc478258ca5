//! Several targets, and an API that fails: all targets are written or none, and no password is left in a wrong file.

use std::path::PathBuf;

use azaion_tests::dev_api::Fault;
use azaion_tests::programs::{Run, start};
use azaion_tests::station::conf_value;

use crate::archive;
use crate::bench::{Bench, EMAIL, OTHER, OTHER_EMAIL, SERIAL, Snapshot, for_each, password_in};
use crate::oracle::{self, has_bytes, text};
use crate::recipe::{Kind, PLAIN, mkfs, put, to_sparse};

const KEY: &str = "AZAION_DEVICE_PASSWORD";

/// The kind of the second target.
#[derive(Clone, Copy, Debug)]
enum Second {
    Raw,
    Sparse,
    Tar,
    TarZst,
    Ext4Zst,
    Directory,
}
const SECONDS: [Second; 6] =
    [Second::Raw, Second::Sparse, Second::Tar, Second::TarZst, Second::Ext4Zst, Second::Directory];

/// A host with two targets.
struct Pair {
    bench: Bench,
    other: PathBuf,
    second: Second,
}

impl Pair {
    fn new(second: Second) -> anyhow::Result<Self> {
        let bench = Bench::new()?;
        mkfs(&bench, &bench.image(), "", PLAIN)?;
        let other = match second {
            Second::Directory => bench.station.rootfs(),
            Second::Ext4Zst => bench.path("app_b.img.zst"),
            _ => bench.path("app_b.img"),
        };
        match second {
            Second::Directory => {}
            Second::Raw => mkfs(&bench, &other, "-O ^metadata_csum", PLAIN)?,
            Second::Tar => archive::make(&bench, &other, PLAIN)?,
            Second::TarZst => Kind::TarZst.make(&bench, &other, PLAIN)?,
            Second::Ext4Zst => {
                Kind::Ext4Zst.make(&bench, &bench.path("app_b.img"), PLAIN)?;
                archive::put_sum(&other)?;
            }
            Second::Sparse => {
                mkfs(&bench, &other, "", PLAIN)?;
                to_sparse(&other)?;
            }
        }
        Ok(Self { bench, other, second })
    }

    /// Creates it with slots, if there are images.
    fn prepared(second: Second) -> anyhow::Result<Self> {
        let pair = Self::new(second)?;
        pair.device(OTHER, &[])?.ended_with(0)?;
        pair.verb("clear")?;
        Ok(pair)
    }

    fn device(&self, serial: &str, options: &[&str]) -> anyhow::Result<Run> {
        let both = ["--rootfs", text(&self.other), "--owner", "current"];
        self.bench.device(serial, &[&both, options].concat())
    }

    fn verb(&self, verb: &str) -> anyhow::Result<Run> {
        self.start(&[verb])?.ended_with(0)
    }

    /// Starts a verb with its options on both targets.
    fn start(&self, verb: &[&str]) -> anyhow::Result<Run> {
        let image = self.bench.image();
        let both = ["--json", text(&image), text(&self.other)];
        self.bench.wait(start(&mut self.bench.command(&[verb, &both].concat())?)?)
    }

    /// Returns the password in the second target.
    fn other_password(&self) -> anyhow::Result<Option<String>> {
        match self.second {
            Second::Directory => Ok(conf_value(&self.other.join("etc/azaion/device.conf"), KEY)),
            _ => password_in(&self.other),
        }
    }

    fn both_hold(&self, serial: &str, email: &str) -> anyhow::Result<()> {
        self.bench.holds(serial, email)?;
        let password = self.bench.password()?;
        assert!(password.is_some() && password == self.other_password()?, "two passwords");
        archive::sum_is_right(&self.other)
    }

    /// Checks that neither holds a password, also outside the device's file.
    fn both_are_empty(&self) -> anyhow::Result<()> {
        for record in self.verb("inspect")?.json_lines()? {
            assert_eq!(record["empty"], true, "{record}");
        }
        assert_eq!(self.other_password()?, None);
        assert!(!has_bytes(&self.bench.image(), KEY)?, "the first holds a password");
        assert!(self.other.is_dir() || !has_bytes(&self.other, KEY)?, "the second holds a password");
        archive::sum_is_right(&self.other)
    }

    fn snapshots(&self) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
        let files = [
            self.bench.image(),
            self.other.clone(),
            archive::sum_file(&self.other),
            self.other.join("etc/azaion/device.conf"),
        ];
        let files = files.into_iter().filter(|file| file.is_file());
        files.map(|file| Ok((file.clone(), std::fs::read(file)?))).collect()
    }
}

/// Makes the API refuse to create the user.
fn refuse_users(pair: &Pair) {
    let fault = Fault::Status { code: 403, error: None, headers: Vec::new() };
    pair.bench.station.api.inject("POST", "/users", fault, 1);
}

// Promise: with A/B layouts all targets have the device's file with the same password, whichever kinds they are.
#[test]
fn all_have_it() {
    for_each(
        &SECONDS,
        |second| format!("{second:?}"),
        |second| {
            let pair = Pair::new(*second)?;
            let run = pair.device(SERIAL, &[])?.ended_with(0)?;
            assert_eq!(run.json_lines()?[0]["targets"].as_array().unwrap().len(), 2);
            pair.both_hold(SERIAL, EMAIL)?;
            let before = pair.snapshots()?;
            pair.device(SERIAL, &[])?.ended_with(0)?;
            assert!(pair.snapshots()? == before, "the second run for the same device changed something");
            // One of them was cleared, so the other's password is used.
            pair.bench.verb("clear")?.ended_with(0)?;
            assert_eq!(pair.device(SERIAL, &[])?.ended_with(0)?.json_lines()?[0]["outcome"], "reused");
            pair.both_hold(SERIAL, EMAIL)?;
            pair.device(OTHER, &["--replace"])?.ended_with(0)?;
            pair.both_hold(OTHER, OTHER_EMAIL)?;
            pair.verb("clear")?;
            pair.both_are_empty()
        },
    );
}

// Promise: for any kinds of targets, the module that the device is for is written into all of them and kept, and
// `clear` leaves files of another device than the named one unchanged, byte for byte.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn units_are_not_mixed_up() {
    for_each(
        &SECONDS,
        |second| format!("{second:?}"),
        |second| {
            let pair = Pair::new(*second)?;
            pair.device(SERIAL, &["--module-serial", "1423221050123"])?.ended_with(0)?;
            pair.device(SERIAL, &[])?.ended_with(0)?;
            pair.both_hold(SERIAL, EMAIL)?;
            for record in pair.verb("inspect")?.json_lines()? {
                assert_eq!(record["module_serial"], "1423221050123", "{record}");
            }
            let before = pair.snapshots()?;
            let run = pair.start(&["clear", "--if-serial", OTHER])?.ended_with(73)?;
            assert_eq!((run.stderr.matches("was not cleared").count(), run.stdout.as_str()), (2, ""));
            assert!(pair.snapshots()? == before, "an untouched target has changed");
            for _ in 0..2 {
                pair.start(&["clear", "--if-serial", SERIAL])?.ended_with(0)?;
                pair.both_are_empty()?;
            }
            Ok(())
        },
    );
}

// Promise: if the API refuses, targets with a slot are byte for byte as before, and new slots are blank.
#[test]
fn none_has_it_if_the_api_refuses() {
    for_each(
        &SECONDS,
        |second| format!("{second:?}"),
        |second| {
            let pair = Pair::new(*second)?;
            refuse_users(&pair);
            pair.device(SERIAL, &[])?.ended_with(77)?;
            pair.both_are_empty()?;

            let pair = Pair::prepared(*second)?;
            let before = pair.snapshots()?;
            refuse_users(&pair);
            pair.device(SERIAL, &[])?.ended_with(77)?;
            assert!(pair.snapshots()? == before, "the target has changed");
            pair.both_are_empty()
        },
    );
}

// Promise: another device's files that were to be replaced are restored, byte for byte, if the API refuses.
#[test]
fn another_devices_files_are_back() {
    for_each(
        &SECONDS,
        |second| format!("{second:?}"),
        |second| {
            let pair = Pair::new(*second)?;
            pair.device(OTHER, &[])?.ended_with(0)?;
            let before = pair.snapshots()?;
            refuse_users(&pair);
            pair.device(SERIAL, &["--replace"])?.ended_with(77)?;
            assert!(pair.snapshots()? == before, "the target has changed");
            pair.both_hold(OTHER, OTHER_EMAIL)
        },
    );
}

/// A valid file of another device of maximum size.
fn large_file(tree: &std::path::Path) -> anyhow::Result<()> {
    let text = "AZAION_DEVICE_EMAIL=azaion-jetson-0043@azaion.com\nAZAION_DEVICE_PASSWORD=of-an-earlier-time\n\
                AZAION_API_URL=https://old.example\n";
    put(&tree.join("etc/azaion/device.conf"), format!("{text:#<4090}\n"), 0o600)
}

// Promise: so is one that leaves no space for more than itself.
#[test]
fn a_large_file_is_back() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", large_file)?;
    let content = || oracle::content(oracle::raw_copy(&bench.image())?.path());
    let before = content()?;
    assert_eq!(bench.inspect()?["email"], OTHER_EMAIL);
    let fault = Fault::Status { code: 403, error: None, headers: Vec::new() };
    bench.station.api.inject("POST", "/users", fault, 1);
    bench.device(SERIAL, &["--replace"])?.ended_with(77)?;
    assert!(content()?.contains(before.trim_end()), "another file");
    assert_eq!(bench.inspect()?["email"], OTHER_EMAIL);
    Ok(())
}

// Promise: if a user exists and its password may not be reset, no password of ours is left in an image.
#[test]
fn refused_users_leave_nothing() {
    for_each(
        &SECONDS,
        |second| format!("{second:?}"),
        |second| {
            let pair = Pair::new(*second)?;
            pair.bench.station.api.add_user(EMAIL, "another-password", "CompanionPC");
            pair.device(SERIAL, &["--on-existing", "refuse"])?.ended_with(73)?;
            pair.both_are_empty()?;
            assert!(pair.bench.station.api.password_is(EMAIL, "another-password"));
            // Then resetting the password is allowed.
            let run = pair.device(SERIAL, &[])?.ended_with(0)?;
            assert_eq!(run.json_lines()?[0]["outcome"], "updated");
            pair.both_hold(SERIAL, EMAIL)
        },
    );
}

// Promise: after a lost answer the password stays in the target, and the next run continues with it.
#[test]
fn a_lost_answer() -> anyhow::Result<()> {
    for fault in [Fault::DropAfter, Fault::DropBefore, Fault::Truncate] {
        let pair = Pair::new(Second::Sparse)?;
        pair.bench.station.api.inject("POST", "/users", fault, usize::MAX);
        let run = pair.device(SERIAL, &["--deadline", "1"])?;
        assert_ne!(run.code, Some(70), "{}", run.words());
        pair.bench.station.api.clear_faults();
        pair.device(SERIAL, &[])?.ended_with(0)?;
        pair.both_hold(SERIAL, EMAIL)?;
        assert_eq!(pair.bench.station.api.users().len(), 1);
    }
    Ok(())
}

// Promise: if one target cannot be written, none is: one that validation refuses leaves the others unchanged.
#[test]
fn one_that_can_not_take_it() -> anyhow::Result<()> {
    let pair = Pair::new(Second::Raw)?;
    put(&pair.other, b"LUKS\xba\xbe\0\x02", 0o644)?;
    let before = Snapshot::of(&pair.bench.image())?;
    pair.device(SERIAL, &[])?.ended_with(66)?;
    before.is_still(&pair.bench.image())?;
    // One that passes validation, until debugfs fails.
    let pair = Pair::prepared(Second::Directory)?;
    let other = pair.bench.path("broken.img");
    mkfs(&pair.bench, &other, "", PLAIN)?;
    crate::recipe::debugfs(&other, "sif /usr/bin/sudo links_count 5")?;
    let before = [Snapshot::of(&other)?.bytes(), Snapshot::of(&pair.bench.image())?.bytes()];
    let run = pair.device(SERIAL, &["--rootfs", text(&other)])?.ended_with(66)?;
    assert!(run.stderr.contains("e2fsck finds faults"), "{}", run.stderr);
    assert!(before == [Snapshot::of(&other)?.bytes(), Snapshot::of(&pair.bench.image())?.bytes()]);
    pair.both_are_empty()
}

// Promise: one image under two names is an error that is reported at once.
#[test]
fn the_same_image_twice() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    let (symlink, link) = (bench.path("symlink.img"), bench.path("link.img"));
    std::os::unix::fs::symlink(bench.image(), &symlink)?;
    std::fs::hard_link(bench.image(), &link)?;
    for other in [symlink, link] {
        bench
            .device(SERIAL, &["--rootfs", text(&other)])?
            .ended_with(64)
            .map_err(|e| e.context(format!("{other:?}")))?;
    }
    Ok(())
}
