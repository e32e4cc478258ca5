//! A flashing host with a miniature `Linux_for_Tegra`, and the boards that were flashed with it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use azaion_tests::bsp::Bsp;
use azaion_tests::dev_api::{ADMIN_EMAIL, Options};
use azaion_tests::programs::{Run, native, output, start};
use azaion_tests::record;
use azaion_tests::station::{Station, command, value_in};
use nix::unistd::geteuid;
use serde_json::Value;

const CONF: &str = "etc/azaion/device.conf";
/// Longer than any block of the page may take.
const PATIENCE: &str = "60";
/// A wrapper that adds the development API's CA, which the page's commands do not name.
const WITH_CA: &str = "#!/bin/sh
case $1 in
    device | check) exec PROGRAM \"$@\" --ca-file CA ;;
    *) exec PROGRAM \"$@\" ;;
esac
";

/// The flashing host.
#[derive(Debug)]
pub(crate) struct Factory {
    pub(crate) station: Station,
    /// The password of each serial that was found on a board.
    passwords: RefCell<BTreeMap<String, String>>,
}

impl Factory {
    pub(crate) fn new(bsp: Bsp) -> anyhow::Result<Self> {
        let station = Station::new(Options::default())?;
        bsp.unpack(&station.path("Linux_for_Tegra"))?;
        let ca = fs::read(station.api.ca_file())?;
        station.put("Linux_for_Tegra/rootfs/etc/azaion/ca.pem", ca, 0o644)?;
        let policy = "ca_file = \"/etc/azaion/ca.pem\"\n";
        station.put("Linux_for_Tegra/rootfs/etc/azaion/agent.toml", policy, 0o644)?;
        let library: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        station.put("Linux_for_Tegra/rootfs/usr/lib/library", library, 0o644)?;
        let program = native()?.join("azaion-provision");
        let (program, ca) = (program.display().to_string(), station.api.ca_file().display().to_string());
        station.put("bin/azaion-provision", WITH_CA.replace("PROGRAM", &program).replace("CA", &ca), 0o755)?;
        Ok(Self { station, passwords: RefCell::default() })
    }

