//! The disk of a machine, and what is on it while the machine is off.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::emulator::{Boot, Machine};
use super::run;

/// Room for the root file system and a journal.
const SIZE: u64 = 400 << 20;

/// A disk with one ext4 file system on it, and the kernel that boots from it.
#[derive(Debug)]
pub struct Disk {
    /// Stays as long as a machine runs from it.
    pub(super) folder: Arc<TempDir>,
    pub(super) kernel: PathBuf,
    pub(super) port: u16,
}

impl Disk {
    pub(super) fn of(rootfs: &Path, kernel: &Path, port: u16) -> anyhow::Result<Self> {
        let disk = Self { folder: Arc::new(tempfile::tempdir()?), kernel: kernel.to_owned(), port };
        File::create(disk.image())?.set_len(SIZE)?;
        run(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F", "-d"]).arg(rootfs).arg(disk.image()))?;
        Ok(disk)
    }

    pub(super) fn image(&self) -> PathBuf {
        self.folder.path().join("disk.img")
    }

    /// Switches a machine with this disk on.
    ///
    /// # Errors
    /// The emulator can't be started.
    pub fn boot(&self, boot: &Boot) -> anyhow::Result<Machine> {
        Machine::start(self, boot)
    }

    /// While this file is there, the machine finds nobody at the API's port.
    pub(super) fn closed(&self) -> PathBuf {
        self.folder.path().join("api-closed")
    }

    /// Takes the API's service away from the machine, or gives it back.
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

    /// The content of a file, as the machine would find it on the next boot; empty if there is none.
    ///
    /// # Errors
    /// The file system can't be read.
    pub fn read(&self, path: &str) -> anyhow::Result<String> {
        self.debugfs(&format!("cat {path}"))
    }

    /// The names in a folder.
    ///
    /// # Errors
    /// The file system can't be read.
    pub fn list(&self, path: &str) -> anyhow::Result<Vec<String>> {
        // inode/mode/uid/gid/name/size
        let lines = self.debugfs(&format!("ls -p {path}"))?;
        let names = lines.lines().filter_map(|line| line.split('/').nth(5));
        Ok(names.filter(|name| !["", ".", ".."].contains(name)).map(str::to_owned).collect())
    }

    /// Mends the file system, as a mount does after a power cut; an error if more than that was wrong.
    ///
    /// # Errors
    /// The file system has faults.
    pub fn check(&self) -> anyhow::Result<()> {
        // Replays the journal; what it finds wrong after that is an error.
        run(Command::new("/usr/sbin/e2fsck").args(["-p", "-E", "journal_only"]).arg(self.image()))?;
        run(Command::new("/usr/sbin/e2fsck").args(["-f", "-n"]).arg(self.image()))?;
        Ok(())
    }

    fn debugfs(&self, request: &str) -> anyhow::Result<String> {
        run(Command::new("/usr/sbin/debugfs").args(["-R", request]).arg(self.image()))
    }
}
