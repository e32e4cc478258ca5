//! Strict modes: paths that other users can change are not used.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, ensure};
use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD};
use azaion_tests::programs::{Run, start};
use azaion_tests::station::{SERIAL, Station};

use crate::attacker::{NOBODY, give, make_image, station, text};

/// The kinds of paths that the command line takes.
const THINGS: [&str; 9] =
    ["directory", "image", "inspected", "cleared", "checked", "base", "report", "CA", "admin password"];

/// Runs a command with one of the paths below the given directory and all others valid.
fn run(station: &Station, thing: &str, folder: &Path, flag: &[&str], sudo: Option<u32>) -> anyhow::Result<Run> {
    let at = |name: &str| text(&folder.join(name));
    let (tree, image, units) = (at("rootfs"), at("system.img"), text(&station.path("units/{serial}")));
    let safe_tree = text(&station.rootfs());
    let list = format!("{SERIAL}..{SERIAL}");
    let (verb, mut ca, mut password) = match thing {
        "image" => (vec!["device", SERIAL, "--rootfs", &image], None, None),
        "inspected" => (vec!["inspect", &tree], None, None),
        "cleared" => (vec!["clear", &image], None, None),
        "checked" => (vec!["check", "--rootfs", &tree], None, None),
        "base" => (vec!["batch", &list, "--rootfs", &units, "--base", &tree], None, None),
        "CA" => (vec!["device", SERIAL, "--rootfs", &safe_tree], Some(at("ca.pem")), None),
        "admin password" => (vec!["device", SERIAL, "--rootfs", &safe_tree], None, Some(at("password"))),
        _ => (vec!["device", SERIAL, "--rootfs", &tree], None, None),
    };
    let report = at("report.csv");
    let verb = if thing == "report" { vec!["batch", &list, "--rootfs", &safe_tree, "--report", &report] } else { verb };
    let ca = ca.take().unwrap_or_else(|| text(&station.api.ca_file()));
    let password = password.take().unwrap_or_else(|| text(&station.path("admin-password")));
    let mut command = station.provision_command(&[&verb, flag].concat())?;
    if !["inspected", "cleared"].contains(&thing) {
        command.args(["--api-url", &station.api.url(), "--ca-file", &ca, "--admin-email", ADMIN_EMAIL]);
        command.args(["--admin-password-file", &password]);
    }
    command.envs(sudo.map(|uid| ("SUDO_UID", uid.to_string())));
    station.wait(start(&mut command)?)
}

/// Creates all of these files in a directory.
fn put_all(station: &Station, folder: &str) -> anyhow::Result<()> {
    for name in ["etc", "usr"] {
        fs::create_dir_all(station.path(&format!("{folder}/rootfs/{name}")))?;
    }
    make_image(station, &station.path(&format!("{folder}/system.img")))?;
    station.put(&format!("{folder}/password"), ADMIN_PASSWORD, 0o600)?;
    station.put(&format!("{folder}/ca.pem"), fs::read(station.api.ca_file())?, 0o644)
}

// Promise: as root, each given path is refused with 77 if another user can change one of its components; the message
// names that component and the fix. A sticky directory is safe, and so is a path that belongs to the user who called
// sudo. An option disables the check.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn each_path_is_judged() -> anyhow::Result<()> {
    let mode = |mode| fs::Permissions::from_mode(mode);
    for thing in THINGS {
        let station = station()?;
        put_all(&station, "way/middle/end")?;
        let (middle, end) = (station.path("way/middle"), station.path("way/middle/end"));
        let try_it = |flag: &[&str], sudo| {
            let _ = fs::remove_dir_all(station.path("units"));
            run(&station, thing, &end, flag, sudo)
        };
        let refused = |name: &Path, words: &str, sudo| {
            let run = try_it(&[], sudo)?.ended_with(77).context(thing)?;
            // `check` prints it on standard output.
            let said = run.stdout + &run.stderr;
            let component = format!("{} {words}", name.display());
            ensure!(said.contains(&component) && said.contains("--no-strict-modes"), "{thing}: {said}");
            anyhow::Ok(())
        };
        try_it(&[], None)?.ended_with(0).context(thing)?;
        give(&middle)?;
        refused(&middle, "belongs to the user with the id 65534", None)?;
        try_it(&["--no-strict-modes"], None)?.ended_with(0).context(thing)?;
        try_it(&[], Some(NOBODY))?.ended_with(0).context(thing)?;
        refused(&middle, "belongs to", Some(12_345))?;
        chown(&middle, Some(0), Some(0))?;
        fs::set_permissions(&middle, mode(0o777))?;
        refused(&middle, "is writable by every user", None)?;
        fs::set_permissions(&middle, mode(0o1777))?;
        try_it(&[], None)?.ended_with(0).context(thing)?;
        chown(&middle, Some(0), Some(NOBODY))?;
        fs::set_permissions(&middle, mode(0o775))?;
        refused(&middle, "is writable by the group with the id 65534", None)?;
        fs::set_permissions(&middle, mode(0o755))?;
        try_it(&[], None)?.ended_with(0).context(thing)?;
    }
    Ok(())
}

// Promise: the target of a path is checked as well, and so is a symlink on the path, by its owner and its target.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn what_it_leads_to() -> anyhow::Result<()> {
    for (thing, name) in [
        ("directory", "rootfs"),
        ("image", "system.img"),
        ("CA", "ca.pem"),
        ("admin password", "password"),
        ("base", "rootfs"),
    ] {
        let station = station()?;
        put_all(&station, "things")?;
        let (folder, end) = (station.path("things"), station.path("things").join(name));
        give(&end)?;
        run(&station, thing, &folder, &[], None)?.ended_with(77).context(thing)?;
        run(&station, thing, &folder, &[], Some(NOBODY))?.ended_with(0).context(thing)?;
        chown(&end, Some(0), Some(0))?;
        let other = fs::metadata(&end)?.permissions().mode() | 0o002;
        fs::set_permissions(&end, fs::Permissions::from_mode(other))?;
        let _ = fs::remove_dir_all(station.path("units"));
        run(&station, thing, &folder, &[], None)?.ended_with(77).context(thing)?;
        fs::set_permissions(&end, fs::Permissions::from_mode(other & !0o002))?;
        // A directory of another user, with a symlink of that user to a safe path.
        let linked = station.path("linked");
        symlink(&folder, &linked)?;
        run(&station, thing, &linked, &[], None)?.ended_with(0).context(thing)?;
        std::os::unix::fs::lchown(&linked, Some(NOBODY), Some(NOBODY))?;
        let _ = fs::remove_dir_all(station.path("units"));
        run(&station, thing, &linked, &[], None)?.ended_with(77).context(thing)?;
    }
    Ok(())
}

// Promise: another user's FIFO in a safe directory is refused as a file would be, and no named FIFO blocks the run.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_pipe_of_another_user() -> anyhow::Result<()> {
    for (thing, name) in [("CA", "ca.pem"), ("admin password", "password")] {
        let station = station()?;
        let folder = station.path("sticky");
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777))?;
        nix::unistd::mkfifo(&folder.join(name), nix::sys::stat::Mode::from_bits_truncate(0o644))?;
        // It also ends without a writer.
        run(&station, thing, &folder, &[], None)?.ended_with(78).context(thing)?;
        give(&folder.join(name))?;
        run(&station, thing, &folder, &[], None)?.ended_with(77).context(thing)?;
    }
    Ok(())
}
