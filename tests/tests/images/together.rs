//! Concurrent runs on one image: they run one after the other, and readers see the old device or the new one.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use azaion_tests::programs::start;
use nix::fcntl::{Flock, FlockArg};

use crate::bench::{Bench, EMAIL, OTHER, OTHER_EMAIL, SERIAL, for_each};
use crate::recipe::{Kind, PLAIN};

const BOTH: [(&str, &str); 2] = [(SERIAL, EMAIL), (OTHER, OTHER_EMAIL)];

fn image(kind: Kind) -> anyhow::Result<Bench> {
    let bench = Bench::new()?;
    kind.make(&bench, &bench.image(), PLAIN)?;
    Ok(bench)
}

/// Runs a test with an image of each kind.
fn with_each_kind(one: impl Fn(&Bench) -> anyhow::Result<()>) {
    for_each(&Kind::ALL, |kind| kind.name().to_owned(), |kind| one(&image(*kind)?));
}

/// Runs for both devices at once; the image then holds one of them completely.
fn race(bench: &Bench) -> anyhow::Result<()> {
    let mut running = Vec::new();
    for (serial, _) in BOTH {
        running.push(start(&mut bench.device_command(serial, &["--replace"])?)?);
    }
    for running in running {
        bench.wait(running)?.ended_with(0)?;
    }
    let told = bench.inspect()?;
    let last = BOTH.iter().find(|(serial, _)| told["serial"] == *serial);
    let (serial, email) = last.expect("one of the two");
    bench.holds(serial, email)
}

// Promise: two runs on one image run one after the other, also while the slot is created; the image holds one of the
// two devices.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn two_writers() {
    with_each_kind(|bench| {
        // The first race includes creating the slot.
        (0..4).try_for_each(|_| race(bench))
    });
}

// Promise: `inspect` needs no lock: it reports the present state while another run holds the target.
#[test]
fn a_reader_of_a_target_in_use() {
    with_each_kind(|bench| {
        for expected in [None, Some(SERIAL)] {
            if let Some(serial) = expected {
                bench.device(serial, &[])?.ended_with(0)?;
            }
            let lock = Flock::lock(File::open(bench.image())?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
            anyhow::ensure!(bench.inspect()?["serial"].as_str() == expected, "{expected:?}");
            drop(lock);
        }
        Ok(())
    });
}

// Promise: a concurrent reader sees one device or the other, or none before the first; never an error.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn a_reader() {
    with_each_kind(|bench| {
        let is_over = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let told = bench.inspect()?;
                    let is_device =
                        BOTH.iter().any(|(serial, email)| told["serial"] == *serial && told["email"] == *email);
                    anyhow::ensure!(is_device || told["empty"] == true, "{told}");
                    seen += usize::from(is_device);
                }
                Ok(seen)
            });
            let written = (0..4).try_for_each(|_| race(bench));
            is_over.store(true, Ordering::Relaxed);
            written.and(reader.join().expect("the reader continues"))
        })?;
        anyhow::ensure!(seen > 0, "nothing was seen");
        Ok(())
    });
}
