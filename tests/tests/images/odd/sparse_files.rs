//! Android sparse images that no flash script creates, and those that one might.

use std::fs;

use super::Make::{Bytes, Sparse};
use super::{Row, cut, good, refused, try_all};
use crate::bench::{Bench, EMAIL, OTHER, SERIAL};
use crate::oracle::{raw_copy, run, text};
use crate::recipe::{self, PLAIN, mkfs, patch, put, to_sparse};
use crate::sparse::{self, CRC32, Chunk, DONT_CARE, FILL, RAW};

const DAMAGED: &str = "damaged";

/// Changes bytes of the header, or of the first chunk's header.
fn header(bench: &Bench, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
    patch(&bench.image(), offset, bytes)
}

fn push(bench: &Bench, kind: u16, blocks: u32, body: &[u8]) -> anyhow::Result<()> {
    sparse::change(&bench.image(), |sparse| {
        sparse.chunks.push(Chunk { kind, blocks, body: body.to_vec() });
        Ok(())
    })
}

const ROWS: [Row; 37] = [
    good("a checksum in the header", Sparse(|b| header(b, 24, b"sums"))),
    good("a checksum in a chunk", Sparse(with_checksum)),
    refused("a checksum of blocks", Sparse(|b| push(b, CRC32, 1, b"sums")), DAMAGED),
    refused("a long checksum", Sparse(|b| push(b, CRC32, 0, b"checksum")), DAMAGED),
    refused("LUKS in it", Sparse(|b| content(b, b"LUKS\xba\xbe", 0)), "before the image is generated"),
    refused("squashfs in it", Sparse(|b| content(b, b"hsqs", 0)), "squashfs"),
    refused("btrfs in it", Sparse(|b| content(b, b"_BHRfS_M", 0x1_0040)), "btrfs"),
    refused("f2fs in it", Sparse(|b| content(b, b"\x10\x20\xf5\xf2", 1024)), "f2fs"),
    refused("a GPT in it", Sparse(|b| content(b, b"EFI PART", 512)), "whole disk"),
    refused("a tar archive in it", Sparse(|b| content(b, b"ustar", 257)), "simg2img"),
    refused("cut in a chunk", Sparse(|b| cut(b, |all| all / 2)), DAMAGED),
    refused("cut by a byte", Sparse(|b| push(b, RAW, 1, &[7; 4096]).and_then(|()| cut(b, |all| all - 1))), DAMAGED),
    refused("cut in the header", Sparse(|b| cut(b, |_| 20)), DAMAGED),
    refused("cut after the header", Sparse(|b| cut(b, |_| 28)), DAMAGED),
    refused("cut in a chunk's header", Sparse(|b| cut(b, |_| 33)), DAMAGED),
    refused("other blocks than it says", Sparse(|b| header(b, 16, &[1, 0, 0, 0])), DAMAGED),
    refused("more chunks than there are", Sparse(|b| header(b, 20, &[0xFF, 0xFF, 0, 0])), DAMAGED),
    refused("chunks without end", Sparse(|b| header(b, 20, &[0xFF; 4])), DAMAGED),
    refused("no chunks", Sparse(|b| header(b, 16, &[0; 8])), "no root file system"),
    refused("an unknown chunk", Sparse(|b| header(b, 28, &[0xC9, 0xCA])), DAMAGED),
    refused("a chunk of another length", Sparse(|b| header(b, 32, &[1])), DAMAGED),
    refused("a chunk shorter than its header", Sparse(|b| header(b, 36, &[11, 0, 0, 0])), DAMAGED),
    refused("a chunk longer than the file", Sparse(|b| header(b, 36, &[0xFF; 4])), DAMAGED),
    refused("blocks of 8 KiB", Sparse(|b| header(b, 12, &[0, 0x20, 0, 0])), "4096 bytes"),
    refused("blocks of nothing", Sparse(|b| header(b, 12, &[0; 4])), "4096 bytes"),
    refused("version 2", Sparse(|b| header(b, 4, &[2, 0])), "another version"),
    good("version 1.1", Sparse(|b| header(b, 6, &[1, 0]))),
    refused("a short header", Sparse(|b| header(b, 8, &[27, 0])), DAMAGED),
    refused("short chunk headers", Sparse(|b| header(b, 10, &[0, 0])), DAMAGED),
    refused("of zeros", Sparse(of_zeros), ""),
    refused("of blocks of 1 KiB", Sparse(|b| of(b, "-b 1024")), "4096 bytes"),
    refused("of a journal to replay", Sparse(of_a_dirty_one), "not unmounted cleanly"),
    good("larger chunk headers", Sparse(|b| sized(b, 28, 16))),
    good("a larger header", Sparse(|b| sized(b, 32, 12))),
    good(
        "chunks of one block",
        Sparse(|b| {
            sparse::change(&b.image(), |sparse| {
                sparse.shatter();
                Ok(())
            })
        }),
    ),
    good("chunks of no blocks", Sparse(empty_chunks)),
    refused("the magic alone", Bytes(0, b"\x3a\xff\x26\xed\x01\0\0\0\x1c\0\x0c\0\0\x10\0\0"), "no root file system"),
];

