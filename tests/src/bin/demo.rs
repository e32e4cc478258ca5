//! `cargo demo`: the whole way of one device on this machine, from its serial to the token that its loader reads.

#![expect(clippy::print_stdout, reason = "a demonstration talks")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use azaion_tests::dev_api::Options;
use azaion_tests::programs::{self, Run};
use azaion_tests::station::{EMAIL, SERIAL, Station};

fn main() -> anyhow::Result<()> {
    println!("Building azaion-provision and azaion-agent (the first time takes a few minutes) …");
    programs::native()?;
    let station = Station::new(Options::default())?;
    let rootfs = station.rootfs().display().to_string();
    println!("\nThe development admin API listens on {}, with TLS.", station.api.url());

    step(1, "At the station: make the device's user, and put its credentials into the root file system.");
    let device = ["device", SERIAL, "--rootfs", &rootfs, "--owner", "current"];
    show(&station, &station.provision(&device)?.ended_with(0)?);
    println!("  The API now has: {}", user(&station)?);

    step(2, "What is in the root file system now (the password is never shown):");
    show(&station, &station.provision_offline(&["inspect", &rootfs])?.ended_with(0)?);

    step(3, "Run again, by mistake or after a power cut: no second user, nothing changes.");
    show(&station, &station.provision(&device)?.ended_with(0)?);

    step(4, "On the device, at its first boot: log in, validate the token, write the cache, say that it is ready.");
    station.put_policy("")?;
    show(&station, &station.agent(&["boot"])?.ended_with(0)?);
    show(&station, &station.agent(&["status"])?.ended_with(0)?);

    step(5, "What anybody on the device may read, and what its loader reads:");
    print_file(&station, "run/azaion/ready.json")?;
    print_file(&station, "run/azaion/token.json")?;

    step(6, "After flashing, at the station: take the credentials out, so that the next unit can't inherit them.");
    show(&station, &station.provision_offline(&["clear", &rootfs])?.ended_with(0)?);
    println!("\nAll that this made was in a temporary folder, and is gone.");
    Ok(())
}

fn step(number: usize, text: &str) {
    println!("\n{number}. {text}");
}

/// A command as a person would type it, and what it said.
fn show(station: &Station, run: &Run) {
    let short = |text: &str| {
        let rootfs = station.rootfs().display().to_string();
        let password = station.path("admin-password").display().to_string();
        text.replace(&rootfs, "ROOTFS").replace(&password, "PASSWORD_FILE")
    };
    let words: Vec<&str> = run.command_line.split(' ').collect();
    let program = words.first().map(|path| Path::new(path).file_name().unwrap_or_default().to_string_lossy());
    let verb: Vec<&str> = words.iter().skip(1).copied().take_while(|word| !matches!(*word, "--api-url")).collect();
    let rest = if words.contains(&"--api-url") {
        " --api-url … --ca-file … --admin-email … --admin-password-file …"
    } else {
        ""
    };
    println!("  $ {} {}{rest}", program.unwrap_or_default(), short(&verb.join(" ")));
    for line in run.stdout.lines().chain(run.stderr.lines()) {
        println!("    {}", short(line));
    }
}

fn user(station: &Station) -> anyhow::Result<String> {
    let user = station.api.user(EMAIL).context("the user is there")?;
    Ok(format!("{}, role {}", user.email, user.role))
}

/// A JSON file of the device, with its mode; a token is cut short.
fn print_file(station: &Station, name: &str) -> anyhow::Result<()> {
    let mode = fs::metadata(station.inside(name))?.permissions().mode() & 0o7777;
    println!("  /{name}, mode {mode:04o}");
    let content = station.json(name).context(name.to_owned())?;
    for (key, value) in content.as_object().into_iter().flatten() {
        let text = value.to_string();
        let cut = if text.len() > 60 { format!("{}…\"", text.chars().take(24).collect::<String>()) } else { text };
        println!("    {key:<20} {cut}");
    }
    Ok(())
}
