//! The machine: an emulator, its serial console, and a root shell inside.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use azaion_agent::common::clock::Timestamp;
use tempfile::TempDir;

use super::disk::Disk;
use super::pause;
use crate::record;

/// Longer than any command takes, also on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(2);
/// The line after the output of a command, followed by its exit code.
const MARK: &str = "== end of output, exit code ";

/// Options of a boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boot {
    /// The time of the board's clock at power-on; the time of this machine if not given.
    pub clock: Option<Timestamp>,
    /// Whether its network cable is unplugged.
    pub unplugged: bool,
    /// Whether its time follows the number of executed instructions, which makes it independent of the load of this
    /// machine. It then sees shared outside events at another pace.
    pub steady: bool,
}

/// A running machine; dropping it powers it off.
#[derive(Debug)]
pub struct Machine {
    emulator: Child,
    hand: ChildStdin,
    answers: Receiver<String>,
    folder: TempDir,
    _disk: Arc<TempDir>,
    started: Instant,
}

impl Machine {
    pub(super) fn start(disk: &Disk, boot: &Boot) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = emulator(disk, &folder.path().join("console"));
        if let Some(clock) = boot.clock {
            command.args(["-rtc", &format!("base={}", clock.to_string().trim_end_matches('Z'))]);
        }
        if boot.steady {
            // 1 ns an instruction, on one core: slower than an Orin, which has six cores that execute more than one
            // each.
            command.args(["-icount", "shift=0,sleep=on"]);
        }
        command.args(["-monitor", &format!("unix:{},server=on,wait=off", folder.path().join("monitor").display())]);
        let mut emulator = command.spawn().context("starting qemu-system-aarch64")?;
        let hand = emulator.stdin.take().context("the shell's input")?;
        let output = BufReader::new(emulator.stdout.take().context("the shell's output")?);
        let (said, answers) = mpsc::channel();
        // Ends with the emulator.
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)).ok();
        });
        let mut machine =
            Self { emulator, hand, answers, folder, _disk: Arc::clone(&disk.folder), started: Instant::now() };
        if boot.unplugged {
            machine.plug(false)?;
        }
        Ok(machine)
    }

    /// Plugs the network cable in, or unplugs it.
    ///
    /// # Errors
    /// The emulator can't be asked to.
    pub fn plug(&mut self, plugged: bool) -> anyhow::Result<()> {
        let path = self.folder.path().join("monitor");
        let until = Instant::now() + PATIENCE;
        let mut monitor = loop {
            match UnixStream::connect(&path) {
                Ok(monitor) => break monitor,
                Err(error) => ensure!(Instant::now() < until, "the emulator's monitor: {error}"),
            }
            pause(Duration::from_millis(20));
        };
        monitor.set_read_timeout(Some(PATIENCE))?;
        writeln!(monitor, "set_link net {}", if plugged { "on" } else { "off" })?;
        // Complete when it shows the second prompt; the first one follows its greeting.
        let mut said = String::new();
        let mut byte = [0];
        while said.matches("(qemu)").count() < 2 {
            monitor.read_exact(&mut byte).context("the emulator's monitor")?;
            said.push(char::from(byte[0]));
        }
        Ok(())
    }

    /// Returns the time since it was switched on.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits without using its shell until it has been on for so long: the shell of a busy machine may answer too late.
    pub fn wait_for_age(&self, age: Duration) {
        pause(age.saturating_sub(self.age()));
    }

    fn console_file(&self) -> PathBuf {
        self.folder.path().join("console")
    }

    /// Returns all output of the serial console so far.
    pub fn console(&self) -> String {
        fs::read(self.console_file()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until the console shows a line with all of these words, and returns it.
    ///
    /// # Errors
    /// It did not come in time, or the machine went off; the message has the console's end.
    pub fn wait_for_line(&mut self, words: &[&str], limit: Duration) -> anyhow::Result<String> {
        let until = Instant::now() + limit;
        loop {
            let off = self.emulator.try_wait()?.is_some();
            let console = self.console();
            if let Some(line) = console.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return Ok(line.trim().to_owned());
            }
            if off || Instant::now() > until {
                bail!("no line with {words:?} within {limit:?} (off: {off}); {}", last_words(&console));
            }
            pause(Duration::from_millis(100));
        }
    }

    /// Runs a command in the machine's shell, as root.
    ///
    /// # Errors
    /// It fails, or the machine does not answer.
    pub fn run(&mut self, command: &str) -> anyhow::Result<String> {
        let (code, output) = self.attempt(command)?;
        ensure!(code == 0, "in the machine, {command:?} ended with {code}: {output}");
        Ok(output)
    }

    /// As [`Machine::run`], but returns the exit code.
    ///
    /// # Errors
    /// The machine does not answer.
    pub fn attempt(&mut self, command: &str) -> anyhow::Result<(i32, String)> {
        writeln!(self.hand, "( {command}\n) </dev/null 2>&1; code=$?; echo; echo \"{MARK}$code\"")?;
        self.hand.flush()?;
        let mut output = String::new();
        let until = Instant::now() + PATIENCE;
        loop {
            let Ok(line) = self.answers.recv_timeout(until.saturating_duration_since(Instant::now())) else {
                bail!("no answer to {command:?}; {}", last_words(&self.console()));
            };
            if let Some(code) = line.strip_prefix(MARK) {
                return Ok((code.trim().parse()?, output.trim_end().to_owned()));
            }
            writeln!(output, "{line}")?;
        }
    }

    /// Runs a command repeatedly until its output has these words.
    ///
    /// # Errors
    /// It never had, within the limit.
    pub fn run_until(&mut self, command: &str, words: &str, limit: Duration) -> anyhow::Result<String> {
        let until = Instant::now() + limit;
        loop {
            let (_, output) = self.attempt(command)?;
            if output.contains(words) {
                return Ok(output);
            }
            ensure!(Instant::now() < until, "{command:?} did not print {words:?} within {limit:?}, but: {output}");
            pause(Duration::from_millis(500));
        }
    }

    /// Shuts it down cleanly, and waits until it is off.
    ///
    /// # Errors
    /// It does not go off.
    pub fn power_off(mut self) -> anyhow::Result<()> {
        writeln!(self.hand, "systemctl poweroff")?;
        let until = Instant::now() + PATIENCE;
        while self.emulator.try_wait()?.is_none() {
            ensure!(Instant::now() < until, "the machine does not power off; {}", last_words(&self.console()));
            pause(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Cuts the power.
    pub fn cut_power(self) {
        // As dropping does.
        drop(self);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
        let clean = record::words(&self.console());
        assert!(thread::panicking() || clean.is_ok(), "on the machine's console: {clean:?}");
    }
}

fn emulator(disk: &Disk, console: &Path) -> Command {
    let forward = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/arm64-forward.sh");
    // Restricted: these ports are all that the machine can reach.
    let closed = disk.closed().display().to_string();
    let ports = disk.ports.iter().map(|port| format!("guestfwd=tcp:10.0.2.2:{port}-cmd:{forward} {port} {closed}"));
    let network: Vec<_> =
        ["user,id=net,restrict=on,host=10.0.2.9,dns=10.0.2.8".to_owned()].into_iter().chain(ports).collect();
    let network = network.join(",");
    let mut command = Command::new("/usr/bin/setpriv");
    command
        // The machine ends with the test, however that ends.
        .args(["--pdeathsig", "KILL", "/usr/bin/qemu-system-aarch64"])
        // A cheap form of pointer authentication: the real one takes half of the time.
        .args(["-M", "virt", "-cpu", "max,pauth-impdef=on", "-m", "512", "-smp", "1"])
        .args(["-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&disk.kernel)
        .args(["-append", "console=ttyAMA0 root=/dev/nvme0n1 rw rootwait init=/lib/systemd/systemd panic=-1"])
        .arg("-drive")
        // Data that the machine has not flushed to the disk is lost in a power cut.
        .arg(format!("if=none,id=disk,format=raw,cache=writeback,file={}", disk.image().display()))
        .args(["-device", "nvme,drive=disk,serial=disk", "-serial"])
        .arg(format!("file:{}", console.display()))
        .args(["-netdev", &network, "-device", "virtio-net-pci,netdev=net,romfile="])
        .args(["-device", "virtio-serial-pci", "-chardev", "stdio,id=hand"])
        .args(["-device", "virtserialport,chardev=hand,name=hand"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

fn last_words(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let last = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
    format!("the console's end:\n{}", last.join("\n"))
}
