//! Attempts to make a run wait forever or use all memory.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use azaion_tests::programs::output;
use azaion_tests::station::{Station, command};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::attacker::{make_image, text};

const LIST: &str = "AZJN-0001..AZJN-0002";
/// In KiB.
const MEMORY: u64 = 128 << 10;

/// Runs a batch that copies an image under GNU time, whose result is in the file `time`.
fn batch(station: &Station) -> anyhow::Result<azaion_tests::programs::Run> {
    let (template, base) = (text(&station.path("units/{serial}")), text(&station.path("base.img")));
    let ours = station.provision_command(&["batch", LIST, "--rootfs", &template, "--base", &base])?;
    let mut timed = command(Path::new("timeout"), &["60", "time", "-f", "%M", "-o", &text(&station.path("time"))]);
    timed.arg(ours.get_program()).args(ours.get_args()).args(station.api_arguments());
    station.wait(azaion_tests::programs::start(&mut timed)?)
}

// Promise: another user's lock on the directory of the copies does not block a batch, and neither does a FIFO or a file
// of gigabytes in place of a checksum file; none of them takes memory.
#[test]
fn a_batch_with_a_base() -> anyhow::Result<()> {
    let station = Station::new(azaion_tests::dev_api::Options::default())?;
    fs::create_dir(station.path("units"))?;
    make_image(&station, &station.path("base.img"))?;
    let locked =
        Flock::lock(File::open(station.path("units"))?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let start = Instant::now();
    batch(&station)?.ended_with(0)?;
    ensure!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(locked);
    let sum = station.path("base.img.sha1sum");
    for put in
        [|sum: &Path| Ok(mkfifo(sum, Mode::S_IRWXU)?), |sum: &Path| anyhow::Ok(File::create(sum)?.set_len(3 << 30)?)]
    {
        let _ = fs::remove_dir_all(station.path("units"));
        let _ = fs::remove_file(&sum);
        put(&sum)?;
        let start = Instant::now();
        batch(&station)?.ended_with(66)?;
        ensure!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let memory: u64 =
            output(&mut command(Path::new("tail"), &["-n1", &text(&station.path("time"))]))?.trim().parse()?;
        ensure!(memory < MEMORY, "{memory} KiB");
    }
    Ok(())
}
