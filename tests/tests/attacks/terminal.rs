//! The state of the terminal after a run.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use azaion_tests::dev_api::{ADMIN_EMAIL, Fault, Options};
use azaion_tests::programs::output;
use azaion_tests::station::{SERIAL, Station, command};

use crate::attacker::text;

// Promise: however a run ends during the password prompt, its exit code is 130, and the terminal echoes input again.
#[test]
fn shows_what_is_typed_after_an_interruption() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let rootfs = text(&station.rootfs());
    let (url, ca) = (station.api.url(), text(&station.api.ca_file()));
    let ours = station.provision_command(&["device", SERIAL, "--rootfs", &rootfs, "--owner", "current"])?;
    for how in ["key", "SIGINT", "SIGTERM", "SIGHUP"] {
        let mut python =
            command(Path::new("python3"), &["-c", include_str!("../../scripts/terminal.py"), how, "Password of"]);
        python.arg(ours.get_program()).args(ours.get_args());
        python.args(["--api-url", &url, "--ca-file", &ca, "--admin-email", ADMIN_EMAIL]);
        let ended = output(&mut python)?;
        ensure!(ended == "130 True\n", "{how}: {ended}");
    }
    Ok(())
}

// Promise: after the password was typed, a signal ends a run after the current call, as without a prompt.
#[test]
fn a_signal_after_the_prompt_ends_the_run() -> anyhow::Result<()> {
    for (how, code) in [("after-SIGINT", 130), ("after-SIGTERM", 130), ("after-SIGHUP", -1)] {
        let station = Station::new(Options::default())?;
        station.api.inject("POST", "/login", Fault::Delay(Duration::from_secs(2)), usize::MAX);
        let rootfs = text(&station.rootfs());
        let ours = station.provision_command(&["device", SERIAL, "--rootfs", &rootfs, "--owner", "current"])?;
        let mut python = command(
            Path::new("timeout"),
            &["10", "python3", "-c", include_str!("../../scripts/terminal.py"), how, "Password of"],
        );
        python.arg(ours.get_program()).args(ours.get_args());
        python.args(["--api-url", &station.api.url(), "--ca-file", &text(&station.api.ca_file())]);
        let ended = output(python.args(["--admin-email", ADMIN_EMAIL]))?;
        ensure!(ended == format!("{code} True\n"), "{how}: {ended}");
    }
    Ok(())
}
