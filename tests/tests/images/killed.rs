//! Runs that are killed while they change an image: the image is then either unchanged or complete, and the next run
//! succeeds.
//!
//! strace kills the program, or a child process, at the n-th call of each system call that changes files.

mod signals;
mod torn;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::process::Command;

use azaion_tests::programs::{Run, start};
use azaion_tests::station::command;

use crate::archive;
use crate::bench::{Bench, EMAIL, OTHER, OTHER_EMAIL, SERIAL, User, conf_in, for_each};
use crate::oracle;
use crate::recipe::{Kind, PLAIN, mkfs, small_file};

/// The system calls that change files and directories, or make changes durable.
const EFFECTS: &str = "write,pwrite64,copy_file_range,sendfile,ftruncate,fallocate,fsync,fdatasync,linkat,renameat,\
                       renameat2,unlinkat,fchmod,fchown,mkdir,sendto";

/// Variable with the number of kills at random times, for each way.
const KILLS: &str = "AZAION_IMAGE_KILLS";

/// Maximum number of tested calls among repeated ones.
const MOST: usize = 6;

/// The initial content of the image.
#[derive(Clone, Copy, Debug)]
enum Before {
    /// No slot.
    Nothing,
    /// A file of this device that is not a slot yet.
    SmallFile,
    /// A blank slot.
    Blank,
    /// Another device.
    Other,
}

/// What is beside the image initially.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    /// Nothing.
    Nothing,
    /// Its checksum.
    Sum,
    /// Its checksum and a matching checksum state.
    Known,
}

/// A kind of run that is killed.
struct Way {
    name: &'static str,
    kind: Kind,
    before: Before,
    beside: Beside,
    verb: &'static str,
}

const fn way(name: &'static str, kind: Kind, before: Before, beside: Beside, verb: &'static str) -> Way {
    Way { name, kind, before, beside, verb }
}

const WAYS: [Way; 30] = [
    way("making the slot", Kind::Ext4, Before::Nothing, Beside::Nothing, "device"),
    way("making the slot, with a checksum (sparse)", Kind::Sparse, Before::Nothing, Beside::Sum, "device"),
    way("making a slot of a file", Kind::Ext4, Before::SmallFile, Beside::Nothing, "device"),
    way("making the slot, with a checksum", Kind::Ext4, Before::Nothing, Beside::Sum, "device"),
    way("writing the slot", Kind::Ext4, Before::Blank, Beside::Nothing, "device"),
    way("replacing a device", Kind::Sparse, Before::Other, Beside::Nothing, "device"),
    way("replacing a device, with a checksum", Kind::Ext4, Before::Other, Beside::Known, "device"),
    way("clearing", Kind::Ext4, Before::Other, Beside::Nothing, "clear"),
    way("clearing (sparse)", Kind::Sparse, Before::Other, Beside::Nothing, "clear"),
    way("clearing, with a checksum (sparse)", Kind::Sparse, Before::Other, Beside::Sum, "clear"),
    way("the first tail", Kind::Tar, Before::Nothing, Beside::Sum, "device"),
    way("the first members, without a checksum", Kind::Tar, Before::Nothing, Beside::Nothing, "device"),
    way("the first tail over a packed file", Kind::Tar, Before::SmallFile, Beside::Sum, "device"),
    way("a blank tail", Kind::Tar, Before::Blank, Beside::Known, "device"),
    way("a later tail", Kind::Tar, Before::Other, Beside::Known, "device"),
    way("a later tail of an archive that was copied", Kind::Tar, Before::Other, Beside::Sum, "device"),
    way("clearing a tail", Kind::Tar, Before::Other, Beside::Known, "clear"),
    way("clearing a packed file", Kind::Tar, Before::SmallFile, Beside::Sum, "clear"),
    way("a first frame", Kind::TarZst, Before::Nothing, Beside::Sum, "device"),
    way("a first frame, without a checksum", Kind::TarZst, Before::Nothing, Beside::Nothing, "device"),
    way("a first frame over a packed file", Kind::TarZst, Before::SmallFile, Beside::Sum, "device"),
    way("a later frame", Kind::TarZst, Before::Other, Beside::Known, "device"),
    way("a later frame of an archive that was copied", Kind::TarZst, Before::Other, Beside::Sum, "device"),
    way("clearing a frame", Kind::TarZst, Before::Other, Beside::Known, "clear"),
    way("clearing a packed and compressed file", Kind::TarZst, Before::SmallFile, Beside::Sum, "clear"),
    way("making the slot, with a checksum (ext4.zst)", Kind::Ext4Zst, Before::Nothing, Beside::Sum, "device"),
    way("making a slot of a file (ext4.zst)", Kind::Ext4Zst, Before::SmallFile, Beside::Nothing, "device"),
    way("replacing a device, with a checksum (ext4.zst)", Kind::Ext4Zst, Before::Other, Beside::Known, "device"),
    way("clearing, with a checksum (ext4.zst)", Kind::Ext4Zst, Before::Other, Beside::Known, "clear"),
    way("clearing a file, with a checksum (ext4.zst)", Kind::Ext4Zst, Before::SmallFile, Beside::Sum, "clear"),
];

