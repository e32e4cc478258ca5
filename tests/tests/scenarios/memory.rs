//! Secrets in the memory of both programs, as root can read it: present where needed, and removed afterwards.
//!
//! strace stops a program at one of its system calls; the test then reads all memory that the program could have
//! written.

use std::alloc::System;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, bail, ensure};
use azaion_agent::common::clock::{Clock, SystemClock};
use azaion_tests::dev_api::{ADMIN_PASSWORD, Fault, Options};
use azaion_tests::programs::{Running, arm64_agent, copy_to, native, output, start};
use azaion_tests::station::{SERIAL, Station, command};

// Promise: only the two programs wipe freed memory; users of their libraries can choose another allocator. This does
// not compile if one of the libraries has a global allocator.
#[global_allocator]
static OF_THESE_TESTS: System = System;

/// Longer than any of these runs takes, also on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

const PAGE: usize = 4096;
/// An unprivileged user.
const NOBODY: u32 = 65534;

/// A program that strace stops when it enters a system call.
struct Held {
    strace: Running,
    id: u32,
}

impl Held {
    /// Starts a program, and waits until it makes `call` for the first time.
    fn at(call: &str, program: &Command, station: &Station) -> anyhow::Result<Self> {
        let trace = station.path("trace");
        // From the previous run.
        let _ = fs::remove_file(&trace);
        let hold = format!("inject={call}:delay_enter={}:when=1", 2 * PATIENCE.as_micros());
        let mut strace = Command::new("strace");
        // Only the program itself: its child processes are not stopped.
        strace.args(["-qq", "-e", &format!("trace={call}"), "-e", &hold, "-o"]).arg(&trace);
        strace.arg(program.get_program()).args(program.get_args()).env_clear();
        strace.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let strace = start(&mut strace)?;
        let until = SystemClock.boot() + PATIENCE;
        while SystemClock.boot() < until {
            if fs::read_to_string(&trace).is_ok_and(|text| text.contains(call))
                && let Some(id) = tracee(strace.id(), program)
            {
                return Ok(Self { strace, id });
            }
            std::thread::yield_now();
        }
        bail!("{program:?} never made the call {call}")
    }

    /// Returns how often each secret is in its memory, and the number of encoded token starts of any token (`{"` in
    /// base64url). A secret counts as often as the most frequent of some pieces of it, because freed memory may have
    /// lost its first bytes.
    fn finds(&self, secrets: &[&str]) -> anyhow::Result<(Vec<usize>, usize)> {
        ensure!(secrets.iter().all(|secret| secret.len() >= 16), "a secret of the test is missing");
        let memory = writable_memory(self.id)?;
        let count = |piece: &[u8]| memory.windows(piece.len()).filter(|window| window == &piece).count();
        let copies = |secret: &&str| {
            let pieces = secret.as_bytes().chunks_exact(8);
            let step = pieces.len().div_ceil(4);
            pieces.step_by(step).map(count).max().unwrap_or_default()
        };
        let is_base64url = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
        let is_part = |window: &&[u8]| window.starts_with(b"eyJ") && window.iter().all(is_base64url);
        Ok((secrets.iter().map(copies).collect(), memory.windows(20).filter(is_part).count()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = signal(self.id, "KILL");
        let _ = self.strace.kill();
    }
}

fn signal(id: u32, name: &str) -> std::io::Result<ExitStatus> {
    command(Path::new("sh"), &["-c", "kill -$1 $2", "sh", name, &id.to_string()]).status()
}

/// Returns the process that strace started; for a moment it has others, which probe kernel features.
fn tracee(strace: u32, program: &Command) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).ok()?;
    let is_it = |id: &&str| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == program.get_program());
    children.split_whitespace().find(is_it)?.parse().ok()
}

/// Returns all writable memory of a process except zero pages. Secrets that must be present prove that the memory is
/// read at all.
fn writable_memory(id: u32) -> anyhow::Result<Vec<u8>> {
    let memory = File::open(format!("/proc/{id}/mem")).context("opening its memory")?;
    let (mut bytes, mut page) = (Vec::new(), [0; PAGE]);
    for line in fs::read_to_string(format!("/proc/{id}/maps"))?.lines() {
        let (range, rest) = line.split_once(' ').context("a region")?;
        let (start, end) = range.split_once('-').context("its range")?;
        // Not executable memory: that is code which the emulator generated.
        if !rest.starts_with("rw-") {
            continue;
        }
        for at in (u64::from_str_radix(start, 16)?..u64::from_str_radix(end, 16)?).step_by(PAGE) {
            // Pages beyond the end of a mapped file have no content.
            if memory.read_exact_at(&mut page, at).is_ok() && page != [0; PAGE] {
                bytes.extend_from_slice(&page);
            }
        }
    }
    Ok(bytes)
}

