//! Benchmarks a batch of devices against the bare API calls, and against a script for each device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use azaion_tests::dev_api::{Hashing, Options};
use azaion_tests::programs::{self, output};
use azaion_tests::station::{Station, command};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::calls::serial;
use crate::measure::{Bound, Row, in_few_turns, peak, time};
use crate::programs::script;

/// Devices in a list.
const UNITS: usize = 1_000;
/// A short list, because the script is slow.
const SHORT: usize = 50;
/// A long list.
const LONG: usize = 10_000;
/// A round is a thousand calls, so the median of a few rounds is steady.
const ROUNDS: usize = 5;
/// More rounds for the measurement that needs a precision of 1 %.
const RATE_ROUNDS: usize = 15;
/// For each device the batch also opens, validates, writes and syncs the target before the call, and confirms it
/// afterwards: about 0.15 ms of a processor that the server may need, too.
const RATE: Bound = Bound::Goal(1.0 / 0.8, 250.0);
/// The list is in memory, about 150 bytes for each device; nothing else grows with it.
const MEMORY: Bound = Bound::Goal(1.2, 3.0);

/// A flashing host with many targets.
pub(crate) struct Batch {
    program: PathBuf,
    folder: TempDir,
    station: Station,
    /// Number of serials already used.
    used: usize,
}

impl Batch {
    /// Creates it with the release programs, which must have been built.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            program: programs::target_dir().join("station/azaion-provision"),
            folder: tempfile::tempdir_in(programs::target_dir())?,
            station: Station::new(Options { hashing: Hashing::Cheap, limits: false, ..Options::default() })?,
            used: 0,
        })
    }

    /// Measures all rows.
    pub(crate) fn rows(&mut self) -> anyhow::Result<Vec<Row>> {
        let row = |what, unit, (ours, theirs), bound| Row { what, ours, theirs, unit, bound };
        let base = self.slot()?;
        let rate = in_few_turns(self, RATE_ROUNDS, |batch| batch.images(&base, true), Self::bare)?;
        let first = in_few_turns(self, 1, |batch| batch.images(&base, false), Self::bare)?;
        let scripts = in_few_turns(self, ROUNDS, Self::directories, Self::scripts)?;
        let memory = (self.memory(LONG)?, self.memory(UNITS)?);
        Ok(vec![
            row("batch of 1,000 images / its calls alone", "ms", rate, RATE),
            row("the same, each checked by e2fsck first", "ms", first, Bound::None),
            row("batch of 50 directories / script for each", "ms", scripts, Bound::Ratio(0.1)),
            row("batch of 10,000, peak memory / of 1,000", "MiB", memory, MEMORY),
        ])
    }

    /// Returns the next range of unused serials.
    fn range(&mut self, units: usize) -> (usize, usize) {
        let first = self.used + 1;
        self.used += units;
        (first, self.used)
    }

    fn batch(&self, (first, last): (usize, usize), targets: &Path) -> Command {
        let mut command = command(&self.program, &["batch", &format!("{}..{}", serial(first), serial(last))]);
        command.arg("--owner").arg(if geteuid().is_root() { "root" } else { "current" });
        command.arg("--rootfs").arg(targets.join("{serial}")).args(self.station.api_arguments());
        command
    }

    /// Creates a small image with a slot and no device.
    fn slot(&self) -> anyhow::Result<PathBuf> {
        let (empty, image) = (self.folder.path().join("empty"), self.folder.path().join("base.img"));
        fs::create_dir_all(empty.join("etc"))?;
        let mut make =
            command(Path::new("mkfs.ext4"), &["-q", "-F", "-b", "4096", "-O", "^has_journal", "-N", "32", "-d"]);
        output(make.arg(&empty).arg(&image).arg("256k"))?;
        for words in [&["device", "AZJN-BASE"][..], &["clear"]] {
            let mut ours = command(&self.program, words);
            match words {
                ["clear"] => ours.arg(&image),
                _ => ours.arg("--rootfs").arg(&image).args(self.station.api_arguments()),
            };
            output(&mut ours)?;
        }
        Ok(image)
    }

    /// Measures a batch on a thousand copies of the image, made by another program and synced to the disk. `is_known`
    /// says that an earlier run has already checked each with e2fsck.
    fn images(&mut self, base: &Path, is_known: bool) -> anyhow::Result<f64> {
        let (units, folder) = (self.range(UNITS), tempfile::tempdir_in(self.folder.path())?);
        for number in units.0..=units.1 {
            fs::copy(base, folder.path().join(serial(number)))?;
        }
        if is_known {
            output(self.batch(units, folder.path()).arg("--dry-run"))?;
        }
        output(&mut Command::new("sync"))?;
        time(self.batch(units, folder.path()))
    }

    /// Measures the minimum a batch has to do: the calls alone.
    fn bare(&mut self) -> anyhow::Result<f64> {
        let (first, last) = self.range(UNITS);
        let mut calls = Command::new(std::env::current_exe()?);
        calls.arg("calls").arg(self.station.api.url()).arg(self.station.api.ca_file());
        calls.args([first, last].map(|number| number.to_string()));
        time(calls)
    }

    fn directories(&mut self) -> anyhow::Result<f64> {
        let (units, folder) = (self.range(SHORT), tempfile::tempdir_in(self.folder.path())?);
        for number in units.0..=units.1 {
            fs::create_dir_all(folder.path().join(serial(number)).join("etc"))?;
        }
        time(self.batch(units, folder.path()))
    }

    fn scripts(&mut self) -> anyhow::Result<f64> {
        let (first, last) = self.range(SHORT);
        let mut all = 0.0;
        for number in first..=last {
            let serial = serial(number);
            let rootfs = self.folder.path().join("scripts").join(&serial);
            fs::create_dir_all(rootfs.join("etc"))?;
            all += time(script(&self.station, &serial, &rootfs))?;
        }
        Ok(all)
    }

    /// Returns the peak memory of a batch of so many devices, each with a directory copied from a template.
    fn memory(&mut self, units: usize) -> anyhow::Result<f64> {
        let (units, folder) = (self.range(units), tempfile::tempdir_in(self.folder.path())?);
        let base = folder.path().join("base");
        fs::create_dir_all(base.join("etc"))?;
        let mut command = self.batch(units, folder.path());
        peak(command.arg("--base").arg(base))
    }
}
