//! Images of every supported kind, from the first device to the last, checked by several independent programs.

use std::path::Path;

use crate::bench::{Bench, EMAIL, OTHER, OTHER_EMAIL, SERIAL, Snapshot, User, for_each, is_root};
use crate::oracle::{self, all_else, differences, has_bytes, raw_copy};
use crate::recipe::{self, Kind, PLAIN, Tree, by_the_kernel, many, mkfs, put};

/// How an image is created, before it may be made sparse.
enum How {
    /// By mke2fs with these options, from a tree with this change.
    Mkfs(&'static str, Tree),
    /// By the kernel, on a file system made with these mke2fs options; needs root.
    Kernel(&'static str),
}
use How::{Kernel, Mkfs};

struct Row {
    name: &'static str,
    how: How,
    kind: Kind,
}

const fn raw(name: &'static str, how: How) -> Row {
    Row { name, how, kind: Kind::Ext4 }
}

const fn sparse(name: &'static str, how: How) -> Row {
    Row { name, how, kind: Kind::Sparse }
}

const fn zstd(name: &'static str, how: How) -> Row {
    Row { name, how, kind: Kind::Ext4Zst }
}

/// The directory exists with another owner.
const ODD_FOLDER: Tree = |tree| {
    put(&tree.join("etc/azaion/agent.toml"), "", 0o600)?;
    recipe::own(&tree.join("etc/azaion"), 1000, 0o2770)
};
/// The directory exists, with so many names that it has an index.
const LARGE_FOLDER: Tree = |tree| many(&tree.join("etc/azaion"), 400);
/// The file as in a directory that was provisioned earlier for this device.
const EARLIER_FILE: Tree = |tree| {
    let text = "AZAION_DEVICE_SERIAL=AZJN-0042\nAZAION_DEVICE_EMAIL=azaion-jetson-0042@azaion.com\n\
                AZAION_DEVICE_PASSWORD=of-an-earlier-time\nAZAION_API_URL=https://old.example\n";
    put(&tree.join("etc/azaion/device.conf"), text, 0o640)
};
/// An empty file.
const EMPTY_FILE: Tree = |tree| put(&tree.join("etc/azaion/device.conf"), "", 0o644);

const ROWS: [Row; 26] = [
    raw("plain", Mkfs("", PLAIN)),
    raw("filled by the kernel, a large /etc", Kernel("")),
    raw("a directory with another owner", Mkfs("", ODD_FOLDER)),
    raw("a directory with an index", Mkfs("", LARGE_FOLDER)),
    raw("a file of another size", Mkfs("", EARLIER_FILE)),
    raw("an empty file", Mkfs("", EMPTY_FILE)),
    raw("64bit", Mkfs("-O 64bit", PLAIN)),
    raw("no 64bit", Mkfs("-O ^64bit", PLAIN)),
    raw("inodes of 128 bytes", Mkfs("-I 128", PLAIN)),
    raw("inodes of 1024 bytes", Mkfs("-I 1024", PLAIN)),
    raw("no metadata_csum", Mkfs("-O ^metadata_csum,^64bit", PLAIN)),
    raw("uninit_bg, as older mke2fs", Mkfs("-O ^metadata_csum,uninit_bg", ODD_FOLDER)),
    raw("metadata_csum_seed", Mkfs("-O metadata_csum_seed", PLAIN)),
    raw("no journal", Mkfs("-O ^has_journal", PLAIN)),
    raw("no dir_index, no flex_bg", Mkfs("-O ^dir_index,^flex_bg,^resize_inode", LARGE_FOLDER)),
    raw("many groups, filled by the kernel", Kernel("-g 512")),
    sparse("plain", Mkfs("", PLAIN)),
    sparse("filled by the kernel", Kernel("")),
    sparse("a directory with another owner", Mkfs("", ODD_FOLDER)),
    sparse("a file of another size", Mkfs("", EARLIER_FILE)),
    sparse("no metadata_csum, no journal", Mkfs("-O ^metadata_csum,^has_journal", PLAIN)),
    zstd("plain", Mkfs("", PLAIN)),
    zstd("filled by the kernel", Kernel("")),
    zstd("a directory with another owner", Mkfs("", ODD_FOLDER)),
    zstd("a file of another size", Mkfs("", EARLIER_FILE)),
    zstd("no metadata_csum, no journal", Mkfs("-O ^metadata_csum,^has_journal", PLAIN)),
];

impl Row {
    fn make(&self, bench: &Bench) -> anyhow::Result<()> {
        match self.how {
            Mkfs(options, change) => mkfs(bench, &bench.image(), options, change)?,
            Kernel(options) => by_the_kernel(bench, &bench.image(), options)?,
        }
        match self.kind {
            Kind::Sparse => recipe::to_sparse(&bench.image())?,
            Kind::Ext4Zst => recipe::to_zstd(&bench.image())?,
            _ => {}
        }
        bench.give_image()
    }

    fn needs_root(&self) -> bool {
        matches!(self.how, Kernel(_))
    }
}

/// Returns everything else in the image, if the user has the privileges to read it.
fn others(image: &Path) -> anyhow::Result<Vec<u8>> {
    if !is_root() {
        return Ok(Vec::new());
    }
    let all = all_else(raw_copy(image)?.path())?;
    anyhow::ensure!(all.len() > 800_000, "debugfs finds no content");
    Ok(all)
}

/// Provisions the first device: content, mode and owner are correct, all else is unchanged, and no leftover is beside
/// the image.
fn first_device(bench: &Bench, kind: &str) -> anyhow::Result<String> {
    let before = others(&bench.image())?;
    let run = bench.device(SERIAL, &[])?.ended_with(0)?;
    let report = run.json_lines()?.remove(0);
    assert_eq!(report["outcome"], "created");
    assert_eq!((&report["targets"][0]["kind"], report["targets"].as_array().unwrap().len()), (&kind.into(), 1));
    assert_eq!(report["targets"][0]["path"], bench.image().display().to_string());
    bench.holds(SERIAL, EMAIL)?;
    assert!(others(&bench.image())? == before, "other files have changed");
    let told = bench.inspect()?;
    let told = ["kind", "serial", "email", "mode"].map(|key| told[key].as_str().unwrap().to_owned());
    assert_eq!(told, [kind, SERIAL, EMAIL, "0600"]);
    Ok(bench.password()?.unwrap())
}

/// Provisions the same device again: one login, and neither a byte nor the modification time changes.
fn again(bench: &Bench) -> anyhow::Result<()> {
    let before = Snapshot::of(&bench.image())?;
    let run = bench.device(SERIAL, &[])?.ended_with(0)?;
    assert_eq!(run.json_lines()?[0]["outcome"], "reused");
    before.is_still(&bench.image())
}

/// Checks that `change` changes only bytes of the slot, wherever it is in the image.
fn changes_one_block(bench: &Bench, change: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let before = tempfile::NamedTempFile::new()?;
    std::fs::copy(bench.image(), before.path())?;
    let raw_before = raw_copy(&bench.image())?;
    change()?;
    let raw = raw_copy(&bench.image())?;
    let block = oracle::block(raw.path())?;
    let of_raw = differences(raw_before.path(), raw.path())?;
    assert!(!of_raw.is_empty() && of_raw.iter().all(|place| place / 4096 == block), "{of_raw:?}, block {block}");
    // In the image file, the bytes have the same offsets within the block, wherever that block is.
    let of_file = differences(before.path(), &bench.image())?;
    let from_first = |places: &[u64]| places.iter().map(|place| place - places[0]).collect::<Vec<_>>();
    assert_eq!(from_first(&of_file), from_first(&of_raw));
    Ok(())
}

/// Clears the image and checks that it contains no byte of a password.
fn cleared(bench: &Bench, passwords: &[String]) -> anyhow::Result<()> {
    changes_one_block(bench, || {
        assert_eq!(bench.verb("clear")?.ended_with(0)?.json_lines()?[0]["cleared"], true);
        Ok(())
    })?;
    assert_eq!(bench.inspect()?["empty"], true);
    assert_eq!(bench.password()?, None);
    for secret in passwords.iter().map(String::as_str).chain(["AZAION_DEVICE_PASSWORD"]) {
        assert!(!has_bytes(&bench.image(), secret)?, "a password is still there");
    }
    bench.has_no_leftovers()?;
    let before = Snapshot::of(&bench.image())?;
    assert_eq!(bench.verb("clear")?.ended_with(0)?.json_lines()?[0]["cleared"], false);
    before.is_still(&bench.image())
}

fn checks(bench: &Bench) -> anyhow::Result<()> {
    let image = bench.image().display().to_string();
    let run = bench.wait(azaion_tests::programs::start(
        bench.command(&["check", "--rootfs", &image, "--json"])?.args(bench.api()),
    )?)?;
    for check in run.ended_with(0)?.json_lines()? {
        assert_ne!(check["status"], "failed", "{check}");
    }
    Ok(())
}

/// Runs the life of an image: a device, the same one again, another, none, and a third.
fn life(bench: &Bench, row: &Row) -> anyhow::Result<()> {
    row.make(bench)?;
    checks(bench)?;
    let mut passwords = vec![first_device(bench, row.kind.name())?];
    again(bench)?;
    checks(bench)?;
    bench.device(OTHER, &[])?.ended_with(73)?;
    changes_one_block(bench, || bench.device(OTHER, &["--replace"])?.ended_with(0).map(drop))?;
    bench.holds(OTHER, OTHER_EMAIL)?;
    passwords.extend(bench.password()?);
    cleared(bench, &passwords)?;
    changes_one_block(bench, || bench.device("AZJN-0044", &["--verify"])?.ended_with(0).map(drop))?;
    bench.holds("AZJN-0044", "azaion-jetson-0044@azaion.com")
}

fn lives(user: User) {
    let rows = ROWS.iter().filter(|row| is_root() || !row.needs_root());
    for_each(rows, |row| format!("{} ({})", row.name, row.kind.name()), |row| life(&Bench::with(user)?, row));
}

// Promise: every usual kind of image accepts a device's file, as all independent programs confirm, and nothing else in
// it changes.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn from_the_first_device_to_the_last() {
    lives(User::Caller);
}

// Promise: images need no root privileges.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn without_any_privilege() {
    if is_root() {
        lives(User::Nobody);
    }
}