fn agent(station: &Station, verb: &str) -> anyhow::Result<Command> {
    let mut agent = command(&native()?.join("azaion-agent"), &[verb, "--root"]);
    agent.arg(station.rootfs());
    Ok(agent)
}

/// Runs the shipped agent, with its own C library; its memory is part of the emulator's.
fn shipped_agent(station: &Station, verb: &str) -> anyhow::Result<Command> {
    let mut agent = command(Path::new("/usr/bin/qemu-aarch64-static"), &[]);
    agent.arg(arm64_agent()?).args([verb, "--root"]).arg(station.rootfs());
    Ok(agent)
}

/// The agent with a verb, as built for this machine and for the device.
const KINDS: [fn(&Station, &str) -> anyhow::Result<Command>; 2] = [agent, shipped_agent];

fn ready_station() -> anyhow::Result<(Station, String)> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    let password = station.password().context("a password")?;
    Ok((station, password))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn field(station: &Station, file: &str, field: &str) -> String {
    station.json(file).and_then(|json| Some(json[field].as_str()?.to_owned())).unwrap_or_default()
}

// Promise: when the agent has made the device ready, neither the password nor a token is in its memory any more, not
// even in freed memory.
#[test]
#[cfg_attr(not(all(root, long)), ignore = "needs root and ./tests/run --all")]
fn nothing_is_left_in_the_agent() -> anyhow::Result<()> {
    for kind in KINDS {
        let (station, password) = ready_station()?;
        for verb in ["boot", "token", "status"] {
            let held = Held::at("exit_group", &kind(&station, verb)?, &station)?;
            let access = field(&station, "run/azaion/token.json", "access_token");
            let refresh = field(&station, "run/azaion/refresh.json", "refresh_token");
            let (copies, parts) = held.finds(&[&password, &access, &refresh])?;
            println!("{verb}: password, access token, refresh token: {copies:?}; parts of tokens: {parts}");
            assert_eq!((copies, parts), (vec![0; 3], 0), "{verb}");
        }
    }
    Ok(())
}

// Promise: while the agent waits to try again, its memory has the password once, where the next try needs it.
#[test]
#[cfg_attr(not(all(root, long)), ignore = "needs root and ./tests/run --all")]
fn the_agent_keeps_one_copy_while_it_waits() -> anyhow::Result<()> {
    for kind in KINDS {
        let (station, password) = ready_station()?;
        let later = Fault::Status { code: 503, error: None, headers: Vec::new() };
        station.api.inject("POST", "/login", later, usize::MAX);
        let calls = station.api.calls("POST", "/login");
        let held = Held::at("clock_nanosleep", &kind(&station, "boot")?, &station)?;
        assert!(station.api.calls("POST", "/login") > calls, "it has not sent the password yet");
        assert_eq!(held.finds(&[&password])?, (vec![1], 0));
    }
    Ok(())
}

