//! Runs of `azaion-provision device` that are killed at any moment, and runs that come at once.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::{Run, start};
use azaion_tests::record;
use azaion_tests::station::{EMAIL, SERIAL, Station, command, conf_value};
use nix::unistd::geteuid;

const CONF: &str = "etc/azaion/device.conf";
/// Kills in total: more of them with this variable.
const KILLS: &str = "AZAION_KILLS";
/// A killed run is ended after at most this many milliseconds; most runs take longer, for the API is slow.
const LATEST: u64 = 200;

/// What is in the target at first, or on the API.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// Another device's file.
    Other,
    /// The user has another password.
    User,
}

const BEFORE: [Before; 3] = [Before::Nothing, Before::Other, Before::User];

/// A kind of target.
trait Kind {
    /// Makes one on the station.
    fn make(&self, station: &Station) -> anyhow::Result<PathBuf>;
    /// Its file, as others read it.
    fn conf(&self, station: &Station) -> anyhow::Result<PathBuf>;
    /// Nothing is beside the file.
    fn is_tidy(&self, station: &Station) -> anyhow::Result<()>;
}

struct Directory;

impl Kind for Directory {
    fn make(&self, station: &Station) -> anyhow::Result<PathBuf> {
        Ok(station.rootfs())
    }

    fn conf(&self, station: &Station) -> anyhow::Result<PathBuf> {
        Ok(station.inside(CONF))
    }

    fn is_tidy(&self, station: &Station) -> anyhow::Result<()> {
        holds_only(&station.inside("etc/azaion"), "device.conf")
    }
}

/// A raw ext4 image that has its slot already.
struct Image;

