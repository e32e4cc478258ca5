//! The matrix: the device's clock × the issue time of the server's certificate × the intermediary × the API.
//!
//! In each cell a device with a genuine server becomes ready without intervention, and one with a server that is not
//! the API, or with a bad token, does not. All of it is the agent's own code in this process, on a clock that advances
//! when it waits, with the development API over TLS, and with names resolved by the C library.

mod cell;
mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use azaion_tests::dev_api::Generation;

use cell::{Between, Cell, Flaw};
use place::Place;

const DAY: i64 = 24 * 3600;
const YEAR: i64 = 365 * DAY;
/// Number of threads, each with its own servers and network.
const WORKERS: usize = 2;
/// Maximum virtual time until a cell is ready: an HTML page in place of the answer costs five minutes.
const LONGEST: Duration = Duration::from_mins(7);

/// A device's clock at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wall {
    Start1970,
    BuildTime,
    DayBeforeFloor,
    Right,
    YearAhead,
    Start2061,
}

const WALLS: [Wall; 6] =
    [Wall::Start1970, Wall::BuildTime, Wall::DayBeforeFloor, Wall::Right, Wall::YearAhead, Wall::Start2061];

/// The issue time of the server's certificate in seconds after the floor, and its validity in days.
const ISSUED: [(i64, i64); 6] = [(-YEAR, 398), (-DAY, 90), (DAY, 47), (47 * DAY, 90), (200 * DAY, 200), (3 * YEAR, 47)];

const GENERATIONS: [Generation; 3] = [Generation::G1, Generation::G2, Generation::G2b];

/// Returns all cells of one server: each clock with each intermediary.
fn cells_of(place: &Arc<Place>, generation: Generation, issued: (i64, i64)) -> anyhow::Result<usize> {
    let server = Arc::new(place.server(generation, issued)?);
    let mut count = 0;
    for wall in WALLS {
        for between in Between::all(place) {
            let cell = Cell { place: Arc::clone(place), server: Arc::clone(&server), wall, between };
            let name = format!("{wall:?}, issued {issued:?}, {between:?}, {generation:?}");
            let took = cell.becomes_ready().map_err(|error| error.context(name.clone()))?;
            ensure!(took <= LONGEST, "{name}: ready after {took:?}");
            for flaw in Flaw::all(generation, count) {
                cell.refuses(flaw).map_err(|error| error.context(format!("{name}, {flaw:?}")))?;
            }
            count += 1;
        }
    }
    Ok(count)
}

// Promise: for any clock, any issue time of the certificate, with name resolution that is 45 s late, an HTML page in
// place of the answer, or a proxy: the device becomes ready without intervention with each generation of the API. In
// each of these cells it rejects a certificate of another CA, for another name, or expired before the floor, and a bad
// token.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn every_cell() -> anyhow::Result<()> {
    let start = Instant::now();
    let servers: Vec<_> = GENERATIONS.iter().flat_map(|g| ISSUED.iter().map(move |issued| (*g, *issued))).collect();
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<usize> {
        let place = Arc::new(Place::new()?);
        let mut count = 0;
        while let Some((generation, issued)) = servers.get(next.fetch_add(1, Ordering::Relaxed)) {
            count += cells_of(&place, *generation, *issued)?;
        }
        Ok(count)
    };
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<anyhow::Result<Vec<_>>>()
    })?;
    println!("{} cells in {:.1} s", counts.iter().sum::<usize>(), start.elapsed().as_secs_f32());
    Ok(())
}
