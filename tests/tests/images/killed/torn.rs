//! Writes torn by a power cut: partly the new bytes, and partly the old ones.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use crate::archive;
use crate::bench::{Bench, EMAIL, OTHER, SERIAL, for_each};
use crate::oracle;
use crate::recipe::{self, Kind, PLAIN, mkfs, put};

// Promise: a half-written block holds no device, and the next run writes it again.
#[test]
fn a_torn_block() -> anyhow::Result<()> {
    for edge in [512, 1024, 2048, 64, 200] {
        let bench = Bench::new()?;
        mkfs(&bench, &bench.image(), "", PLAIN)?;
        bench.device(OTHER, &[])?.ended_with(0)?;
        let place = oracle::block(&bench.image())? * 4096;
        let half = bench.path("half");
        fs::copy(bench.image(), &half)?;
        bench.device(SERIAL, &["--replace"])?.ended_with(0)?;
        if edge < 512 {
            // Both texts end within the first sector: simulate a disk with smaller sectors.
            anyhow::ensure!(edge < oracle::content(&bench.image())?.trim_end().len(), "not within the text");
        }
        let mut block = [0; 4096];
        OpenOptions::new().read(true).open(&half)?.read_exact_at(&mut block[edge..], place + edge as u64)?;
        OpenOptions::new().read(true).open(bench.image())?.read_exact_at(&mut block[..edge], place)?;
        let is_whole = oracle::content(&bench.image())?.as_bytes() == block;
        recipe::patch(&bench.image(), place, &block)?;
        assert_eq!(bench.inspect()?["empty"] == true, !is_whole, "{edge}");
        bench.device(SERIAL, &[])?.ended_with(0)?;
        bench.holds(SERIAL, EMAIL)?;
    }
    Ok(())
}

/// Combines two images at `edge`, in both orders.
fn torn(one: &[u8], other: &[u8], edge: usize) -> [Vec<u8>; 2] {
    [[&one[..edge], &other[edge..]].concat(), [&other[..edge], &one[edge..]].concat()]
}

// Promise: half-written trailing members hold no device, the archive unpacks, and the next run writes them again. The
// same for the frame of a compressed image.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn a_torn_later_tail() {
    for_each(&[Kind::Tar, Kind::TarZst, Kind::Ext4Zst], |kind| kind.name().to_owned(), |kind| torn_later(*kind));
}

fn torn_later(kind: Kind) -> anyhow::Result<()> {
    let bench = Bench::new()?;
    kind.make(&bench, &bench.image(), PLAIN)?;
    archive::put_sum(&bench.image())?;
    bench.device(OTHER, &[])?.ended_with(0)?;
    let (old, old_sum) = (fs::read(bench.image())?, fs::read(archive::sum_file(&bench.image()))?);
    bench.device(SERIAL, &["--replace"])?.ended_with(0)?;
    let new = fs::read(bench.image())?;
    let text = new.windows(16).rposition(|bytes| bytes == b"AZAION_DEVICE_SE").expect("the text");
    let sector = text / 512 * 512;
    // In a compressed image, a block of text starts anywhere in a sector.
    for edge in [sector + 64, sector + 200, sector + 512, text + 64, text + 200] {
        for torn in torn(&old, &new, edge) {
            let is_whole = torn == old || torn == new;
            recipe::patch(&bench.image(), 0, &torn)?;
            put(&archive::sum_file(&bench.image()), &old_sum, 0o644)?;
            oracle::is_private_in(&bench.image())?;
            assert_eq!(bench.inspect()?["empty"] == true, !is_whole, "{edge}");
            bench.device(SERIAL, &["--replace"])?.ended_with(0)?;
            bench.holds(SERIAL, EMAIL)?;
        }
    }
    Ok(())
}