impl Kind for Image {
    fn make(&self, station: &Station) -> anyhow::Result<PathBuf> {
        let image = station.path("images/system.img");
        fs::create_dir(station.path("images"))?;
        let (tree, made) = (text(&station.rootfs()), text(&image));
        said("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", "root_owner=0:0", "-d", &tree, &made, "16M"])?;
        station.provision(&["device", "AZJN-0043", "--rootfs", &made])?.ended_with(0)?;
        station.provision_offline(&["clear", &made])?.ended_with(0)?;
        station.api.delete_user("azaion-jetson-0043@azaion.com");
        Ok(image)
    }

    fn conf(&self, station: &Station) -> anyhow::Result<PathBuf> {
        let image = text(&station.path("images/system.img"));
        said("e2fsck", &["-f", "-n", &image])?;
        let copy = station.path("device.conf");
        said("debugfs", &["-R", &format!("dump /{CONF} {}", copy.display()), &image])?;
        Ok(copy)
    }

    fn is_tidy(&self, station: &Station) -> anyhow::Result<()> {
        holds_only(&station.path("images"), "system.img")
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What a witness says; it has to succeed.
fn said(program: &str, arguments: &[&str]) -> anyhow::Result<Run> {
    start(&mut command(Path::new(program), arguments))?.wait()?.ended_with(0)
}

fn holds_only(folder: &Path, name: &str) -> anyhow::Result<()> {
    let names: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(names == [name], "{names:?}");
    Ok(())
}

/// A number less than `below`; random keys are all the randomness that is needed.
fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// The API answers after a while, or has done what it was asked and is slow to say so.
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

/// Kills a run; whether it had not ended by itself.
fn kill(station: &Station, target: &Path) -> anyhow::Result<bool> {
    let time = format!("0.{:03}", 1 + random(LATEST));
    let ours = device(station, target)?;
    let mut killed = command(Path::new("timeout"), &["-s", "KILL", &time]);
    // Not as the station waits: this run may leave something, which the next one takes away.
    let run = start(killed.arg(ours.get_program()).args(ours.get_args()))?.wait()?;
    record::words(&run.words())?;
    Ok(run.code != Some(0))
}

/// Kills a run, and lets the next one end.
fn kill_and_go_on(kind: &dyn Kind, before: Before) -> anyhow::Result<bool> {
    let station = Station::new(Options::default())?;
    let target = kind.make(&station)?;
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
    let_in(&station, &kind.conf(&station)?, SERIAL, EMAIL)?;
    kind.is_tidy(&station)?;
    Ok(was_killed)
}

/// Fails unless the file is this unit's, and its password lets it in.
fn let_in(station: &Station, conf: &Path, serial: &str, email: &str) -> anyhow::Result<()> {
    let value = |key: &str| conf_value(conf, &format!("AZAION_DEVICE_{key}")).unwrap_or_default();
    anyhow::ensure!((value("SERIAL").as_str(), value("EMAIL").as_str()) == (serial, email), "{}", conf.display());
    record::secret(&value("PASSWORD"))?;
    anyhow::ensure!(station.api.password_is(email, &value("PASSWORD")), "the password of {serial} does not let it in");
    Ok(())
}

fn kill_many(kind: &dyn Kind) -> anyhow::Result<()> {
    let kills = std::env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(30);
    // Half of them for each kind.
    let runs = usize::div_ceil(kills, 2);
    let mut killed = 0;
    for (number, before) in (0..runs).zip(BEFORE.iter().cycle()) {
        let result = kill_and_go_on(kind, *before);
        killed += usize::from(result.map_err(|error| error.context(format!("run {number}, {before:?}")))?);
    }
    println!("{killed} of {runs} runs were killed, the others had ended");
    assert!(killed * 4 > runs, "only {killed} of {runs} runs were killed");
    Ok(())
}

// Promise: whenever a run is killed, after the next one there is one user, whom the file's password lets in, and
// nothing beside the file.
#[test]
fn at_any_time_on_a_directory() -> anyhow::Result<()> {
    kill_many(&Directory)
}

// Promise: the same for an image.
#[test]
fn at_any_time_on_an_image() -> anyhow::Result<()> {
    kill_many(&Image)
}

/// A root file system of its own.
fn root(station: &Station, name: &str) -> anyhow::Result<PathBuf> {
    let root = station.path(name);
    fs::create_dir_all(root.join("etc"))?;
    Ok(root)
}

/// Lets two hosts provision one serial; whether the one that ended last is let in.
fn twice_at_once(has_user: bool) -> anyhow::Result<bool> {
    let station = Station::new(Options::default())?;
    if has_user {
        station.api.add_user(EMAIL, "another-password", "CompanionPC");
    }
    let (ended, ends) = mpsc::channel();
    let mut hosts = Vec::new();
    for name in ["one", "other"] {
        let root = root(&station, name)?;
        let arguments = ["device", SERIAL, "--owner", "current", "--json", "--rootfs", &text(&root)];
        hosts.push((root, station.start_provision(&arguments)?));
    }
    thread::scope(|scope| {
        for (root, running) in hosts {
            let ended = ended.clone();
            scope.spawn(move || ended.send((root, running.wait())));
        }
    });
    drop(ended);
    let mut all = Vec::new();
    for (root, run) in ends {
        let run = run?;
        record::words(&run.words())?;
        let is_let_in = let_in(&station, &root.join(CONF), SERIAL, EMAIL).is_ok();
        all.push((run, is_let_in));
    }
    anyhow::ensure!(station.api.users().len() == 1, "{:?}", station.api.users());
    let words: String = all.iter().map(|(run, _)| run.words()).collect();
    let winners = all.iter().filter(|(run, is_let_in)| *is_let_in && run.code == Some(0)).count();
    anyhow::ensure!(winners == 1, "{winners} are let in and say so:\n{words}");
    let is_told = words.contains("no longer log in");
    for (run, is_let_in) in &all {
        anyhow::ensure!(*is_let_in || is_told || run.code != Some(0), "nobody was told:\n{words}");
    }
    Ok(all.last().is_some_and(|(_, is_let_in)| *is_let_in))
}

// Promise: of two hosts that provision one serial into two targets at once, the one that asked the API last has the
// file that lets in, and ends with 0; there is one user. The other ended with an error, or one of the two warned that a
// unit flashed earlier can no longer log in. Which of the two ends last says nothing: an earlier answer may come later.
#[test]
fn one_serial_twice_at_once() -> anyhow::Result<()> {
    let mut last_is_let_in = 0;
    for round in 0..10 {
        last_is_let_in += usize::from(twice_at_once(round % 2 == 1)?);
    }
    println!("the one that ended last is let in: {last_is_let_in} of 10");
    Ok(())
}

// Promise: fifty hosts at once mix nothing up.
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
