//! Runs a command in a tree, or boots it with systemd.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use azaion_agent::common::clock::{Clock, SystemClock};
use azaion_tests::programs::output;
use azaion_tests::programs::target_dir;
use azaion_tests::record;

use crate::tree::{Tree, finish};

/// Longer than a boot takes, also on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

fn nspawn(tree: &Tree) -> Command {
    let mut command = Command::new("systemd-nspawn");
    command.args(["--quiet", "--register=no", "--keep-unit", "--setenv=SYSTEMD_COLORS=0", "-D"]).arg(tree.path());
    command
}

/// Runs one command in the tree, without systemd: as in a chroot, but with /proc and /dev.
pub(crate) fn run_in(tree: &Tree, words: &[&str]) -> anyhow::Result<(bool, String)> {
    let output = finish(nspawn(tree).arg("--pipe").args(words))?;
    let text = [output.stdout, output.stderr].concat();
    // nspawn's own message about one of its directories.
    let text = String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| !line.contains("systemd/nspawn"))
        .fold(String::new(), |text, line| text + line + "\n");
    Ok((output.status.success(), text))
}

/// A booted tree, on this machine's network.
#[derive(Debug)]
pub(crate) struct Booted {
    nspawn: Child,
    leader: String,
    console: PathBuf,
    /// Such containers share one control group, so only one runs at a time.
    _alone: File,
}

impl Booted {
    /// Boots the tree, and waits until all jobs of the boot have ended or failed.
    pub(crate) fn new(tree: &Tree) -> anyhow::Result<Self> {
        let alone = File::create(target_dir().join("debian/container.lock"))?;
        alone.lock().context("waiting for another container")?;
        let console = tree.at("/console");
        let mut command = nspawn(tree);
        command.args(["--boot", "--console=read-only"]).stdin(Stdio::null()).stderr(Stdio::null());
        let nspawn = command.stdout(File::create(&console)?).spawn().context("systemd-container is missing")?;
        let mut booted = Self { nspawn, leader: String::new(), console, _alone: alone };
        let until = SystemClock.boot() + PATIENCE;
        while SystemClock.boot() < until {
            booted.leader = booted.child().unwrap_or_default();
            let state = booted.run("systemctl is-system-running --wait").unwrap_or_default();
            if ["running", "degraded"].contains(&state.trim()) {
                return Ok(booted);
            }
            SystemClock.sleep(Duration::from_millis(100));
        }
        bail!("did not boot: {}", booted.console()?)
    }

    fn child(&self) -> Option<String> {
        let id = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Some(children.split_whitespace().next()?.to_owned())
    }

    /// Returns a path of the tree as seen from outside.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.leader).into()
    }

    /// Runs a sh command line in it and returns its standard output, whatever its exit code.
    pub(crate) fn run(&self, line: &str) -> anyhow::Result<String> {
        let output = finish(self.enter().arg(line))?;
        record::words(&format!("$ {line}\n{}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a sh command line in it, which must succeed, and returns its standard output.
    pub(crate) fn must(&self, line: &str) -> anyhow::Result<String> {
        output(self.enter().arg(line))
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["--target", &self.leader, "--mount", "--uts", "--ipc", "--pid", "--root", "--wd"]);
        command.args(["sh", "-c"]);
        command
    }

    /// Waits until a command line prints `expected`.
    pub(crate) fn wait_for(&self, line: &str, expected: &str) -> anyhow::Result<()> {
        let until = SystemClock.boot() + PATIENCE;
        loop {
            let printed = self.run(line)?;
            if printed.trim() == expected {
                return Ok(());
            }
            if SystemClock.boot() > until {
                let journal = self.run("journalctl --no-pager -n 40")?;
                bail!("{line}\nprints {printed:?}, not {expected:?}\n{journal}");
            }
            SystemClock.sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the console shows these words.
    pub(crate) fn wait_for_console(&self, words: &str) -> anyhow::Result<()> {
        let until = SystemClock.boot() + PATIENCE;
        while !self.console()?.contains(words) {
            if SystemClock.boot() > until {
                bail!("the console never shows {words:?}: {}", self.console()?);
            }
            SystemClock.sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Returns the console output so far.
    pub(crate) fn console(&self) -> anyhow::Result<String> {
        let text = String::from_utf8_lossy(&fs::read(&self.console)?).into_owned();
        record::words(&text)?;
        Ok(text)
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // The first process of the container; all others end with it.
        if self.leader.is_empty() {
            let _ = self.nspawn.kill();
        } else {
            let _ = Command::new("sh").args(["-c", "kill -KILL \"$1\"", "sh", &self.leader]).status();
        }
        let _ = self.nspawn.wait();
    }
}
