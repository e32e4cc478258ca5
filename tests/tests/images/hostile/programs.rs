//! The sandbox in which e2fsck and debugfs run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use azaion_tests::programs::{Run, start};
use azaion_tests::station::command;

use super::{Bench, SERIAL, pause};
use crate::oracle::{run, text};
use crate::recipe::{PLAIN, mkfs, put};

/// The user of the programs.
const USER: &str = "65533";

/// A script that replaces a program and prints its sandbox.
const PROBE: &str = "#!/bin/sh
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|NSpid)' /proc/self/status
echo env: $(env | sort | cut -d= -f1) .
echo limits: $(ulimit -t) $(ulimit -v) $(ulimit -n) $(ulimit -c) .
echo fds: $(ls /proc/self/fd) .
echo routes: $(tail -n +2 /proc/net/route) .
(exec >/dev/null; : 2>/dev/null >/proc/self/fd/0) && echo may write . || echo may not write .
exit 4
";

/// Runs `device` with the probe in place of the program of this name.
fn probed(name: &str, options: &[&str]) -> anyhow::Result<Run> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    let probe = bench.path("probe");
    put(&probe, PROBE, 0o755)?;
    let program = bench.device_command(SERIAL, options)?;
    // The caller of the tests may have left descriptors open.
    let script = "mount --bind \"$1\" \"$2\"; shift 2; for n in $(ls /proc/$$/fd); do \
                  if [ $n -gt 2 ] && [ $n != 255 ]; then eval \"exec $n>&-\"; fi; done; exec \"$@\"";
    let mut command = command(Path::new("unshare"), &["--mount", "bash", "-euc", script, "bash"]);
    command.arg(&probe).arg(format!("/usr/sbin/{name}")).arg(program.get_program()).args(program.get_args());
    command.env("AZAION_ADMIN_PASSWORD", "not for children").env("LD_DEBUG_OUTPUT", "/nowhere");
    bench.wait(start(&mut command)?)?.ended_with(66)
}

// Promise: a program that parses an image has a separate user, no group, no capability and no way to gain one, an
// environment without variables of the caller, no open file of ours but the image, resource limits, and no network.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn without_privileges() -> anyhow::Result<()> {
    let said = probed("e2fsck", &[])?.stderr;
    let four = |name: &str| format!("{name}: {USER} {USER} {USER} {USER}");
    for expected in [four("Uid").as_str(), &four("Gid"), "Groups: NSpid", "NoNewPrivs: 1"] {
        ensure!(said.contains(expected), "{expected}: {said}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(said.contains(&format!("{set}: 0000000000000000")), "{set}: {said}");
    }
    for expected in ["env: LC_ALL PATH PWD .", "limits: 10 262144 64 0 .", "routes: .", "may not write ."] {
        ensure!(said.contains(expected), "{expected}: {said}");
    }
    // Standard input, output and error, and the directory being listed.
    ensure!(said.contains("fds: 0 1 2 3 ."), "{said}");
    ensure!(!said.contains("not for children"), "{said}");
    Ok(())
}

// Promise: the same for the program that writes to the copy.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn without_privileges_to_write() -> anyhow::Result<()> {
    // Its output is in the log; without a slot, the run fails afterwards.
    let said = probed("debugfs", &["-vv"])?.stderr;
    ensure!(
        said.contains(&format!("{USER} {USER} {USER} {USER}")) && said.contains("CapEff: 0000000000000000"),
        "{said}"
    );
    ensure!(said.contains("NoNewPrivs: 1"), "{said}");
    Ok(())
}

/// Returns the processes of that user by their command lines.
fn running() -> anyhow::Result<Vec<String>> {
    let said = crate::oracle::output("ps", &["-o", "stat=,args=", "-u", USER])?;
    let lines = String::from_utf8(said.stdout)?;
    // Zombies wait for their parent to reap them.
    Ok(lines.lines().filter(|line| !line.starts_with('Z')).map(str::to_owned).collect())
}

fn wait_for(what: &str, is_so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() < Duration::from_secs(10), "{what}");
        pause(20);
    }
    Ok(())
}

/// Starts a command, to be appended, with a probe in place of a program.
fn with_probe(probe: &Path, program: &str) -> Command {
    let script = "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"";
    command(Path::new("unshare"), &["--mount", "sh", "-euc", script, "sh", text(probe), program])
}

// Promise: a killed run also ends the program and its children; no leftover remains beside the image.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn killed_with_us() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    let probe = bench.path("probe");
    let mark = "4711";
    put(&probe, format!("#!/bin/sh\nsetsid sleep {mark} &\nsleep {mark}\n"), 0o755)?;
    let program = bench.device_command(SERIAL, &[])?;
    let mut command = with_probe(&probe, "/usr/sbin/e2fsck");
    // Without `timeout`, which would be killed instead.
    command.args(program.get_args().skip(1));
    let mut ours = start(&mut command)?;
    let sleeping = || Ok::<_, anyhow::Error>(running()?.iter().filter(|line| line.contains(mark)).count());
    wait_for("it does not run", || Ok(sleeping()? >= 2))?;
    ours.kill()?;
    wait_for("it runs on", || Ok(sleeping()? == 0))?;
    drop(ours.wait());
    let names = bench.beside()?;
    ensure!(names == [bench.name()], "{names:?}");
    Ok(())
}

// Promise: processes that the program has started end with it, before the copy becomes the image.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn nothing_stays() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    let (probe, real) = (bench.path("probe"), bench.path("real"));
    let mark = "4712";
    fs::copy("/usr/sbin/debugfs", &real)?;
    run("chmod", &["755", text(&real)])?;
    let path = real.parent().context("a directory")?;
    run("chmod", &["755", text(path)])?;
    let script = format!("#!/bin/sh\nsetsid sleep {mark} </proc/self/fd/0 &\nexec {} \"$@\"\n", text(&real));
    put(&probe, script, 0o755)?;
    let program = bench.device_command(SERIAL, &[])?;
    let mut command = with_probe(&probe, "/usr/sbin/debugfs");
    command.arg(program.get_program()).args(program.get_args());
    bench.wait(start(&mut command)?)?.ended_with(0)?;
    ensure!(!running()?.iter().any(|line| line.contains(mark)), "{:?}", running()?);
    Ok(())
}
