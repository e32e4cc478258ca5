//! Simulation: the agent's own code on a virtual clock, a disk that may lose unsynced data, and an API in memory. One
//! number, the seed, determines everything that happens.
//!
//! - `AZAION_SEED=7 cargo test -p azaion-tests --test simulation -- --nocapture` prints the history of one seed.
//! - `AZAION_SEEDS=100000` runs so many seeds, from `AZAION_FIRST_SEED` on.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a simulation that can't go on has failed"
)]

mod api;
mod client;
mod device;
mod dice;
mod disk;
mod events;
mod history;
mod invariants;
mod secrets;
mod weather;
mod world;

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// Number of seeds in a run of all tests.
const SEEDS: u64 = if cfg!(long) { 10_000 } else { 500 };

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs these seeds on all processors, and returns the violations of the first that failed.
fn try_seeds(seeds: &[u64], threads: usize) -> Option<String> {
    let next = AtomicU64::new(0);
    let try_some = || {
        let root = tempfile::tempdir_in(if Path::new("/dev/shm").exists() { "/dev/shm" } else { "/tmp" }).unwrap();
        let mut wrong = None;
        while let (None, Some(&seed)) =
            (&wrong, seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()))
        {
            wrong = history::violations(seed, root.path(), false);
            if let (Some(wrong), true) = (&wrong, env::var_os("AZAION_ALL").is_some()) {
                println!("{wrong}");
            }
            wrong = wrong.filter(|_| env::var_os("AZAION_ALL").is_none());
        }
        if wrong.is_some() {
            next.store(seeds.len() as u64, Ordering::Relaxed);
        }
        wrong
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(try_some)).collect();
        threads.into_iter().find_map(|thread| thread.join().unwrap())
    })
}

// Promise: whatever happens to a device and to the API, ready means a token that the API accepts; a valid token is lost
// only to the API's own refusal; no account is locked; no call is made in flight; every file is complete and private;
// and once there are no more faults, the device is ready within the documented time.
#[test]
fn whatever_happens() {
    if let Some(seed) = number("AZAION_SEED") {
        let root = tempfile::tempdir().unwrap();
        let wrong = history::violations(seed, root.path(), true);
        assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
        return;
    }
    let (first, count) = (number("AZAION_FIRST_SEED").unwrap_or(1), number("AZAION_SEEDS").unwrap_or(SEEDS));
    let all = thread::available_parallelism().map_or(1, |all| all.get() as u64);
    let threads = usize::try_from(number("AZAION_THREADS").unwrap_or(all)).unwrap();
    let (seeds, start) = ((first..first + count).collect::<Vec<_>>(), Instant::now());
    let wrong = try_seeds(&seeds, threads);
    let took = start.elapsed().as_secs_f64();
    println!("{count} seeds in {took:.1} s: {:.0} a second", f64::from(u32::try_from(count).unwrap()) / took);
    println!("{}", history::totals());
    assert!(wrong.is_none(), "after {took:.1} s: {}", wrong.unwrap_or_default());
}