    /// Returns a path in `Linux_for_Tegra`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.station.path("Linux_for_Tegra").join(name)
    }

    /// Runs commands as a person types them, with Enter at every prompt, and records their output.
    pub(crate) fn type_in(&self, commands: &str) -> anyhow::Result<Run> {
        self.station.put("enter", "\n".repeat(9), 0o600)?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.station.path("bin").display());
        let mut shell = command(Path::new("timeout"), &[PATIENCE, "sh", "-eu", "-c", commands]);
        shell
            .current_dir(self.path(""))
            .envs([("PATH", path.as_str()), ("LC_ALL", "C"), ("AZAION_API_URL", &self.station.api.url())])
            .env("AZAION_ADMIN_EMAIL", ADMIN_EMAIL)
            .env("AZAION_ADMIN_PASSWORD_FILE", self.station.path("admin-password"));
        let done = shell.stdin(File::open(self.station.path("enter"))?).output().context("starting timeout")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
        let run = Run { command_line: commands.to_owned(), code: done.status.code(), stdout, stderr };
        record::words(&run.words())?;
        Ok(run)
    }

    /// Simulates a loose cable in the flash with this number.
    pub(crate) fn cut_flash(&self, number: usize) -> anyhow::Result<()> {
        self.station.put("bench/cut", number.to_string(), 0o600)
    }

    /// Returns the number of flashed boards.
    pub(crate) fn boards(&self) -> usize {
        (1..=99).take_while(|number| self.drive(*number).exists()).count()
    }

    /// Returns the directory of a board's drive, counted from 1, with a file for each partition.
    fn drive(&self, number: usize) -> PathBuf {
        self.station.path(&format!("bench/unit-{number}"))
    }

    fn partition(&self, number: usize, partition: &str) -> PathBuf {
        self.drive(number).join(format!("{partition}.img"))
    }

    /// Returns whether a partition holds a complete file system.
    pub(crate) fn is_bootable(&self, number: usize, partition: &str) -> anyhow::Result<bool> {
        let mut check = command(Path::new("/usr/sbin/e2fsck"), &["-fn"]);
        Ok(check.arg(self.partition(number, partition)).output()?.status.success())
    }

    /// Returns the content of a partition as a directory, with modes and owners, as far as this user can set them.
    pub(crate) fn board(&self, number: usize, partition: &str) -> anyhow::Result<PathBuf> {
        let content = self.station.path(&format!("bench/content-{number}/{partition}"));
        if !content.exists() {
            ensure!(
                self.is_bootable(number, partition)?,
                "{partition} of board {number} holds no complete file system"
            );
            fs::create_dir_all(&content)?;
            let request = format!("rdump / {}", content.display());
            // Ends with 0 in any case; the caller notices missing files.
            output(Command::new("/usr/sbin/debugfs").args(["-R", &request]).arg(self.partition(number, partition)))?;
            fs::remove_dir(content.join("lost+found"))?;
        }
        Ok(content)
    }

    /// Checks that a board is this device, and no other, on each of its partitions, and that its agent becomes ready.
    /// The checksum beside each image was correct when the image was flashed.
    pub(crate) fn is_unit(&self, number: usize, serial: &str, partitions: &[&str]) -> anyhow::Result<()> {
        let found = fs::read_dir(self.drive(number))?.count();
        ensure!(found == partitions.len(), "{found} partitions, not {partitions:?}");
        let conf = |partition: &&str| self.conf_of(&self.board(number, partition)?, serial);
        let confs = partitions.iter().map(conf).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(confs.iter().all(|conf| *conf == confs[0]), "partitions of board {number} differ");
        let password = value_in(&confs[0], "AZAION_DEVICE_PASSWORD").unwrap().to_owned();
        record::secret(&password)?;
        let others: Vec<String> =
            self.passwords.borrow().iter().filter(|(other, _)| *other != serial).map(|(_, p)| p.clone()).collect();
        for other in &others {
            ensure!(files_with(&self.drive(number), other)?.is_empty(), "board {number} has another's password");
        }
        self.passwords.borrow_mut().insert(serial.to_owned(), password);
        let ready = self.start_up(number, partitions[0])?.ended_with(0)?;
        ensure!(ready.words().contains(serial), "{}", ready.words());
        self.had_right_sums()
    }

    /// Checks the expected and actual checksums that the simulated flasher recorded: the flasher itself does not
    /// compare them, but other programs do.
    fn had_right_sums(&self) -> anyhow::Result<()> {
        let Ok(sums) = fs::read_to_string(self.station.path("bench/sums")) else { return Ok(()) };
        for line in sums.lines() {
            let (is, should_be) = line.split_once('|').context("two checksums")?;
            ensure!(is.len() == 40 && is == should_be, "flashed with the checksum {is:?} instead of {should_be:?}");
        }
        Ok(())
    }

    /// Returns a partition's `device.conf` after checking the modes and owners of the contract, and that the account
    /// accepts its password.
    fn conf_of(&self, partition: &Path, serial: &str) -> anyhow::Result<String> {
        for (name, mode) in [(CONF, 0o100_600), ("etc/azaion", 0o040_755)] {
            let is = partition.join(name).symlink_metadata().with_context(|| format!("{name} of {serial}"))?;
            ensure!(is.mode() == mode, "{name} of {serial}: {:o}", is.mode());
            ensure!(!is_root() || (is.uid(), is.gid()) == (0, 0), "{name}: {}:{}", is.uid(), is.gid());
        }
        let conf = fs::read_to_string(partition.join(CONF))?;
        let value = |key| value_in(&conf, key).unwrap_or_default();
        let email = format!("azaion-jetson-{}@azaion.com", serial.trim_start_matches("AZJN-"));
        ensure!((value("AZAION_DEVICE_SERIAL"), value("AZAION_DEVICE_EMAIL")) == (serial, &email), "not {serial}");
        let lets_in = self.station.api.password_is(&email, value("AZAION_DEVICE_PASSWORD"));
        ensure!(lets_in, "the API rejects the password of {serial}");
        Ok(conf)
    }

    /// Returns the output of a board's agent when the device is switched on.
    pub(crate) fn start_up(&self, number: usize, partition: &str) -> anyhow::Result<Run> {
        let root = self.board(number, partition)?.display().to_string();
        let run = start(&mut command(&native()?.join("azaion-agent"), &["boot", "--root", &root]))?.wait()?;
        record::words(&run.words())?;
        Ok(run)
    }

    /// Checks that nothing in `Linux_for_Tegra` contains an identity: no password ever created, nor anything of that
    /// form.
    pub(crate) fn is_clear(&self) -> anyhow::Result<()> {
        let found = self.identities()?;
        ensure!(found.is_empty(), "an identity is left in {found:?}");
        Ok(())
    }

    /// Returns the files in `Linux_for_Tegra` that contain an identity.
    pub(crate) fn identities(&self) -> anyhow::Result<Vec<String>> {
        Ok([files_with(&self.path(""), "AZAION_DEVICE_")?, self.known()?].concat())
    }

    /// Returns the files of `Linux_for_Tegra` that contain the password of a board.
    pub(crate) fn known(&self) -> anyhow::Result<Vec<String>> {
        let found = self.passwords.borrow().values().map(|password| files_with(&self.path(""), password)).collect();
        anyhow::Result::<Vec<_>>::map(found, |found| found.concat())
    }

    /// Returns and removes the record that the loop writes: the outcome of each device, and of each `clear`.
    pub(crate) fn record(&self) -> anyhow::Result<Vec<String>> {
        let text = fs::read_to_string(self.path("devices.jsonl"))?;
        fs::remove_file(self.path("devices.jsonl"))?;
        let said = |line: &Value| {
            let serial = line["serial"].as_str().unwrap_or("none");
            match &line["outcome"] {
                Value::String(outcome) => format!("{serial} {outcome}"),
                _ => format!("{serial} cleared {}", line["cleared"]),
            }
        };
        text.lines().map(|line| Ok(said(&serde_json::from_str(line)?))).collect()
    }
}

/// Whether file owners can be set and checked.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Returns the files in a directory that contain these bytes, compressed or not.
fn files_with(directory: &Path, bytes: &str) -> anyhow::Result<Vec<String>> {
    let compressed =
        "find . -name 'system.img*' -exec sh -c 'zstd -qdcf \"$1\" | grep -qaFe \"$0\"' \"$0\" {} \\; -print";
    let search = format!("grep -rlaFe \"$0\" . || [ $? = 1 ]; {compressed}");
    let found = command(Path::new("sh"), &["-euc", &search, bytes]).current_dir(directory).output()?;
    ensure!(found.status.success(), "searching {}: {}", directory.display(), String::from_utf8_lossy(&found.stderr));
    Ok(String::from_utf8(found.stdout)?.lines().map(str::to_owned).collect())
}
