//! Slow surroundings: disks, people and servers.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use azaion_agent::common::clock::{Clock, SystemClock};
use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, Fault, Options};
use azaion_tests::programs::{Run, output, start};
use azaion_tests::station::{EMAIL, SERIAL, Station, command};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

/// Longer than the rest of the deadline below after slow work has used most of it.
const CALL: Duration = Duration::from_millis(300);
const DEVICE_CONF: &str = "rootfs/etc/azaion/device.conf";
const DEADLINE: [&str; 2] = ["--deadline", "2"];

fn device(station: &Station) -> anyhow::Result<Command> {
    let rootfs = station.rootfs().display().to_string();
    station.provision_command(&["device", SERIAL, "--rootfs", &rootfs, "--owner", "current"])
}

/// Runs the program on a disk that takes so many milliseconds for each sync.
fn on_a_slow_disk(station: &Station, ours: &Command, milliseconds: u32) -> anyhow::Result<Run> {
    let delay = format!("inject=fsync,fdatasync,syncfs:delay_enter={}", milliseconds * 1000);
    let options = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,syncfs", "-e", &delay];
    let mut strace = command(Path::new("strace"), &options);
    station.wait(start(strace.arg(ours.get_program()).args(ours.get_args()))?)
}

// Promise: the time of a slow disk does not count against the time for calls.
#[test]
fn a_slow_disk() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.api.inject("POST", "/users", Fault::Delay(CALL), usize::MAX);
    let mut ours = device(&station)?;
    ours.args(station.api_arguments()).args(DEADLINE);
    on_a_slow_disk(&station, &ours, 1000)?.ended_with(0)?;
    ensure!(station.api.calls("POST", "/users") == 1, "tried again");
    Ok(())
}

// Promise: neither does the time in which a person types the password, in any verb that asks for it.
#[test]
fn a_person_who_types_late() -> anyhow::Result<()> {
    for verb in ["device", "check"] {
        let station = Station::new(Options::default())?;
        station.api.inject("POST", "/login", Fault::Delay(CALL), usize::MAX);
        let ours = if verb == "device" { device(&station)? } else { station.provision_command(&["check"])? };
        let mut python = command(
            Path::new("python3"),
            &["-c", include_str!("../../scripts/terminal.py"), &format!("late:{ADMIN_PASSWORD}"), "Password of"],
        );
        python.arg(ours.get_program()).args(ours.get_args()).args(DEADLINE);
        python.args(if verb == "check" { &["--owner", "current"][..] } else { &[] });
        python.args(["--api-url", &station.api.url(), "--ca-file", &station.api.ca_file().display().to_string()]);
        let code = output(python.args(["--admin-email", ADMIN_EMAIL]))?;
        ensure!(code == "0 True\n", "{verb}: {code}");
    }
    Ok(())
}

// Promise: a server that closes idle connections costs no call: none is made twice, and no device gets another password
// because of it.
#[test]
fn a_server_that_closes_idle_connections() -> anyhow::Result<()> {
    const UNITS: usize = 4;
    let station = Station::new(Options { idle: Some(Duration::from_millis(100)), ..Options::default() })?;
    fs::create_dir(station.path("units"))?;
    let template = station.path("units/{serial}").display().to_string();
    let (base, list) = (station.rootfs().display().to_string(), format!("AZJN-0001..AZJN-{UNITS:04}"));
    let fixed = ["batch", &list, "--rootfs", &template, "--base", &base, "--owner", "current", "--jobs", "1"];
    let mut ours = station.provision_command(&fixed)?;
    ours.args(station.api_arguments());
    let run = on_a_slow_disk(&station, &ours, 300)?.ended_with(0)?;
    ensure!(!run.stderr.contains("trying again"), "{}", run.stderr);
    let calls = |method, path| station.api.calls(method, path);
    // The admin's is the only login.
    ensure!((calls("POST", "/users"), calls("POST", "/login"), calls("PATCH", "/users/password")) == (UNITS, 1, 0));
    Ok(())
}

/// Waits until a process has a handler for SIGINT (proc(5), `SigCgt`).
fn wait_until_it_listens(process: u32) -> anyhow::Result<()> {
    loop {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
        if u64::from_str_radix(caught.trim(), 16)? & (1 << (Signal::SIGINT as u32 - 1)) != 0 {
            return Ok(());
        }
        SystemClock.sleep(Duration::from_millis(10));
    }
}

