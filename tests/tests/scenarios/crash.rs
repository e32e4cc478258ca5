//! A host or a device that dies between any two steps: the next run continues, and ends as if nothing had happened.
//!
//! strace kills the program, as a power cut would, at the n-th call of each system call with an effect.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use azaion_tests::dev_api::Options;
use azaion_tests::programs::{Run, native, start};
use azaion_tests::station::{EMAIL, SERIAL, Station};

/// The system calls by which the program changes files or uses the API.
const EFFECTS: &str = "mkdirat,openat,openat2,fchmod,fchown,write,writev,sendto,sendmsg,recvfrom,fsync,linkat,renameat,renameat2,unlinkat,connect";

/// The program under test with its arguments.
type Program = fn(&Station) -> anyhow::Result<Command>;

fn host(station: &Station) -> anyhow::Result<Command> {
    let mut command = Command::new(native()?.join("azaion-provision"));
    command.args(["device", SERIAL, "--owner", "current", "--rootfs"]).arg(station.rootfs()).arg("--replace");
    command.args(station.api_arguments());
    Ok(command)
}

fn assigning_host(station: &Station) -> anyhow::Result<Command> {
    let mut command = Command::new(native()?.join("azaion-provision"));
    command.args(["device", "--server-assigned", "--owner", "current", "--rootfs"]).arg(station.rootfs());
    command.args(station.api_arguments());
    Ok(command)
}

fn agent(station: &Station) -> anyhow::Result<Command> {
    let mut command = Command::new(native()?.join("azaion-agent"));
    command.args(["boot", "--root"]).arg(station.rootfs());
    Ok(command)
}

/// Runs the program under strace.
fn traced(station: &Station, program: Program, strace: &[&str]) -> anyhow::Result<Run> {
    let program = program(station)?;
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", &format!("trace={EFFECTS}")]).args(strace);
    station.wait(start(command.arg(program.get_program()).args(program.get_args()))?)
}

