//! Archives that are truncated, unusual, or of another format, and invalid checksum files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::Make::{self, By};
use super::{Row, cut, good, malformed, refused, try_all};
use crate::archive::{make, pack, put_sum, sum_file};
use crate::bench::Bench;
use crate::recipe::{self, PLAIN, Tree, patch, put, small_file};

const CONF: &str = "etc/azaion/device.conf";

/// A usual archive.
fn usual(bench: &Bench) -> anyhow::Result<()> {
    make(bench, &bench.image(), PLAIN)
}

/// An archive of another tree.
fn of(bench: &Bench, change: Tree) -> anyhow::Result<()> {
    make(bench, &bench.image(), change)
}

/// An archive packed with other options.
fn packed(bench: &Bench, options: &[&str]) -> anyhow::Result<()> {
    recipe::tree(bench, PLAIN)?;
    pack(bench, &bench.image(), options)?;
    put_sum(&bench.image())
}

/// A minimal archive, truncated, with the checksum of the rest.
fn cut_to(bench: &Bench, size: fn(u64) -> u64) -> anyhow::Result<()> {
    packed(bench, &["-b1", "."])?;
    cut(bench, size)?;
    put_sum(&bench.image())
}

/// Moves a directory of the tree, and puts a symlink to it in its place.
fn elsewhere(tree: &Path, name: &str) -> anyhow::Result<()> {
    fs::create_dir_all(tree.join(name))?;
    fs::rename(tree.join(name), tree.join("elsewhere"))?;
    Ok(symlink("/elsewhere", tree.join(name))?)
}

fn conf(tree: &Path, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    fs::create_dir_all(tree.join("etc/azaion"))?;
    make(&tree.join(CONF))
}

/// Accepted with a warning, as GNU tar does.
const fn warned(name: &'static str, make: Make) -> Row {
    Row { name, make, code: 0, says: "end-of-archive marker" }
}

const ARCHIVES: [Row; 28] = [
    refused("cut in its first header", By(|bench| cut_to(bench, |_| 600)), "it is cut"),
    refused("cut in the middle", By(|bench| cut_to(bench, |size| size / 2)), "it is cut"),
    refused("cut in its last block of content", By(|bench| cut_to(bench, |size| size - 1025)), "it is cut"),
    warned("cut before its end marks", By(|bench| cut_to(bench, |size| size - 1024))),
    warned("cut between its end marks", By(|bench| cut_to(bench, |size| size - 512))),
    warned("not of whole blocks", By(|bench| cut_to(bench, |size| size - 1))),
    good("records of 2 MiB", By(|bench| packed(bench, &["-b4096", "."]))),
    refused("something behind its end", By(|bench| followed(bench, b"x")), "something follows"),
    refused("another archive behind its end", By(|bench| followed(bench, &[b'x'; 10_240])), "something follows"),
    refused(
        "a hole behind its end",
        By(|bench| usual(bench).and_then(|()| cut(bench, |size| size + (65 << 20)))),
        "too much",
    ),
    refused("another byte in a header", By(|bench| damaged(bench, 600)), "checksum"),
    refused("no /etc", By(|bench| packed(bench, &["usr"])), "no /etc"),
    refused("only /boot", By(|bench| packed(bench, &["./boot"])), "holds only /boot"),
    refused("/etc is a symlink", By(|bench| of(bench, |tree| elsewhere(tree, "etc"))), "a symlink"),
    refused("azaion is a symlink", By(|bench| of(bench, |tree| elsewhere(tree, "etc/azaion"))), "a symlink"),
    refused(
        "azaion is a file",
        By(|bench| of(bench, |tree| put(&tree.join("etc/azaion"), "", 0o644))),
        "not a directory",
    ),
    refused("a symlink", By(|bench| of(bench, |tree| conf(tree, |at| Ok(symlink("/etc/passwd", at)?)))), "a symlink"),
    refused(
        "a directory",
        By(|bench| of(bench, |tree| conf(tree, |at| Ok(fs::create_dir(at)?)))),
        "not a regular file",
    ),
    refused(
        "a FIFO",
        By(|bench| of(bench, |tree| conf(tree, |at| Ok(mkfifo(at, Mode::S_IRUSR)?)))),
        "not a regular file",
    ),
    refused("two names", By(|bench| of(bench, two_names)), "a hard link"),
    malformed("too large", By(|bench| of(bench, |tree| put(&tree.join(CONF), [b'#'; 4097], 0o600)))),
    malformed("no text", By(|bench| of(bench, |tree| put(&tree.join(CONF), b"\x7fELF\0\0", 0o600)))),
    refused("of version 7", By(|bench| packed(bench, &["--format=v7", "."])), "no root file system"),
    refused(
        "a global header",
        By(|bench| packed(bench, &["--format=pax", "--pax-option=uid=5", "."])),
        "global header",
    ),
    refused(
        "a name with ..",
        By(|bench| packed(bench, &["-P", "--transform=s,^boot,../boot,", "boot", "etc"])),
        "`..`",
    ),
    Row { name: "nonsense", make: By(|bench| of(bench, nonsense)), code: 65, says: "device.conf:1" },
    good("a sparse file", By(|bench| of(bench, sparse_file))),
    good("no sum", By(|bench| usual(bench).and_then(|()| Ok(fs::remove_file(sum_file(&bench.image()))?)))),
];