// Promise: Ctrl-C ends a run with 130 at once while it waits for another run's lock, and after the current call if the
// API is slow; the target is then unchanged.
#[test]
fn interrupted_while_it_waits() -> anyhow::Result<()> {
    for is_locked in [true, false] {
        let station = Station::new(Options::default())?;
        let _lock = is_locked
            .then(|| {
                Flock::lock(File::open(station.rootfs())?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
            })
            .transpose()
            .map_err(|error: std::io::Error| error)?;
        station.api.inject("POST", "/login", Fault::Delay(Duration::from_secs(1)), usize::MAX);
        let mut ours = device(&station)?;
        let running = start(ours.args(station.api_arguments()).process_group(0))?;
        if is_locked {
            wait_until_it_listens(running.id())?;
        } else {
            while station.api.calls("POST", "/login") == 0 {
                std::thread::yield_now();
            }
        }
        let since = Instant::now();
        killpg(Pid::from_raw(running.id().try_into()?), Signal::SIGINT)?;
        let run = station.wait(running)?.ended_with(130)?;
        ensure!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        ensure!(run.stderr.contains("run this again"), "{}", run.stderr);
        ensure!(station.password().is_none() && station.api.calls("POST", "/users") == 0, "{}", run.words());
    }
    Ok(())
}

// Promise: Ctrl-C also ends a batch with 130 while it reads a list without an end.
#[test]
fn interrupted_while_it_reads() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let fifo = station.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    let list = File::options().read(true).write(true).open(&fifo)?;
    let template = station.path("{serial}").display().to_string();
    let mut ours = station.provision_command(&["batch", "-", "--rootfs", &template])?;
    let mut child = ours.args(station.api_arguments()).stdin(list.try_clone()?).process_group(0).spawn()?;
    wait_until_it_listens(child.id())?;
    killpg(Pid::from_raw(child.id().try_into()?), Signal::SIGINT)?;
    ensure!(child.wait()?.code() == Some(130));
    drop(list);
    Ok(())
}

// Promise: if the API refuses a device whose target held another program's file that is too large to be restored, no
// password of ours stays, and the run reports that the file is gone.
#[test]
fn a_large_file_can_not_be_restored() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.api.add_user(EMAIL, "another-password", "CompanionPC");
    station.put(DEVICE_CONF, vec![b'x'; 10_000], 0o600)?;
    let run = station.device(&["--replace", "--on-existing", "refuse"])?.ended_with(73)?;
    ensure!(run.stderr.contains("and can't be restored"), "{}", run.stderr);
    ensure!(!station.path(DEVICE_CONF).exists());
    Ok(())
}

/// Variable with the number of signals to a run on a directory.
const SIGNALS: &str = "AZAION_SIGNALS";

// Promise: a signal to the process group, at any time of a run on a directory, leaves a complete device or an unchanged
// target; the exit code says which.
#[test]
fn signals_at_any_time() -> anyhow::Result<()> {
    let signals: u32 = std::env::var(SIGNALS).ok().and_then(|signals| signals.parse().ok()).unwrap_or(20);
    let mut ends = [0, 0];
    for number in 0..signals {
        let station = Station::new(Options::default())?;
        for path in ["/login", "/users"] {
            station.api.inject("POST", path, Fault::Delay(Duration::from_millis(20)), usize::MAX);
        }
        let mut ours = device(&station)?;
        let running = start(ours.args(station.api_arguments()).process_group(0))?;
        // A run takes about 70 ms.
        SystemClock.sleep(Duration::from_millis(u64::from(number * 100 / signals)));
        match killpg(Pid::from_raw(running.id().try_into()?), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
        let run = station.wait(running)?;
        ensure!(matches!(run.code, Some(0 | 130) | None), "{}", run.words());
        let is_complete = station.password().is_some_and(|password| station.api.password_is(EMAIL, &password));
        ensure!(is_complete || station.password().is_none(), "neither complete nor undone: {}", run.words());
        ensure!(is_complete || run.code != Some(0), "{}", run.words());
        ensure!(station.api.user(EMAIL).is_some() == is_complete, "{}", run.words());
        ends[usize::from(is_complete)] += 1;
    }
    println!("{} undone, {} complete", ends[0], ends[1]);
    ensure!(ends[0] > 0, "{ends:?}");
    Ok(())
}