/// Returns how often an undisturbed run makes each call.
fn count(station: &Station, program: Program) -> anyhow::Result<BTreeMap<String, usize>> {
    let trace = station.path("trace");
    traced(station, program, &["-o", &trace.display().to_string()])?.ended_with(0)?;
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(trace)?.lines() {
        let call = line.split_whitespace().nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
        if EFFECTS.split(',').any(|effect| effect == call) {
            *counts.entry(call.to_owned()).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

/// A step of a test on a host.
type Step = fn(&Station) -> anyhow::Result<()>;

/// Kills a run at every effect, each time from the state that `prepare` creates; `after` checks what is left.
/// `may_leave_staged` permits a leftover staged copy.
fn crash_everywhere(program: Program, prepare: Step, after: Step, may_leave_staged: bool) -> anyhow::Result<()> {
    let fresh = || {
        let station = Station::new(Options::default())?;
        prepare(&station).map(|()| station)
    };
    let mut killed = 0;
    for (call, times) in count(&fresh()?, program)? {
        for time in 1..=times {
            let station = fresh()?;
            let place = format!("{call} {time} of {times}");
            let inject = format!("inject={call}:signal=SIGKILL:when={time}");
            match traced(&station, program, &["-o", "/dev/null", "-e", &inject]) {
                Ok(run) => killed += usize::from(run.code != Some(0)),
                Err(error) => assert!(may_leave_staged, "{place}: {error:#}"),
            }
            after(&station).and_then(|()| station.no_leftovers()).map_err(|error| error.context(place))?;
        }
    }
    println!("killed at {killed} calls");
    assert!(killed > 20, "only {killed} calls were hit");
    Ok(())
}

/// Checks that the next run ends with one user and a file that the API accepts.
fn provisions(station: &Station) -> anyhow::Result<()> {
    station.device(&["--replace"])?.ended_with(0)?;
    anyhow::ensure!(station.api.users().len() == 1, "{:?}", station.api.users());
    let password = station.password().unwrap_or_default();
    anyhow::ensure!(station.api.password_is(EMAIL, &password), "the API rejects the file's password");
    Ok(())
}

/// Checks that the next run ends with an identity that the API accepts. At most one user is left over, and then the run
/// reports it.
fn assigns(station: &Station) -> anyhow::Result<()> {
    let run = station.wait(start(&mut assigning_host(station)?)?)?.ended_with(0)?;
    let email = station.conf("AZAION_DEVICE_EMAIL").unwrap_or_default();
    let password = station.password().unwrap_or_default();
    anyhow::ensure!(station.api.password_is(&email, &password), "the API rejects the file's password");
    let (users, is_told) = (station.api.users().len(), run.stderr.contains("no device has"));
    anyhow::ensure!(users == 1 || users == 2 && is_told, "{users} users, reported: {is_told}");
    Ok(())
}

/// A file that must survive a power cut.
const HISTORY: &str = "var/lib/azaion/history.json";

/// Checks that existing files are complete, and that the next run is ready with exactly the files of the contract.
fn becomes_ready(station: &Station) -> anyhow::Result<()> {
    let names = || -> anyhow::Result<Vec<String>> {
        let Ok(entries) = fs::read_dir(station.inside("run/azaion")) else { return Ok(Vec::new()) };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    for name in names()?.iter().filter(|name| Path::new(name).extension().is_some_and(|e| e == "json")) {
        anyhow::ensure!(station.json(&format!("run/azaion/{name}")).is_some(), "{name} is incomplete");
    }
    if station.inside(HISTORY).exists() {
        anyhow::ensure!(station.json(HISTORY).is_some(), "the history is incomplete");
    }
    station.agent(&["boot"])?.ended_with(0)?;
    let mut names = names()?;
    names.sort();
    anyhow::ensure!(names == ["agent.lock", "ready.json", "refresh.json", "token.json"], "{names:?}");
    Ok(())
}

// Promise: the same for a new device; and a killed run leaves no second copy of a password, not even for a moment.
#[test]
fn while_creating() -> anyhow::Result<()> {
    crash_everywhere(host, |_| Ok(()), provisions, false)
}

// Promise: the same for a server-assigned identity: a reply lost with the run leaves at most one user, and the next run
// reports it; a staged copy may stay until then, because the intent is replaced.
#[test]
fn while_assigning() -> anyhow::Result<()> {
    crash_everywhere(assigning_host, |_| Ok(()), assigns, true)
}

// Promise: the same when another device's file is replaced; a staged copy may stay until the next run.
#[test]
fn while_replacing() -> anyhow::Result<()> {
    let prepare = |station: &Station| {
        let text =
            "AZAION_DEVICE_EMAIL=other@azaion.com\nAZAION_DEVICE_PASSWORD=pppppppp\nAZAION_API_URL=https://a.example\n";
        station.put("rootfs/etc/azaion/device.conf", text, 0o600)
    };
    crash_everywhere(host, prepare, provisions, true)
}

// Promise: the same for the agent on its first boot: never a partial file, and ready the next time.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn while_booting() -> anyhow::Result<()> {
    let prepare = |station: &Station| {
        station.device(&[])?.ended_with(0)?;
        station.put_policy("")
    };
    crash_everywhere(agent, prepare, becomes_ready, false)
}

// Promise: the same for the agent during a renewal: a staged copy may stay until the next run.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn while_renewing() -> anyhow::Result<()> {
    let prepare = |station: &Station| {
        station.device(&[])?.ended_with(0)?;
        station.put_policy("")?;
        station.agent(&["boot"])?.ended_with(0)?;
        // From another boot: it has to log in again, and to replace each file.
        let mut token = station.json("run/azaion/token.json").unwrap();
        token["boot_id"] = "another".into();
        station.put("rootfs/run/azaion/token.json", token.to_string(), 0o640)?;
        // And becomes ready again.
        fs::remove_file(station.inside("run/azaion/ready.json"))?;
        let history = fs::read_to_string(station.inside(HISTORY))?.replace("ready", "waiting");
        station.put(&format!("rootfs/{HISTORY}"), history, 0o644)
    };
    crash_everywhere(agent, prepare, becomes_ready, true)
}
