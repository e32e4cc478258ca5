//! Batches that are interrupted at any moment, by a power cut or Ctrl-C, and the runs that continue them.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::{Run, Running};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::kind::Kind;
use super::{Line, email, outcomes, range, serials};

/// Targets, devices, and repetitions of each kind of interruption.
const ROWS: [(Kind, usize, usize); 4] =
    [(Kind::Directory, 120, 10), (Kind::Raw, 120, 10), (Kind::Sparse, 36, 3), (Kind::Tar, 36, 3)];
/// Duration of an API call; a batch does at most two hundred devices a second.
const CALL: Duration = Duration::from_millis(20);
/// Maximum delay of the interruption after a call, in milliseconds.
const LATEST: u64 = 60;

/// Returns a random number less than `below`; the keys of `RandomState` are random enough.
fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// Creates a slow API that sometimes executes a call and delays the answer.
fn slow_line(kind: Kind) -> anyhow::Result<Line> {
    let line = Line::of(kind, Options::default())?;
    for (method, path) in [("POST", "/login"), ("PATCH", "/users/password")] {
        line.station.api.inject(method, path, Fault::Delay(CALL), usize::MAX);
    }
    for _ in 0..1000 {
        line.station.api.inject("POST", "/users", Fault::Delay(CALL), 2);
        line.station.api.inject("POST", "/users", Fault::DropAfter, 1);
    }
    Ok(line)
}

fn signal(running: &Running, signal: Signal) -> anyhow::Result<()> {
    Ok(kill(Pid::from_raw(running.id().try_into()?), signal)?)
}

/// Signals that a request has arrived; the receiver may be gone.
fn tell(told: Sender<()>) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        let _ = told.send(());
    })
}

/// Starts a batch, and waits until it has made a call to `path`.
fn start_until(line: &Line, path: &str, list: &str, options: &[&str]) -> anyhow::Result<Running> {
    let (told, call) = channel();
    line.station.api.on_request("POST", path, tell(told));
    let running = line.start(list, options)?;
    call.recv_timeout(Duration::from_secs(20))?;
    Ok(running)
}

/// Starts a batch and interrupts it with this signal, at any time after its first call.
fn ended_by(line: &Line, units: usize, how: Signal) -> anyhow::Result<Run> {
    let (told, call) = channel();
    for (method, path) in [("POST", "/users"), ("POST", "/login")] {
        let told = told.clone();
        line.station.api.on_request(method, path, tell(told));
    }
    let running = line.start(&range(1, units), &["--json", "--jobs", "4"])?;
    call.recv_timeout(Duration::from_secs(20))?;
    // The other call may arrive meanwhile.
    let until = Instant::now() + Duration::from_millis(random(LATEST));
    while call.recv_timeout(until.saturating_duration_since(Instant::now())) != Err(RecvTimeoutError::Timeout) {}
    signal(&running, how)?;
    line.wait(running)
}

/// Checks a batch after Ctrl-C: calls in progress were finished, the rest is counted.
fn is_finished(line: &Line, units: usize, run: Run) -> anyhow::Result<()> {
    let run = run.ended_with(130)?;
    let mut lines = run.json_lines()?;
    let summary = lines.pop().unwrap();
    let not_tried = summary["not_tried"].as_u64().unwrap();
    assert!(lines.len() as u64 + not_tried == units as u64 && not_tried > 0, "{}", run.words());
    assert!(run.stderr.contains(&format!("{not_tried} of {units} devices were not tried")), "{}", run.stderr);
    let (failed, done): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["outcome"] == "failed");
    done.iter().try_for_each(|unit| line.is_let_in(unit["serial"].as_str().unwrap()))?;
    // A device that was about to be retried has no call in progress.
    let is_told = |unit: &&Value| unit["error"].as_str().unwrap_or_default().contains("run this again");
    assert!(failed.iter().all(is_told), "{}", run.words());
    Ok(())
}

// Promise: wherever a batch is interrupted, ten times by kill -9 and ten times by Ctrl-C on directories and on images,
// three times each on the other kinds, the next one continues from there, and after an uninterrupted one every device
// has one user and a file that the API accepts, with no leftovers. Ctrl-C is exit 130, after the calls in progress are
// answered; devices that were about to be retried are reported as to be run again.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn at_any_time() -> anyhow::Result<()> {
    ROWS.into_iter().try_for_each(|(kind, units, times)| {
        interrupted(kind, units, times).map_err(|error| error.context(format!("{kind:?}")))
    })
}