fn sized(bench: &Bench, header: usize, chunk_header: usize) -> anyhow::Result<()> {
    sparse::change(&bench.image(), |sparse| {
        (sparse.header, sparse.chunk_header) = (header, chunk_header);
        Ok(())
    })
}

fn of(bench: &Bench, options: &str) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), options, PLAIN)?;
    to_sparse(&bench.image())
}

/// A sparse image of a file with these bytes at an offset.
fn content(bench: &Bench, magic: &[u8], offset: u64) -> anyhow::Result<()> {
    put(&bench.image(), "", 0o644)?;
    recipe::resize(&bench.image(), 1 << 20)?;
    patch(&bench.image(), offset, magic)?;
    to_sparse(&bench.image())
}

/// Appends the chunk that `make_ext4fs -c` writes: the CRC of the raw image.
fn with_checksum(bench: &Bench) -> anyhow::Result<()> {
    let raw = raw_copy(&bench.image())?;
    let script = "import sys, zlib; print(zlib.crc32(open(sys.argv[1], 'rb').read()))";
    let crc: u32 = run("python3", &["-c", script, text(raw.path())])?.trim().parse()?;
    push(bench, CRC32, 0, &crc.to_le_bytes())
}

fn of_zeros(bench: &Bench) -> anyhow::Result<()> {
    sparse::change(&bench.image(), |sparse| {
        sparse.chunks = vec![Chunk { kind: FILL, blocks: 4096, body: vec![0; 4] }];
        Ok(())
    })
}

fn of_a_dirty_one(bench: &Bench) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), "", PLAIN)?;
    recipe::debugfs(&bench.image(), "feature needs_recovery")?;
    to_sparse(&bench.image())
}

fn empty_chunks(bench: &Bench) -> anyhow::Result<()> {
    sparse::change(&bench.image(), |sparse| {
        let empty = |kind, body: &[u8]| Chunk { kind, blocks: 0, body: body.to_vec() };
        let chunks = std::mem::take(&mut sparse.chunks);
        for chunk in chunks {
            sparse.chunks.extend([empty(DONT_CARE, &[]), empty(RAW, &[]), empty(FILL, &[1, 2, 3, 4]), chunk]);
        }
        Ok(())
    })
}

// Promise: sparse images are accepted as the format allows, or refused, unchanged.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn sparse_files() {
    try_all(&ROWS);
}

// Promise: a slot's block that is only described by a fill chunk gets its own raw chunk, and then each device
// overwrites that.
#[test]
fn a_slot_that_is_only_described() -> anyhow::Result<()> {
    for (kind, body, code) in
        [(FILL, &b"\n\n\n\n"[..], 0), (FILL, b"# # ", 65), (FILL, &[0; 4], 65), (DONT_CARE, &[], 65)]
    {
        let bench = Bench::new()?;
        of(&bench, "")?;
        bench.device(OTHER, &[])?.ended_with(0)?;
        sparse::change_slot(&bench.image(), kind, body)?;
        let name = format!("{kind:#x} {body:?}");
        bench.device(SERIAL, &[])?.ended_with(code).map_err(|error| error.context(name.clone()))?;
        if code == 65 {
            bench.device(SERIAL, &["--replace"])?.ended_with(0).map_err(|error| error.context(name))?;
        }
        bench.holds(SERIAL, EMAIL)?;
    }
    Ok(())
}

// Promise: preparation changes as little of a sparse image as possible: its size stays about the same, and raw, fill
// and don't-care chunks keep their kinds.
#[test]
fn preparation_keeps_a_sparse_image_sparse() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    of(&bench, "")?;
    let (size, raw) = (fs::metadata(bench.image())?.len(), raw_copy(&bench.image())?);
    bench.device(SERIAL, &[])?.ended_with(0)?;
    let grown = fs::metadata(bench.image())?.len() - size;
    assert!(grown < 64 * 1024, "grown by {grown} bytes");
    assert_eq!(fs::metadata(raw.path())?.len(), fs::metadata(raw_copy(&bench.image())?.path())?.len());
    Ok(())
}

// Promise: a fill chunk of zeros in a large image takes neither time nor disk space, for the first device and for later
// ones.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn a_large_image_that_is_almost_empty() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    recipe::resize(&bench.image(), 6 << 30)?;
    run("resize2fs", &["-f", text(&bench.image())])?;
    to_sparse(&bench.image())?;
    for serial in [SERIAL, OTHER] {
        // Zeros of 6 GiB can't be written, validated and read again within the time limit of a run here.
        bench.device(serial, &["--replace"])?.ended_with(0)?;
        anyhow::ensure!(fs::metadata(bench.image())?.len() < 64 << 20, "{serial}: the image has grown");
    }
    Ok(())
}
