//! Hostile root file systems: whatever their content, nothing outside is touched, and no run hangs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use azaion_tests::dev_api::{ADMIN_EMAIL, Options};
use azaion_tests::programs::{Run, copy_to, native, start};
use azaion_tests::record;
use azaion_tests::station::{SERIAL, Station, command};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{geteuid, mkfifo};

const CONF: &str = "etc/azaion/device.conf";
const STAGED: &str = "etc/azaion/.device.conf.new";
const NOBODY: u32 = 65534;
/// Longer than any run may take.
const PATIENCE: &str = "10";
/// The state of a file outside: its name, mode, owner, group, hard links, time, and content.
type Seen = (PathBuf, u32, u32, u32, u64, (i64, i64), Vec<u8>);

/// A trap in the tree.
#[derive(Clone, Copy, Debug)]
enum Thing {
    /// A symlink to the canary by its absolute path.
    Absolute,
    /// The same, up beyond the root and down again.
    Upwards,
    /// A symlink to itself.
    Loop,
    /// A symlink to the program itself, or to one of its open files.
    Magic(&'static str),
    HardLink,
    Fifo,
    Socket,
    /// A device node, which only root can create: /dev/null, /dev/full, and one without a driver.
    Device(u64, u64),
    Folder,
    /// A regular file.
    File,
    /// chattr +i, which only root can set.
    Immutable(&'static Thing),
    /// A directory without write permission.
    ReadOnly(&'static Thing),
}

const THINGS: [Thing; 18] = [
    Thing::Absolute,
    Thing::Upwards,
    Thing::Loop,
    Thing::Magic("/proc/self/cwd"),
    Thing::Magic("/proc/self/root"),
    Thing::Magic("/proc/1/root"),
    Thing::HardLink,
    Thing::Fifo,
    Thing::Socket,
    Thing::Device(1, 3),
    Thing::Device(1, 7),
    Thing::Device(240, 99),
    Thing::Folder,
    Thing::File,
    Thing::Immutable(&Thing::Folder),
    Thing::Immutable(&Thing::File),
    Thing::ReadOnly(&Thing::Folder),
    Thing::ReadOnly(&Thing::File),
];

/// A host with a canary beside the tree.
struct Trap {
    station: Station,
    is_nobody: bool,
    immutable: Option<PathBuf>,
}

impl Drop for Trap {
    fn drop(&mut self) {
        // Otherwise the directory could not be removed.
        if let Some(path) = &self.immutable {
            let _ = command(Path::new("chattr"), &["-i"]).arg(path).status();
        }
    }
}

impl Trap {
    fn new(is_nobody: bool) -> anyhow::Result<Self> {
        let station = Station::new(Options::default())?;
        fs::set_permissions(station.path(""), fs::Permissions::from_mode(0o755))?;
        let text = "AZAION_DEVICE_EMAIL=canary@azaion.com\nAZAION_DEVICE_PASSWORD=sings-in-the-mine\n\
                    AZAION_API_URL=https://canary.example\n";
        // Whichever directory the trap replaces, the rest of the path exists below it, too.
        for name in ["device.conf", ".device.conf.new", "azaion/device.conf", "azaion/.device.conf.new"] {
            station.put(&format!("canary/{name}"), text, 0o640)?;
        }
        fs::set_permissions(station.path("canary"), fs::Permissions::from_mode(0o770))?;
        station.put("ca.pem", fs::read(station.api.ca_file())?, 0o644)?;
        fs::create_dir(station.inside("proc"))?;
        if is_nobody {
            copy_to("azaion-provision", &station.path("azaion-provision"))?;
            for name in ["admin-password", "rootfs", "rootfs/etc"] {
                chown(station.path(name), Some(NOBODY), Some(NOBODY))?;
            }
        }
        Ok(Self { station, is_nobody, immutable: None })
    }

    /// Creates the trap at its path; returns whether that was possible.
    fn plant(&mut self, thing: Thing, name: &str) -> anyhow::Result<bool> {
        let place = self.station.inside(name);
        if name == "etc" && place.exists() {
            fs::remove_dir(&place)?;
        }
        fs::create_dir_all(place.parent().unwrap())?;
        let is_file = name.contains(".conf");
        let canary = self.station.path(if is_file { "canary/device.conf" } else { "canary" });
        match thing {
            Thing::Absolute => symlink(canary, &place)?,
            Thing::Upwards => symlink(format!("{}{}", "../".repeat(20), canary.display()), &place)?,
            Thing::Loop => symlink(place.file_name().unwrap(), &place)?,
            Thing::Magic(target) => symlink(target, &place)?,
            Thing::HardLink => fs::hard_link(self.station.path("canary/device.conf"), &place)?,
            Thing::Fifo => mkfifo(&place, Mode::from_bits_truncate(0o666))?,
            Thing::Socket => drop(UnixListener::bind(&place)?),
            Thing::Device(major, minor) => {
                if mknod(&place, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(major, minor)).is_err() {
                    return Ok(false);
                }
            }
            Thing::Folder => fs::create_dir(&place)?,
            Thing::File => self.station.put(&format!("rootfs/{name}"), "AZAION_DEVICE_SERIAL=no\n", 0o600)?,
            Thing::Immutable(thing) => {
                let is_planted = self.plant(*thing, name)?;
                self.immutable = Some(place.clone());
                let chattr = start(command(Path::new("chattr"), &["+i"]).arg(&place))?.wait()?;
                return Ok(is_planted && chattr.code == Some(0));
            }
            Thing::ReadOnly(thing) => {
                self.plant(*thing, name)?;
                fs::set_permissions(&place, fs::Permissions::from_mode(0o555))?;
            }
        }
        if self.is_nobody {
            // The trap and its directory belong to the user of the run, so that only their modes matter.
            lchown(&place, Some(NOBODY), Some(NOBODY))?;
            lchown(place.parent().unwrap(), Some(NOBODY), Some(NOBODY))?;
        }
        Ok(true)
    }

    /// Returns an `azaion-provision` command with these arguments, killed if it hangs; its working directory is the
    /// canary's.
    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut wrapped = command(Path::new("timeout"), &[PATIENCE]);
        let mut program = native()?.join("azaion-provision");
        if self.is_nobody {
            program = self.station.path("azaion-provision");
            wrapped.uid(NOBODY).gid(NOBODY);
        } else if geteuid().is_root() {
            // With a real /proc in the tree, for its magic links.
            let script = "mount --bind /proc \"$0/proc\" && exec \"$@\"";
            wrapped.args(["unshare", "-m", "sh", "-c", script]).arg(self.station.rootfs());
        }
        wrapped.arg(program);
        wrapped.args(arguments).current_dir(self.station.path(if self.is_nobody { "" } else { "canary" }));
        Ok(wrapped)
    }

    /// Runs a verb on the tree and checks that it ends by itself, without a panic, and that nothing outside is touched.
    fn run(&self, verb: &[&str]) -> anyhow::Result<Run> {
        let rootfs = self.station.rootfs().display().to_string();
        let path = |name| self.station.path(name).display().to_string();
        let mut arguments: Vec<&str> = verb.to_vec();
        let (url, ca, password) = (self.station.api.url(), path("ca.pem"), path("admin-password"));
        let api = ["--api-url", &url, "--ca-file", &ca, "--admin-email", ADMIN_EMAIL, "--admin-password-file"];
        if ["device", "check"].contains(&verb[0]) {
            arguments.extend(["--owner", "current", "--deadline", "5", "--rootfs", &rootfs]);
            arguments.extend(api.iter().chain([&password.as_str()]));
        } else {
            arguments.push(&rootfs);
        }
        let run = start(&mut self.command(&arguments)?)?.wait()?;
        record::words(&run.words())?;
        anyhow::ensure!(matches!(run.code, Some(0 | 65 | 66 | 73 | 74 | 77)), "{}", run.words());
        Ok(run)
    }
}

/// Returns the state of all files of a directory, ordered by name.
fn seen(folder: &Path) -> anyhow::Result<Vec<Seen>> {
    let mut all = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let stat = fs::symlink_metadata(&path)?;
        let content = if stat.is_file() { fs::read(&path)? } else { Vec::new() };
        let time = (stat.mtime(), stat.mtime_nsec());
        // The tree may remove its own name of a hard link.
        let links = if stat.is_file() { 0 } else { stat.nlink() };
        all.push((path.clone(), stat.mode(), stat.uid(), stat.gid(), links, time, content));
        if stat.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    all.sort();
    Ok(all)
}

/// Runs all verbs with each trap at this path, and returns all failures.
fn try_all(name: &str, is_nobody: bool) -> anyhow::Result<()> {
    let verbs =
        [&["inspect"][..], &["check"], &["device", SERIAL], &["clear"], &["device", SERIAL, "--replace"], &["clear"]];
    let (mut tried, mut wrong) = (0, Vec::new());
    for thing in THINGS {
        let mut trap = Trap::new(is_nobody)?;
        if !trap.plant(thing, name)? {
            continue;
        }
        tried += 1;
        let before = seen(&trap.station.path("canary"))?;
        for verb in verbs {
            if let Err(error) = trap.run(verb) {
                wrong.push(format!("{thing:?}, {verb:?}: {error:#}"));
            }
            if seen(&trap.station.path("canary"))? != before {
                wrong.push(format!("{thing:?}, {verb:?}: something outside was touched"));
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    anyhow::ensure!(tried > 10, "only {tried} traps were tested");
    Ok(())
}

// Promise: no entry at the path of a directory or file leads outside, makes a run hang, or causes a panic.
#[test]
fn in_the_place_of_a_folder() -> anyhow::Result<()> {
    ["etc", "etc/azaion"].into_iter().try_for_each(|name| try_all(name, false))
}

// Promise: the same.
#[test]
fn in_the_place_of_the_file() -> anyhow::Result<()> {
    try_all(CONF, false)
}

// Promise: the same for entries that look like leftovers of a killed run.
#[test]
fn in_the_place_of_a_leftover() -> anyhow::Result<()> {
    try_all(STAGED, false)
}

// Promise: the same for unprivileged users, to whom file modes apply.
#[test]
#[cfg_attr(not(all(root, long)), ignore = "needs root and ./tests/run --all")]
fn without_root() -> anyhow::Result<()> {
    ["etc", "etc/azaion", CONF, STAGED].into_iter().try_for_each(|name| try_all(name, true))
}

// Promise: repeatedly swapping a directory for a symlink during runs leads none of them outside.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn swapped_all_the_time() -> anyhow::Result<()> {
    let trap = Trap::new(false)?;
    let (place, link) = (trap.station.inside("etc/azaion"), trap.station.inside("etc/link"));
    fs::create_dir(&place)?;
    symlink(trap.station.path("canary"), &link)?;
    let before = seen(&trap.station.path("canary"))?;
    let is_over = AtomicBool::new(false);
    let (swaps, runs) = thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &place, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE)?;
                swaps += 1;
            }
            anyhow::Ok(swaps)
        });
        let both = (0..100).try_fold(0, |well, _| {
            let device = trap.run(&["device", SERIAL, "--replace"])?;
            let clear = trap.run(&["clear"])?;
            anyhow::Ok(well + [device, clear].iter().filter(|run| run.code == Some(0)).count())
        });
        is_over.store(true, Ordering::Relaxed);
        both.and_then(|well| Ok((swapper.join().expect("the swapper continues")?, well)))
    })?;
    println!("{swaps} swaps; {runs} of 200 runs succeeded");
    assert!(swaps > 1000, "only {swaps} swaps");
    assert!(seen(&trap.station.path("canary"))? == before, "something outside was touched");
    Ok(())
}
