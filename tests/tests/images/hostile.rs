//! Hostile images, archives, checksum files and lists, made to exhaust the time, memory or disk space of the flashing
//! host, and the sandbox of the programs that parse them.

mod bombs;
mod first_sight;
mod programs;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use azaion_tests::programs::{Run, native, start};
use azaion_tests::station::command;
use nix::sys::statvfs::statvfs;

use crate::bench::{Bench, EMAIL, SERIAL, for_each, is_root};
use crate::oracle::{InMemory, text};

/// Limits of each run in seconds, and of each of its processes in KiB of memory.
const MOST_SECONDS: f64 = 30.0;
const MOST_MEMORY: u64 = 256 << 10;
/// Maximum additional disk use in bytes besides a tenth of the image: the minimum that an image may unpack to, however
/// small it is.
const MOST_ROOM: u64 = 20 << 20;

/// Runs a program, and prints its exit code, its time, and the largest memory of any of its processes.
const MEASURE: &str = "import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
with open(sys.argv[1], 'w') as file:
    print(code, time.monotonic() - start, used, file=file)
";

/// A run with its resource use.
struct Measured {
    run: Run,
    seconds: f64,
    memory: u64,
    /// Maximum additional disk use in bytes, if it can be measured.
    room: u64,
}

#[expect(clippy::disallowed_methods, reason = "no clock of a program under test is involved")]
fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn used(folder: &Path) -> u64 {
    statvfs(folder).map_or(0, |stat| (stat.blocks() - stat.blocks_free()) * stat.fragment_size())
}

/// Runs the program on the host, with the API options if it needs them.
fn measure(bench: &Bench, arguments: &[&str], has_api: bool) -> anyhow::Result<Measured> {
    let (images, out) = (bench.path("images"), bench.path("measured"));
    let program = native()?.join("azaion-provision");
    let mut wrapped = command(Path::new("python3"), &["-c", MEASURE, text(&out), "timeout", "60", text(&program)]);
    wrapped.args(arguments);
    if has_api {
        wrapped.args(bench.api());
    }
    let (is_over, most, before) = (AtomicBool::new(false), AtomicU64::new(0), used(&images));
    let run = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(used(&images).saturating_sub(before), Ordering::Relaxed);
                pause(2);
            }
        });
        let run = start(&mut wrapped).and_then(|running| bench.wait(running));
        is_over.store(true, Ordering::Relaxed);
        run
    })?;
    let said = fs::read_to_string(&out)?;
    let mut numbers = said.split_whitespace();
    let mut next = || numbers.next().context("a number");
    let code = next()?.parse()?;
    let (seconds, memory) = (next()?.parse()?, next()?.parse()?);
    Ok(Measured { run: Run { code: Some(code), ..run }, seconds, memory, room: most.into_inner() })
}

/// The state of a file that must not change, compared without reading its terabytes.
#[derive(Debug, PartialEq, Eq)]
struct Identity([u64; 4], [i64; 2]);

impl Identity {
    fn of(file: &Path) -> anyhow::Result<Self> {
        let is = fs::metadata(file)?;
        Ok(Self([is.ino(), is.mode().into(), is.uid().into(), is.len()], [is.mtime(), is.mtime_nsec()]))
    }
}

/// A hostile input, and the message of `device` for it.
struct Row {
    name: &'static str,
    make: fn(&Bench) -> anyhow::Result<()>,
    code: i32,
    says: &'static str,
}

const fn refused(name: &'static str, make: fn(&Bench) -> anyhow::Result<()>, says: &'static str) -> Row {
    Row { name, make, code: 66, says }
}

impl Row {
    /// Checks that each command ends within the limits of time, memory and disk space, and leaves a refused image and
    /// everything beside it unchanged.
    fn try_commands(&self) -> anyhow::Result<()> {
        let bench = Bench::new()?;
        // A separate file system, so that its use can be measured.
        let in_memory = is_root().then(|| InMemory::over(&bench.path("images"), "2G")).transpose()?;
        (self.make)(&bench).context("creating the input")?;
        let image = bench.image();
        let image = text(&image);
        let (beside, before) = (bench.beside()?, Identity::of(&bench.image())?);
        let size = fs::metadata(image)?.blocks() * 512;
        let (list, mut is_slow) = (format!("{SERIAL}..{SERIAL}"), false);
        for arguments in [
            &["device", SERIAL, "--rootfs", image][..],
            &["batch", &list, "--rootfs", image],
            &["inspect", image],
            &["clear", image],
        ] {
            let has_api = matches!(arguments[0], "device" | "batch");
            if arguments[0] == "batch" && is_slow {
                // It takes as long as `device`.
                continue;
            }
            let measured = measure(&bench, arguments, has_api)?;
            let content = if Path::new(image).extension().is_some_and(|end| end == "zst") { 32 * size } else { size };
            self.is_within(arguments[0], &measured, content)?;
            is_slow = measured.seconds > 5.0;
            if self.code != 0 {
                ensure!(bench.beside()? == beside, "{} left {:?}", arguments[0], bench.beside()?);
                ensure!(Identity::of(&bench.image())? == before, "{} changed the image", arguments[0]);
                ensure!(bench.station.api.users().is_empty(), "a user was created");
            }
        }
        drop(in_memory);
        Ok(())
    }

    fn is_within(&self, command: &str, measured: &Measured, size: u64) -> anyhow::Result<()> {
        let Measured { run, seconds, memory, room } = measured;
        println!("{}: {command}: {seconds:.1} s, {} MiB, {} MiB on the disk", self.name, memory >> 10, room >> 20);
        let codes = if matches!(command, "device" | "batch") { &[self.code][..] } else { &[0, self.code] };
        ensure!(run.code.is_some_and(|code| codes.contains(&code)), "{command}: {}", run.words());
        // A batch has the message in its report.
        ensure!(run.code == Some(0) || run.words().contains(self.says), "{command}: {}", run.words());
        ensure!(run.words().len() < 16_384, "{command} prints {} bytes", run.words().len());
        ensure!(*seconds < MOST_SECONDS, "{command} takes {seconds} s");
        ensure!(*memory < MOST_MEMORY, "{command} takes {memory} KiB of memory");
        ensure!(*room < size + size / 10 + MOST_ROOM, "{command} takes {room} bytes on the disk");
        Ok(())
    }
}

fn try_all(rows: &[Row]) {
    for_each(rows, |row| row.name.to_owned(), Row::try_commands);
}
