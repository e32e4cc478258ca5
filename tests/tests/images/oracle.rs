//! Independent programs that check what an image holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, ensure};
use azaion_tests::programs;
use azaion_tests::station::command;
use tempfile::{NamedTempFile, TempDir};

use crate::archive::{Unpacked, is_tar, is_tar_zst, is_zstd};

const CONF: &str = "/etc/azaion/device.conf";
const SPARSE_MAGIC: [u8; 4] = [0x3A, 0xFF, 0x26, 0xED];

/// Runs a program to its end, whatever its exit code.
pub(crate) fn output(program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = command(Path::new(program), arguments);
    command.env("LC_ALL", "C").output().with_context(|| format!("{program}: ./tests/run installs what is missing"))
}

/// Returns the standard output of a program, which must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    programs::output(command(Path::new(program), arguments).env("LC_ALL", "C"))
}

/// Returns a path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns a raw copy of an image, or of the content of a compressed file, so that no program touches the image itself.
pub(crate) fn raw_copy(image: &Path) -> anyhow::Result<NamedTempFile> {
    let raw = NamedTempFile::new()?;
    if fs::read(image)?.starts_with(&SPARSE_MAGIC) {
        run("simg2img", &[text(image), text(raw.path())])?;
    } else if is_zstd(image)? {
        run("zstd", &["-dqf", "--sparse", text(image), "-o", text(raw.path())])?;
    } else {
        run("cp", &["--sparse=always", text(image), text(raw.path())])?;
    }
    Ok(raw)
}

/// Returns the output of debugfs for a read-only request.
pub(crate) fn debugfs(raw: &Path, request: &str) -> anyhow::Result<String> {
    let output = output("debugfs", &["-R", request, text(raw)])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the content of the device's file.
pub(crate) fn content(raw: &Path) -> anyhow::Result<String> {
    debugfs(raw, &format!("cat {CONF}"))
}

/// Checks that e2fsck finds no errors.
pub(crate) fn is_clean(raw: &Path) -> anyhow::Result<()> {
    run("e2fsck", &["-f", "-n", text(raw)]).map(drop)
}

/// Checks that file and directory have the modes and owners of the contract, and that the file is one block.
pub(crate) fn is_private(raw: &Path) -> anyhow::Result<()> {
    for (path, kind, mode) in [(CONF, "regular", "0600"), ("/etc/azaion", "directory", "0755")] {
        let stat = debugfs(raw, &format!("stat {path}"))?;
        let words: Vec<&str> = stat.split_whitespace().collect();
        let after = |name: &str| words.iter().position(|word| *word == name).map_or("", |at| words[at + 1]);
        let all = (after("Type:"), after("Mode:"), after("User:"), after("Group:"));
        ensure!(all == (kind, mode, "0", "0"), "{path}: {stat}");
        ensure!(path != CONF || after("Size:") == "4096", "{path}: {stat}");
    }
    Ok(())
}

fn is_archive(image: &Path) -> anyhow::Result<bool> {
    Ok(is_tar(image)? || is_tar_zst(image)?)
}

/// Returns the content of the device's file in an image of any kind; empty if there is none.
pub(crate) fn content_in(image: &Path) -> anyhow::Result<String> {
    if is_archive(image)? { Ok(Unpacked::new(image)?.content()) } else { content(raw_copy(image)?.path()) }
}

/// Checks that an image of any kind has no errors.
pub(crate) fn is_whole(image: &Path) -> anyhow::Result<()> {
    if is_archive(image)? { Unpacked::new(image).map(drop) } else { is_clean(raw_copy(image)?.path()) }
}

/// The same, and that file and directory have the modes and owners of the contract.
pub(crate) fn is_private_in(image: &Path) -> anyhow::Result<()> {
    if is_archive(image)? {
        return Unpacked::new(image)?.is_private();
    }
    let raw = raw_copy(image)?;
    is_clean(raw.path())?;
    is_private(raw.path())
}

/// Returns the number of the block that holds the device's file.
pub(crate) fn block(raw: &Path) -> anyhow::Result<u64> {
    debugfs(raw, &format!("blocks {CONF}"))?.trim().parse().context("one block")
}

/// Returns the offsets at which two files differ, by `cmp -l`, counted from 0.
pub(crate) fn differences(one: &Path, other: &Path) -> anyhow::Result<Vec<u64>> {
    let said = output("cmp", &["-l", text(one), text(other)])?;
    ensure!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    let places = String::from_utf8(said.stdout)?;
    let place = |line: &str| Some(line.split_whitespace().next()?.parse::<u64>().ok()? - 1);
    places.lines().map(|line| place(line).context("a place")).collect()
}

/// Returns whether a file contains the bytes of `secret`, compressed or not.
pub(crate) fn has_bytes(file: &Path, secret: &str) -> anyhow::Result<bool> {
    Ok(are_in(file, secret)? || is_zstd(file)? && are_in(raw_copy(file)?.path(), secret)?)
}

fn are_in(file: &Path, secret: &str) -> anyhow::Result<bool> {
    let status = output("grep", &["-aqF", "-e", secret, text(file)])?.status;
    ensure!(matches!(status.code(), Some(0 | 1)), "grep: {status}");
    Ok(status.success())
}

/// Returns everything in an image but the device's file and its directory, as the kernel shows it: contents, modes,
/// owners, links and extended attributes.
pub(crate) fn all_else(raw: &Path) -> anyhow::Result<Vec<u8>> {
    let mounted = Mounted::new(raw, "ro")?;
    let attributes = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--sort=name", "--mtime=@0"];
    let place = ["--exclude=./etc/azaion/device.conf", "--exclude=./etc/azaion", "-C", text(mounted.path()), "-c", "."];
    let tar = output("tar", &[&attributes[..], &place].concat())?;
    ensure!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    Ok(tar.stdout)
}

/// Runs a program until it succeeds, with a limit: a process that another thread has just started may briefly hold a
/// copy of our file descriptor.
fn persist(program: &str, arguments: &[&str]) {
    let is_done = (0..100).any(|_| output(program, arguments).is_ok_and(|output| output.status.success()));
    if !is_done {
        eprintln!("{program} {arguments:?} does not succeed");
    }
}

/// A file attached to a loop device; detached when dropped.
#[derive(Debug)]
pub(crate) struct Attached(PathBuf);

impl Attached {
    pub(crate) fn new(file: &Path) -> anyhow::Result<Self> {
        Ok(Self(run("losetup", &["--find", "--show", text(file)])?.trim().into()))
    }

    /// Returns the device's path.
    pub(crate) fn device(&self) -> &Path {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        persist("losetup", &["--detach", text(&self.0)]);
    }
}

/// A file system mounted through a loop device; unmounted and detached when dropped.
#[derive(Debug)]
pub(crate) struct Mounted(TempDir);

impl Mounted {
    pub(crate) fn new(file: &Path, options: &str) -> anyhow::Result<Self> {
        let place = tempfile::tempdir()?;
        run("mount", &["-o", &format!("loop,{options}"), text(file), text(place.path())])?;
        Ok(Self(place))
    }

    /// Returns the mount point.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns a path in it.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        persist("umount", &[text(self.path())]);
    }
}

/// A file system in memory of limited size; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct InMemory(PathBuf);

impl InMemory {
    /// Mounts it over a directory.
    pub(crate) fn over(folder: &Path, size: &str) -> anyhow::Result<Self> {
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "none", text(folder)])?;
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        persist("umount", &[text(&self.0)]);
    }
}
