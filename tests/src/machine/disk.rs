//! The disk of a machine, and access to it while the machine is off.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::emulator::{Boot, Machine};
use crate::programs::output;

/// Large enough for the root file system and a journal.
pub(super) const SIZE: u64 = 400 << 20;

/// A disk with one ext4 file system on it, and the kernel that boots from it.
#[derive(Debug)]
pub struct Disk {
    /// Exists as long as a machine runs from it.
    pub(super) folder: Arc<TempDir>,
    pub(super) kernel: PathBuf,
    /// Ports of this machine's loopback address that the emulated one can reach, the API's first.
    pub(super) ports: Vec<u16>,
}

impl Disk {
    pub(super) fn of(rootfs: &Path, kernel: &Path, port: u16) -> anyhow::Result<Self> {
        let disk = Self { folder: Arc::new(tempfile::tempdir()?), kernel: kernel.to_owned(), ports: vec![port] };
        File::create(disk.image())?.set_len(SIZE)?;
        output(
            Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F", "-b", "4096", "-d"]).arg(rootfs).arg(disk.image()),
        )?;
        Ok(disk)
    }

    /// Returns the drive of a flashed board: its partition with the root file system.
    pub(super) fn flashed(partition: &Path, kernel: &Path, port: u16) -> anyhow::Result<Self> {
        let disk = Self { folder: Arc::new(tempfile::tempdir()?), kernel: kernel.to_owned(), ports: vec![port] };
        output(Command::new("cp").arg("--sparse=always").arg(partition).arg(disk.image()))?;
        Ok(disk)
    }

    pub(super) fn image(&self) -> PathBuf {
        self.folder.path().join("disk.img")
    }

    /// The same, but the machine can reach one more port of this machine's loopback address.
    #[must_use]
    pub fn reaching(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Boots a machine from this disk.
    ///
    /// # Errors
    /// The emulator can't be started.
    pub fn boot(&self, boot: &Boot) -> anyhow::Result<Machine> {
        Machine::start(self, boot)
    }

    /// Returns the path of the file that, while it exists, makes connections to the API's port fail.
    pub(super) fn closed(&self) -> PathBuf {
        self.folder.path().join("api-closed")
    }

    /// Makes the API unavailable to the machine, or available again.
    ///
    /// # Errors
    /// The I/O error.
    pub fn close_api(&self, closed: bool) -> anyhow::Result<()> {
        if closed {
            File::create(self.closed())?;
        } else {
            fs::remove_file(self.closed())?;
        }
        Ok(())
    }

    /// Returns the content of a file as the machine would read it on the next boot; empty if there is none.
    ///
    /// # Errors
    /// The file system can't be read.
    pub fn read(&self, path: &str) -> anyhow::Result<String> {
        self.debugfs(&format!("cat {path}"))
    }

    /// Changes the text of a file that fills one block, in place.
    ///
    /// # Errors
    /// There is no such file, or its text grew.
    pub(super) fn edit(&self, path: &str, change: impl FnOnce(&str) -> String) -> anyhow::Result<()> {
        let block: u64 = self.debugfs(&format!("blocks {path}"))?.trim().parse().context("the file's one block")?;
        let mut text = change(self.read(path)?.trim_end()).into_bytes();
        ensure!(text.len() < 4096, "{path} no longer fits its block");
        text.resize(4096, b'\n');
        Ok(File::options().write(true).open(self.image())?.write_all_at(&text, block * 4096)?)
    }

    /// Returns the names in a directory.
    ///
    /// # Errors
    /// The file system can't be read.
    pub fn list(&self, path: &str) -> anyhow::Result<Vec<String>> {
        // inode/mode/uid/gid/name/size
        let lines = self.debugfs(&format!("ls -p {path}"))?;
        let names = lines.lines().filter_map(|line| line.split('/').nth(5));
        Ok(names.filter(|name| !["", ".", ".."].contains(name)).map(str::to_owned).collect())
    }

    /// Repairs the file system as a mount does after a power cut; fails if it has other errors.
    ///
    /// # Errors
    /// The file system has faults.
    pub fn check(&self) -> anyhow::Result<()> {
        // Replays the journal; an inconsistency found after that is an error.
        output(Command::new("/usr/sbin/e2fsck").args(["-p", "-E", "journal_only"]).arg(self.image()))?;
        output(Command::new("/usr/sbin/e2fsck").args(["-f", "-n"]).arg(self.image()))?;
        Ok(())
    }

    fn debugfs(&self, request: &str) -> anyhow::Result<String> {
        output(Command::new("/usr/sbin/debugfs").args(["-R", request]).arg(self.image()))
    }
}