/// A way with a host, and the image that each run starts from.
struct Trial<'w> {
    way: &'w Way,
    bench: Bench,
}

impl<'w> Trial<'w> {
    fn new(way: &'w Way) -> anyhow::Result<Self> {
        let bench = Bench::with(User::Caller)?;
        let tree = if matches!(way.before, Before::SmallFile) { small_file } else { PLAIN };
        way.kind.make(&bench, &bench.image(), tree)?;
        match way.beside {
            Beside::Nothing => drop(fs::remove_file(archive::sum_file(&bench.image()))),
            Beside::Sum | Beside::Known => archive::put_sum(&bench.image())?,
        }
        match way.before {
            Before::Nothing | Before::SmallFile => {}
            Before::Blank => {
                bench.device(OTHER, &[])?.ended_with(0)?;
                bench.verb("clear")?.ended_with(0)?;
            }
            Before::Other => drop(bench.device(OTHER, &[])?.ended_with(0)?),
        }
        fs::rename(bench.path("images"), bench.path("start"))?;
        Ok(Self { way, bench })
    }

    /// Restores the directory of images, except for the identity in the image.
    fn put_back(&self, from: &str) -> anyhow::Result<()> {
        let (from, to) = (self.bench.path(from), self.bench.path("images"));
        let _ = fs::remove_dir_all(&to);
        oracle::run("cp", &["-a", "--sparse=always", oracle::text(&from), oracle::text(&to)]).map(drop)
    }

    /// Restores the image and the API, except for another device's user.
    fn reset(&self) -> anyhow::Result<()> {
        self.put_back("start")?;
        if self.way.beside == Beside::Known {
            // Only the checksum state remains to be written.
            match self.way.before {
                Before::Other => drop(self.bench.device(OTHER, &[])?.ended_with(0)?),
                _ => drop(self.bench.verb("clear")?.ended_with(0)?),
            }
        }
        if self.bench.station.api.user(EMAIL).is_some() {
            self.bench.station.api.delete_user(EMAIL);
        }
        Ok(())
    }

    fn command(&self) -> anyhow::Result<Command> {
        let image = self.bench.image();
        match self.way.verb {
            "device" => self.bench.device_command(SERIAL, &["--replace"]),
            verb => self.bench.command(&[verb, oracle::text(&image)]),
        }
    }