// Promise: when the host tool has finished, neither password nor token is in its memory any more; only values from the
// environment stay there, because that block belongs to the system.
#[test]
#[cfg_attr(not(all(root, long)), ignore = "needs root and ./tests/run --all")]
fn nothing_is_left_in_the_host_tool() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let (rootfs, image) = (text(&station.rootfs()), text(&station.path("system.img")));
    output(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096", "-d", &rootfs, &image, "16M"]))?;
    let api = station.api_arguments();
    let api: Vec<&str> = api.iter().map(String::as_str).collect();
    let both = ["device", SERIAL, "--rootfs", &rootfs, "--rootfs", &image, "--verify"];
    let one = ["device", SERIAL, "--rootfs", &rootfs, "--replace"];
    for (arguments, clear_first, in_environment) in [
        ([&both[..], &api].concat(), false, 0),
        ([&["check", "--rootfs", &image], &api[..]].concat(), false, 0),
        (vec!["inspect", &rootfs, &image], false, 0),
        // Without the password file, which comes last; with a new device, because otherwise no admin is needed.
        ([&one[..], &api[..api.len() - 2]].concat(), true, 1),
        (vec!["clear", &rootfs, &image], false, 0),
    ] {
        if clear_first {
            station.provision_offline(&["clear", &rootfs])?.ended_with(0)?;
        }
        let mut host = station.provision_command(&arguments)?;
        if in_environment > 0 {
            host.env("AZAION_ADMIN_PASSWORD", ADMIN_PASSWORD);
        }
        let before = station.password();
        let held = Held::at("exit_group", &host, &station)?;
        let password = station.password().or(before).context("a password")?;
        let (copies, parts) = held.finds(&[ADMIN_PASSWORD, &password])?;
        println!("{}: the admin's and the device's password: {copies:?}; parts of tokens: {parts}", arguments[0]);
        assert_eq!((copies, parts), (vec![in_environment, 0], 0), "{arguments:?}");
    }
    Ok(())
}

/// A command of an unprivileged user without a limit on core dumps.
fn as_nobody(station: &Station, program: &str) -> Command {
    let mut command = command(Path::new("prlimit"), &["--core=unlimited:unlimited", "setpriv", "--clear-groups"]);
    command.args(["--reuid", "65534", "--regid", "65534", program]).current_dir(station.rootfs());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Checks what a program of an unprivileged user exposes to others, and leaves behind.
fn is_closed(station: &Station, mut program: Command) -> anyhow::Result<()> {
    let calls = station.api.calls("POST", "/login");
    let mut child = program.spawn()?;
    let until = SystemClock.boot() + PATIENCE;
    while station.api.calls("POST", "/login") == calls {
        ensure!(SystemClock.boot() < until && child.try_wait()?.is_none(), "{program:?} never logs in");
        std::thread::yield_now();
    }
    let proc = format!("/proc/{}", child.id());
    let read = |name: &str| fs::read_to_string(format!("{proc}/{name}"));
    let line_of = |text: String, key: &str| text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
    let user = line_of(read("status")?, "Uid:").context("a user")?;
    assert_eq!(user.split_whitespace().nth(1), Some("65534"), "it does not run as the user nobody");
    let limit = line_of(read("limits")?, "Max core file size").context("a limit")?;
    assert_eq!(limit.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    // For a dumpable process these files belong to its user.
    assert_eq!(fs::metadata(format!("{proc}/mem"))?.uid(), 0);
    let looked = as_nobody(station, "cat").arg(format!("{proc}/environ")).status()?;
    assert!(!looked.success(), "another process of the same user can read its memory");

    signal(child.id(), "ABRT")?;
    let end = child.wait()?;
    assert_eq!((end.signal(), end.core_dumped()), (Some(6), false));
    let names =
        fs::read_dir(station.rootfs())?.map(|entry| Ok(entry?.file_name())).collect::<anyhow::Result<Vec<_>>>()?;
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("core")), "{names:?}");
    Ok(())
}

// Promise: neither program leaves a core dump, whatever limits it was started with, and no other process of the same
// user can read its memory.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn no_core_dumps() -> anyhow::Result<()> {
    let (station, _) = ready_station()?;
    let rootfs = station.rootfs();
    for name in ["", "etc", "etc/azaion", "etc/azaion/device.conf"] {
        chown(station.inside(name), Some(NOBODY), Some(NOBODY))?;
    }
    chown(station.path("admin-password"), Some(NOBODY), Some(NOBODY))?;
    for name in ["azaion-agent", "azaion-provision"] {
        copy_to(name, &station.path(name))?;
    }
    let ca_file = station.api.ca_file();
    for path in [station.path("").as_path(), ca_file.parent().context("the CA's directory")?, &ca_file] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    station.api.inject("POST", "/login", Fault::Status { code: 503, error: None, headers: Vec::new() }, usize::MAX);

    let mut agent = as_nobody(&station, &text(&station.path("azaion-agent")));
    agent.args(["boot", "--root"]).arg(&rootfs);
    is_closed(&station, agent)?;
    let mut host = as_nobody(&station, &text(&station.path("azaion-provision")));
    host.args(["device", SERIAL, "--owner", "current", "--rootfs"]).arg(&rootfs).args(station.api_arguments());
    is_closed(&station, host)
}