fn followed(bench: &Bench, bytes: &[u8]) -> anyhow::Result<()> {
    usual(bench)?;
    patch(&bench.image(), fs::metadata(bench.image())?.len(), bytes)?;
    put_sum(&bench.image())
}

fn damaged(bench: &Bench, at: u64) -> anyhow::Result<()> {
    packed(bench, &["--format=gnu", "."])?;
    patch(&bench.image(), at, b"\x01")?;
    put_sum(&bench.image())
}

fn two_names(tree: &Path) -> anyhow::Result<()> {
    conf(tree, |at| put(at, "# text\n", 0o600))?;
    Ok(fs::hard_link(tree.join(CONF), tree.join("etc/zz"))?)
}

fn nonsense(tree: &Path) -> anyhow::Result<()> {
    put(&tree.join(CONF), "hush hush\n", 0o600)
}

fn sparse_file(tree: &Path) -> anyhow::Result<()> {
    Ok(fs::File::create(tree.join("usr/sparse"))?.set_len(1 << 20)?)
}

/// A usual archive with another file in place of the checksum.
fn summed(bench: &Bench, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    usual(bench)?;
    let sum = sum_file(&bench.image());
    fs::remove_file(&sum)?;
    make(&sum)
}

/// The same, with this text.
fn sum(bench: &Bench, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    summed(bench, |file| put(file, text, 0o644))
}

const SUMS: [Row; 10] = [
    refused("of another image", By(|bench| sum(bench, format!("{:040}  system.img\n", 0))), "does not match"),
    refused("empty", By(|bench| sum(bench, "")), "holds no SHA-1"),
    refused("no sum", By(|bench| sum(bench, "none, sorry  system.img\n")), "holds no SHA-1"),
    refused("a sum of MD5", By(|bench| sum(bench, "d41d8cd98f00b204e9800998ecf8427e  system.img\n")), "holds an MD5"),
    refused(
        "two sums",
        By(|bench| sum(bench, format!("{:040}  a\n{:040}  b\n", 0, 1))),
        "has several lines with a SHA-1",
    ),
    refused("no small file", By(|bench| sum(bench, vec![b' '; 1 << 20])), "not a regular file of at most 64 KiB"),
    refused("a symlink", By(|bench| summed(bench, |file| Ok(symlink("/etc/passwd", file)?))), "is a symlink"),
    refused(
        "a directory",
        By(|bench| summed(bench, |file| Ok(fs::create_dir(file)?))),
        "not a regular file of at most 64 KiB",
    ),
    refused(
        "a FIFO",
        By(|bench| summed(bench, |file| Ok(mkfifo(file, Mode::S_IRWXU)?))),
        "not a regular file of at most 64 KiB",
    ),
    refused("of another image, with a file packed", By(packed_file), "does not match"),
];

fn packed_file(bench: &Bench) -> anyhow::Result<()> {
    of(bench, small_file)?;
    put(&sum_file(&bench.image()), format!("{:040}  system.img\n", 0), 0o644)
}

// Promise: archives that are truncated, unusual or of another format are refused, unchanged, and no leftover is beside
// them.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn odd_archives() {
    try_all(&ARCHIVES);
}

// Promise: so is an archive whose checksum is wrong already, or could not be kept correct.
#[test]
fn odd_sums() {
    try_all(&SUMS);
}
