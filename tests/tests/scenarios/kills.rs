//! Real runs of `azaion-provision device`, killed at random moments, for `.ci/nightly`, and fifty concurrent ones. The
//! model check (`host/src/model/`) covers all orders of effects, crashes and lost replies; `crash` covers each single
//! system call.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::start;
use azaion_tests::record;
use azaion_tests::station::{EMAIL, SERIAL, Station, command, conf_value};
use nix::unistd::geteuid;

const CONF: &str = "etc/azaion/device.conf";
/// Variable with the number of killed runs.
const KILLS: &str = "AZAION_KILLS";
/// Maximum time before the kill in milliseconds; most runs take longer, because the API is slow.
const LATEST: u64 = 200;

/// The initial content of the target, or of the API.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// Another device's file.
    Other,
    /// The user has another password.
    User,
}

const BEFORE: [Before; 3] = [Before::Nothing, Before::Other, Before::User];

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn holds_only(folder: &Path, name: &str) -> anyhow::Result<()> {
    let names: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(names == [name], "{names:?}");
    Ok(())
}

/// Returns a random number less than `below`; the keys of `RandomState` are random enough.
fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// Makes the API delay its answers, before or after it executes a call.
fn slow_down(station: &Station) {
    for (method, path) in [("POST", "/login"), ("POST", "/users"), ("PATCH", "/users/password")] {
        let time = Duration::from_millis(random(60));
        let is_done_first = path == "/users" && random(2) == 0;
        let fault = if is_done_first { Fault::Drip(Duration::from_millis(1)) } else { Fault::Delay(time) };
        station.api.inject(method, path, fault, usize::MAX);
    }
}

fn device(station: &Station, target: &Path) -> anyhow::Result<Command> {
    let target = text(target);
    let mut command =
        station.provision_command(&["device", SERIAL, "--rootfs", &target, "--owner", "current", "--json"])?;
    command.args(["--replace", "--verify"]).args(station.api_arguments());
    Ok(command)
}

/// Kills a run; returns whether it was still running.
fn kill(station: &Station, target: &Path) -> anyhow::Result<bool> {
    let time = format!("0.{:03}", 1 + random(LATEST));
    let ours = device(station, target)?;
    let mut killed = command(Path::new("timeout"), &["-s", "KILL", &time]);
    // Not through the host's own wait: this run may leave files, which the next one removes.
    let run = start(killed.arg(ours.get_program()).args(ours.get_args()))?.wait()?;
    record::words(&run.words())?;
    Ok(run.code != Some(0))
}

/// Kills a run, and lets the next one end.
fn kill_and_go_on(before: Before) -> anyhow::Result<bool> {
    let station = Station::new(Options::default())?;
    let target = station.rootfs();
    match before {
        Before::Nothing => {}
        Before::Other => {
            let other = ["device", "AZJN-0044", "--owner", "current", "--rootfs", &text(&target)];
            station.provision(&other)?.ended_with(0)?;
            station.api.delete_user("azaion-jetson-0044@azaion.com");
        }
        Before::User => station.api.add_user(EMAIL, "another-password", "CompanionPC"),
    }
    slow_down(&station);
    let was_killed = kill(&station, &target)?;
    station.api.clear_faults();
    station.wait(start(&mut device(&station, &target)?)?)?.ended_with(0)?;
    let users = station.api.users();
    anyhow::ensure!(users.len() == 1 && users[0].email == EMAIL, "{users:?}");
    let_in(&station, &station.inside(CONF), SERIAL, EMAIL)?;
    holds_only(&station.inside("etc/azaion"), "device.conf")?;
    Ok(was_killed)
}

/// Checks that the file is this device's, and that the API accepts its password.
fn let_in(station: &Station, conf: &Path, serial: &str, email: &str) -> anyhow::Result<()> {
    let value = |key: &str| conf_value(conf, &format!("AZAION_DEVICE_{key}")).unwrap_or_default();
    anyhow::ensure!((value("SERIAL").as_str(), value("EMAIL").as_str()) == (serial, email), "{}", conf.display());
    record::secret(&value("PASSWORD"))?;
    anyhow::ensure!(station.api.password_is(email, &value("PASSWORD")), "the API rejects the password of {serial}");
    Ok(())
}

// Promise: whenever a run is killed, after the next one there is one user, the file's password is accepted, and no
// leftover is beside the file.
#[test]
#[ignore = "random, for .ci/nightly"]
fn at_any_time() -> anyhow::Result<()> {
    let kills = std::env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(30);
    let mut killed = 0;
    for (number, before) in (0..kills).zip(BEFORE.iter().cycle()) {
        let result = kill_and_go_on(*before);
        killed += usize::from(result.map_err(|error| error.context(format!("run {number}, {before:?}")))?);
    }
    println!("{killed} of {kills} runs were killed, the others had ended");
    assert!(killed * 4 > kills, "only {killed} of {kills} runs were killed");
    Ok(())
}

/// Creates a separate root file system.
fn root(station: &Station, name: &str) -> anyhow::Result<PathBuf> {
    let root = station.path(name);
    fs::create_dir_all(root.join("etc"))?;
    Ok(root)
}

// Promise: fifty concurrent runs do not mix up any identities.
#[test]
fn fifty_units_at_once() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let owner = if geteuid().is_root() { "root" } else { "current" };
    let mut units = Vec::new();
    for number in 1001..=1050 {
        let (serial, email) = (format!("AZJN-{number}"), format!("azaion-jetson-{number}@azaion.com"));
        let root = root(&station, &serial)?;
        let running = station.start_provision(&["device", &serial, "--owner", owner, "--rootfs", &text(&root)])?;
        units.push((serial, email, root, running));
    }
    for (serial, email, root, running) in units {
        station.wait(running)?.ended_with(0)?;
        let_in(&station, &root.join(CONF), &serial, &email)?;
        holds_only(&root.join("etc/azaion"), "device.conf")?;
    }
    assert_eq!(station.api.users().len(), 50);
    Ok(())
}