    /// Runs the program under another one that traces or kills it.
    fn under(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Run> {
        let ours = self.command()?;
        let mut command = command(Path::new(program), arguments);
        // Without the wrapper that kills hanging runs: strace would count its calls.
        self.bench.station.wait(start(command.args(ours.get_args().skip(1)))?)
    }

    /// Returns the maximum number of times that one process makes each call.
    fn count(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        self.reset()?;
        let trace = self.bench.path("trace");
        let options = ["-f", "-qq", "-o", oracle::text(&trace), "-e", &format!("trace={EFFECTS}")];
        self.under("strace", &options)?.ended_with(0)?;
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in fs::read_to_string(trace)?.lines() {
            let Some((process, rest)) = line.split_once(' ') else { continue };
            let call = rest.trim_start().split('(').next().unwrap_or_default();
            if EFFECTS.split(',').any(|effect| effect == call) {
                *counts.entry((process.to_owned(), call.to_owned())).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((_, call), count) in counts {
            let most = most.entry(call).or_default();
            *most = count.max(*most);
        }
        Ok(most)
    }

    /// Checks that the image is unchanged or complete after the kill, and that the next runs succeed.
    fn is_whole(&self) -> anyhow::Result<()> {
        let image = self.bench.image();
        oracle::is_whole(&image)?;
        if fs::read(&image)? != fs::read(self.bench.path("start").join(self.bench.name()))? {
            let told = self.bench.inspect()?;
            let conf = conf_in(&image)?;
            anyhow::ensure!(conf.get("EMAIL").map(String::as_str) == told["email"].as_str(), "{told}");
            oracle::is_private_in(&image)?;
            let is_device = [(SERIAL, EMAIL), (OTHER, OTHER_EMAIL)].iter().any(|(serial, _)| told["serial"] == *serial);
            let is_file = matches!(self.way.before, Before::SmallFile) && told["email"] == EMAIL;
            anyhow::ensure!(is_device || is_file || told["empty"] == true, "{told}");
        }
        if self.way.verb == "clear" {
            self.bench.verb("clear")?.ended_with(0)?;
            anyhow::ensure!(!oracle::has_bytes(&self.bench.image(), "AZAION_DEVICE_PASSWORD")?, "it is still there");
            self.bench.has_no_leftovers()?;
        }
        self.bench.device(SERIAL, &["--replace"])?.ended_with(0)?;
        self.bench.holds(SERIAL, EMAIL)?;
        if matches!(self.way.kind, Kind::Tar | Kind::TarZst) {
            let archive = oracle::raw_copy(&image)?;
            let lines = oracle::run("grep", &["-ac", "AZAION_DEVICE_PASSWORD", oracle::text(archive.path())])?;
            anyhow::ensure!(lines.trim() == "1", "{lines} passwords");
        }
        let users = self.bench.station.api.users();
        anyhow::ensure!(users.iter().filter(|user| user.email != OTHER_EMAIL).count() == 1, "{users:?}");
        Ok(())
    }

    /// Kills the run at every change.
    fn everywhere(&self) -> anyhow::Result<()> {
        let mut killed = 0;
        for (call, times) in self.count()? {
            // Each run on a compressed image takes a second.
            let most = if self.way.kind.is_compressed() { 3 } else { MOST };
            for time in some(times, most) {
                self.reset()?;
                let inject = format!("inject={call}:signal=SIGKILL:when={time}");
                let traced = ["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
                killed += usize::from(self.under("strace", &traced)?.code != Some(0));
                self.is_whole().map_err(|error| error.context(format!("{call} {time} of {times}")))?;
            }
        }
        println!("{}: killed at {killed} calls", self.way.name);
        anyhow::ensure!(killed > 2, "only {killed} calls were hit");
        Ok(())
    }

    /// Kills the run at random times.
    fn anywhen(&self, kills: usize) -> anyhow::Result<()> {
        for _ in 0..kills {
            self.reset()?;
            let time = format!("0.{:03}", 1 + random(150));
            self.under("timeout", &["-s", "KILL", &time])?;
            self.is_whole().map_err(|error| error.context(format!("after {time} s")))?;
        }
        Ok(())
    }
}

/// Returns a random number less than `below`; the keys of `RandomState` are random enough.
fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// Returns all indices if few, or a sample: the first, the last, and some between.
fn some(times: usize, most: usize) -> impl Iterator<Item = usize> {
    let places = times.min(most);
    (1..=places).map(move |place| (place * times).div_ceil(places))
}

fn everywhere(is_of_group: fn(&Way) -> bool) {
    for_each(
        WAYS.iter().filter(|way| is_of_group(way)),
        |way| way.name.to_owned(),
        |way| Trial::new(way)?.everywhere(),
    );
}

fn is_disk(way: &Way) -> bool {
    matches!(way.kind, Kind::Ext4 | Kind::Sparse)
}

fn makes_a_slot(way: &Way) -> bool {
    matches!(way.before, Before::Nothing | Before::SmallFile)
}

// Promise: a run killed while it creates the slot leaves the image unchanged, or with the slot.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn while_preparing() {
    everywhere(|way| is_disk(way) && makes_a_slot(way));
}

// Promise: a run killed while it writes or clears the slot leaves the old content or the new.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn while_overwriting() {
    everywhere(|way| is_disk(way) && !makes_a_slot(way));
}

// Promise: a run killed while it writes into an archive leaves one that GNU tar unpacks, with the old device or the new
// one; the next run succeeds, and corrects the checksum.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn while_writing_into_an_archive() {
    everywhere(|way| way.kind == Kind::Tar);
}

// Promise: a run killed while it rewrites a compressed image leaves the previous one, or one that the flasher unpacks;
// the next run succeeds, and corrects the checksum.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn while_compressing() {
    everywhere(|way| way.kind.is_compressed() && makes_a_slot(way));
}

// Promise: the same for a run killed while it overwrites or removes a device's frame.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn while_overwriting_a_frame() {
    everywhere(|way| way.kind.is_compressed() && !makes_a_slot(way));
}

// Promise: the same at random times.
#[test]
#[ignore = "random, for .ci/nightly"]
fn at_any_time() {
    let kills = std::env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    let each = usize::div_ceil(kills, WAYS.len());
    for_each(&WAYS, |way| way.name.to_owned(), |way| Trial::new(way)?.anywhen(each));
}

// Promise: a leftover copy of a killed run, with a password in it, is removed by any later run that may write.
#[test]
fn leftovers_go() -> anyhow::Result<()> {
    for verb in ["device", "clear"] {
        let bench = Bench::new()?;
        mkfs(&bench, &bench.image(), "", PLAIN)?;
        bench.device(OTHER, &[])?.ended_with(0)?;
        fs::copy(bench.image(), bench.path("images/.system.img.new"))?;
        match verb {
            "device" => bench.device(OTHER, &[])?.ended_with(0)?,
            verb => bench.verb(verb)?.ended_with(0)?,
        };
        assert_eq!(bench.beside()?, ["system.img"], "{verb}");
    }
    Ok(())
}

// Promise: removing a leftover copy takes no additional disk space: its holes are not filled.
#[test]
fn leftovers_with_holes() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    fs::File::create(bench.path("images/.system.img.new"))?.set_len(64 << 20)?;
    // Filling the hole would exceed this limit on the file size.
    let limited = bench.device_command(SERIAL, &[])?;
    let mut command = command(Path::new("prlimit"), &["--fsize=33554432"]);
    bench.wait(start(command.arg(limited.get_program()).args(limited.get_args()))?)?.ended_with(0)?;
    bench.holds(SERIAL, EMAIL)
}
