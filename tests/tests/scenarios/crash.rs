//! A station that dies between any two steps: the next run goes on, and ends with one user and one working file.
//!
//! strace ends the program, as a power cut would, at the n-th call of each system call by which it has an effect.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use azaion_tests::dev_api::Options;
use azaion_tests::programs::{Run, native, start};
use azaion_tests::station::{EMAIL, SERIAL, Station};

/// The system calls by which the program changes files or talks to the API.
const EFFECTS: &str = "mkdirat,openat,openat2,fchmod,fchown,write,writev,sendto,sendmsg,recvfrom,fsync,linkat,renameat,renameat2,unlinkat,connect";

/// `azaion-provision device` under strace.
fn traced(station: &Station, strace: &[&str]) -> anyhow::Result<Run> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", &format!("trace={EFFECTS}")]).args(strace);
    command.arg(native()?.join("azaion-provision"));
    command.args(["device", SERIAL, "--owner", "current", "--rootfs"]).arg(station.rootfs()).arg("--replace");
    station.wait(start(command.args(station.api_arguments()))?)
}

/// How often an undisturbed run makes each call.
fn count(station: &Station) -> anyhow::Result<BTreeMap<String, usize>> {
    let trace = station.path("trace");
    traced(station, &["-o", &trace.display().to_string()])?.ended_with(0)?;
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(trace)?.lines() {
        let call = line.split_whitespace().nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
        if EFFECTS.split(',').any(|effect| effect == call) {
            *counts.entry(call.to_owned()).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

/// Crashes a run at every effect, each time from the start that `prepare` makes, and runs it again.
fn crash_everywhere(prepare: impl Fn(&Station) -> anyhow::Result<()>, may_leave_staged: bool) -> anyhow::Result<()> {
    let fresh = || {
        let station = Station::new(Options::default())?;
        prepare(&station).map(|()| station)
    };
    let mut killed = 0;
    for (call, times) in count(&fresh()?)? {
        for time in 1..=times {
            let station = fresh()?;
            let place = format!("{call} {time} of {times}");
            let run =
                traced(&station, &["-o", "/dev/null", "-e", &format!("inject={call}:signal=SIGKILL:when={time}")]);
            match run {
                Ok(run) => killed += usize::from(run.code != Some(0)),
                Err(error) => assert!(may_leave_staged, "{place}: {error:#}"),
            }
            station.device(&["--replace"])?.ended_with(0).map_err(|error| error.context(place.clone()))?;
            station.no_leftovers().map_err(|error| error.context(place.clone()))?;
            assert_eq!(station.api.users().len(), 1, "{place}");
            assert!(station.api.password_is(EMAIL, &station.password().unwrap_or_default()), "{place}");
        }
    }
    println!("ended at {killed} places");
    assert!(killed > 20, "only {killed} places were hit");
    Ok(())
}

// Promise: a new device; and a run that dies leaves no second copy of a password, not even for a moment.
#[test]
fn while_creating() -> anyhow::Result<()> {
    crash_everywhere(|_| Ok(()), false)
}

// Promise: a user that exists and is given a new password.
#[test]
fn while_updating() -> anyhow::Result<()> {
    let prepare = |station: &Station| {
        station.api.add_user(EMAIL, "another-password", "CompanionPC");
        Ok(())
    };
    crash_everywhere(prepare, false)
}

// Promise: another device's file that is replaced; here a staged copy may stay until the next run.
#[test]
fn while_replacing() -> anyhow::Result<()> {
    let prepare = |station: &Station| {
        let text =
            "AZAION_DEVICE_EMAIL=other@azaion.com\nAZAION_DEVICE_PASSWORD=pppppppp\nAZAION_API_URL=https://a.example\n";
        station.put("rootfs/etc/azaion/device.conf", text, 0o600)
    };
    crash_everywhere(prepare, true)
}