fn interrupted(kind: Kind, units: usize, times: usize) -> anyhow::Result<()> {
    let line = slow_line(kind)?;
    for number in 0..2 * times {
        if number % 2 == 0 {
            ended_by(&line, units, Signal::SIGKILL)?;
        } else {
            let run = ended_by(&line, units, Signal::SIGINT)?;
            is_finished(&line, units, run).map_err(|error| error.context(format!("run {number}")))?;
        }
    }
    let begun = line.station.api.users().len();
    println!("{kind:?}: {begun} of {units} devices were on the API before the last run");
    assert!((1..units).contains(&begun));
    line.station.api.clear_faults();
    line.batch(&range(1, units), &[])?.ended_with(0)?;
    let mut users: Vec<String> = line.station.api.users().into_iter().map(|user| user.email).collect();
    users.sort();
    let serials = serials(1, units);
    assert_eq!(users, serials.iter().map(|serial| email(serial)).collect::<Vec<_>>());
    serials.iter().try_for_each(|serial| line.is_let_in(serial))?;
    let mut beside = names(&line.units())?;
    beside.retain(|name| kind != Kind::Tar || !name.ends_with(".sha1sum") && !name.ends_with(".azaion-sha1"));
    assert_eq!(beside, serials);
    for serial in serials.iter().filter(|_| kind == Kind::Directory) {
        assert_eq!(names(&line.target(serial).join("etc/azaion"))?, ["device.conf"]);
    }
    Ok(())
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = fs::read_dir(folder)?.map(name).collect::<anyhow::Result<_>>()?;
    names.sort();
    Ok(names)
}

// Promise: the second Ctrl-C ends it at once, though a call hangs; the next run does it all.
#[test]
fn a_second_time_ends_it_at_once() -> anyhow::Result<()> {
    let line = Line::new(Options::default())?;
    line.station.api.inject("POST", "/users", Fault::Hang, usize::MAX);
    let running = start_until(&line, "/users", &range(1, 8), &[])?;
    let (pid, start) = (Pid::from_raw(running.id().try_into()?), Instant::now());
    kill(pid, Signal::SIGINT)?;
    let run = thread::scope(|scope| {
        let (ended, end) = channel();
        scope.spawn(move || ended.send(running.wait()));
        // The process exists until it is waited for; two signals at the same time would be merged into one.
        loop {
            match end.recv_timeout(Duration::from_millis(50)) {
                Ok(run) => return run,
                Err(_) => kill(pid, Signal::SIGINT)?,
            }
        }
    })?;
    run.ended_with(130)?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    line.station.api.clear_faults();
    line.batch(&range(1, 8), &[])?.ended_with(0)?;
    serials(1, 8).iter().try_for_each(|serial| line.is_let_in(serial))
}

// Promise: Ctrl-C ends a batch within twelve seconds while the API does not answer at all, for any number of devices in
// progress.
#[test]
fn while_the_api_hangs() -> anyhow::Result<()> {
    let line = Line::new(Options::default())?;
    line.station.api.inject("POST", "/login", Fault::Hang, usize::MAX);
    let running = start_until(&line, "/login", &range(1, 20), &["--jobs", "8"])?;
    let start = Instant::now();
    signal(&running, Signal::SIGINT)?;
    line.wait(running)?.ended_with(130)?;
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    Ok(())
}

// Promise: Ctrl-C also ends a wait requested by the API; the device in progress is reported as failed, with what to do.
#[test]
fn a_wait_ends_too() -> anyhow::Result<()> {
    let line = Line::new(Options::default())?;
    let later = Fault::Status { code: 503, error: None, headers: vec![("Retry-After".into(), "60".into())] };
    line.station.api.inject("POST", "/users", later, usize::MAX);
    let running = start_until(&line, "/users", &range(1, 8), &["--jobs", "1"])?;
    let start = Instant::now();
    signal(&running, Signal::SIGINT)?;
    let run = line.wait(running)?.ended_with(130)?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(run.stdout.contains("1 failed, 7 not tried"), "{}", run.words());
    assert!(run.stdout.contains("run this again"), "{}", run.stdout);
    line.station.api.clear_faults();
    line.batch(&range(1, 8), &[])?.ended_with(0)?;
    serials(1, 8).iter().try_for_each(|serial| line.is_let_in(serial))
}

// Promise: a confirmation comment that had not reached the disk at a power cut costs its device one login in the next
// batch, and nothing else; that batch writes the comment again, and the one after it makes no call.
#[test]
fn a_mark_that_is_lost() -> anyhow::Result<()> {
    const MARK: &[u8] = b"# azaion-provision: the API takes this password";
    for kind in [Kind::Raw, Kind::Sparse] {
        let line = Line::of(kind, Options::default())?;
        line.batch(&range(1, 6), &[])?.ended_with(0)?;
        let lost = serials(1, 4);
        for serial in &lost {
            let mut image = fs::read(line.target(serial))?;
            let place = image
                .windows(MARK.len())
                .position(|bytes| bytes == MARK)
                .context("there is no confirmation comment")?;
            // The previous content.
            image[place..][..MARK.len()].fill(b'\n');
            File::options().write(true).open(line.target(serial))?.write_all_at(&image, 0)?;
        }
        for more in [lost.len(), 0] {
            let logins = line.logins();
            let run = line.batch(&range(1, 6), &["--json"])?.ended_with(0)?;
            assert!(outcomes(&run)?.iter().all(|(_, outcome)| outcome == "reused"), "{}", run.words());
            assert_eq!((line.created(), line.logins()), (6, logins + more), "{kind:?}");
            serials(1, 6).iter().try_for_each(|serial| line.is_let_in(serial))?;
        }
    }
    Ok(())
}
