//! A container with a seccomp profile that is older than some system calls and refuses them with EPERM, as Docker's and
//! podman's did.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use azaion_tests::dev_api::Options;
use azaion_tests::programs::{Run, start};
use azaion_tests::station::{SERIAL, Station, command};

/// Refuses openat2 (437) and faccessat2 (439), which have these numbers on each architecture, and runs a program.
const FILTER: &str = r#"
import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
REFUSE, ALLOW = 0x00050000 | errno.EPERM, 0x7fff0000
rules = [(LOAD, 0, 0, 0), (EQUAL, 1, 0, 437), (EQUAL, 0, 1, 439), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code))
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER_MODE = 22, 38, 2
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER_MODE, program, 0, 0):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
for number in (437, 439):
    assert libc.syscall(number, -1, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM, number
os.execv(sys.argv[1], sys.argv[1:])
"#;

fn filtered(station: &Station, arguments: &[&str], has_api: bool) -> anyhow::Result<Run> {
    let program = station.provision_command(&[])?.get_program().to_owned();
    let mut python = command(Path::new("python3"), &["-c", FILTER]);
    python.arg(program).args(arguments).arg("--json");
    if has_api {
        python.args(station.api_arguments()).args(["--owner", "current"]);
    }
    station.wait(start(&mut python)?)
}

// Promise: if the kernel's beneath-a-directory lookup is refused, the program resolves paths itself: all verbs work,
// and no symlink leads outside.
#[test]
fn system_calls_that_are_refused() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let rootfs = station.rootfs().display().to_string();
    fs::rename(station.inside("etc"), station.inside("usr/etc"))?;
    symlink("/../usr/etc", station.inside("etc"))?;
    for (arguments, has_api) in [
        (&["check", "--rootfs", &rootfs][..], true),
        (&["device", SERIAL, "--rootfs", &rootfs], true),
        (&["inspect", &rootfs], false),
    ] {
        filtered(&station, arguments, has_api)?.ended_with(0)?;
    }
    anyhow::ensure!(station.inside("usr/etc/azaion/device.conf").exists(), "it was written elsewhere");
    let cleared = filtered(&station, &["clear", &rootfs], false)?.ended_with(0)?;
    anyhow::ensure!(cleared.json_lines()?[0]["cleared"] == true, "{}", cleared.stdout);
    Ok(())
}
