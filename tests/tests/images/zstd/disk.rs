//! Compressed disk images that are mostly zeros, as a whole partition is.

use std::path::Path;

use crate::archive::put_sum;
use crate::bench::{Bench, EMAIL, OTHER, OTHER_EMAIL, SERIAL};
use crate::oracle::{InMemory, run, text};
use crate::recipe::{self, PLAIN};

/// Size of the content, and free bytes where the image is.
const SIZE: &str = "256M";
const ROOM: &str = "8M";

/// Creates a file system with the usual tree and much free space, and compresses it into the directory of images.
fn make(bench: &Bench) -> anyhow::Result<()> {
    let disk = bench.path("disk");
    recipe::tree(bench, PLAIN)?;
    let tree = bench.path("tree");
    run(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-b", "4096", "-E", "root_owner=0:0", "-d", text(&tree), text(&disk), SIZE],
    )?;
    run("zstd", &["-q", "-T0", text(&disk), "-o", text(&bench.path("images/system.img.zst"))])?;
    put_sum(&bench.image())
}

fn size_of_content(image: &Path) -> anyhow::Result<u64> {
    Ok(run("sh", &["-c", "zstd -dcq \"$1\" | wc -c", "sh", text(image)])?.trim().parse()?)
}

// Promise: the zeros of a partition are never written out: a host with disk space for its content can give it a slot.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn needs_no_room_for_zeros() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    let room = InMemory::over(&bench.path("images"), ROOM)?;
    make(&bench)?;
    bench.device(SERIAL, &[])?.ended_with(0)?;
    bench.holds(SERIAL, EMAIL)?;
    assert_eq!(size_of_content(&bench.image())?, 256 << 20);
    bench.device(OTHER, &["--replace"])?.ended_with(0)?;
    bench.holds(OTHER, OTHER_EMAIL)?;
    drop(room);
    Ok(())
}
