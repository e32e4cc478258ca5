//! Compressed images that are truncated, damaged, beyond the flasher's zstd, or misnamed.

mod contents;

use std::fs;

use super::Make::By;
use super::{Row, good, refused, try_all};
use crate::archive::{make, make_plain, put_sum, sum_file};
use crate::bench::Bench;
use crate::oracle::{run, text};
use crate::recipe::{Kind, PLAIN, mkfs, put};

/// Size in bytes of the frame header that `zstd` writes for an unknown content size: magic number, descriptor, window.
const HEADER: usize = 6;
const DAMAGED: &str = "has a damaged zstd stream";

/// A usual compressed archive with changed bytes.
fn changed(bench: &Bench, change: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
    Kind::TarZst.make(bench, &bench.image(), PLAIN)?;
    rewrite(bench, change)
}

/// A usual compressed disk image with changed bytes.
fn changed_disk(bench: &Bench, change: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
    Kind::Ext4Zst.make(bench, &bench.image(), PLAIN)?;
    rewrite(bench, change)
}

fn rewrite(bench: &Bench, change: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
    let mut bytes = fs::read(bench.image())?;
    change(&mut bytes);
    put(&bench.image(), bytes, 0o644)?;
    put_sum(&bench.image())
}

fn cut(bench: &Bench, length: impl FnOnce(usize) -> usize) -> anyhow::Result<()> {
    changed(bench, |bytes| bytes.truncate(length(bytes.len())))
}

/// Appends bytes to it.
fn followed(bench: &Bench, tail: &[u8]) -> anyhow::Result<()> {
    changed(bench, |bytes| bytes.extend_from_slice(tail))
}

/// An archive that these commands compress, or whatever they create from `archive`.
fn compressed(bench: &Bench, commands: &str) -> anyhow::Result<()> {
    make_plain(bench, &bench.path("archive"), PLAIN)?;
    by(bench, commands)
}

/// Shell commands that create `images/system.img` or `images/system.img.zst`.
fn by(bench: &Bench, commands: &str) -> anyhow::Result<()> {
    run("env", &["-C", text(&bench.path("")), "bash", "-euo", "pipefail", "-c", commands])?;
    put_sum(&bench.image())
}

const STREAMS: [Row; 27] = [
    refused("cut in its frame header", By(|bench| cut(bench, |_| HEADER - 1)), "it is cut"),
    refused("cut in its first block header", By(|bench| cut(bench, |_| HEADER + 2)), "it is cut"),
    refused("cut behind its frame header", By(|bench| cut(bench, |_| HEADER)), "it is cut"),
    refused("cut in a block", By(|bench| cut(bench, |length| length / 2)), "it is cut"),
    refused("cut before its checksum", By(|bench| cut(bench, |length| length - 4)), "it is cut"),
    refused("cut in its checksum", By(|bench| cut(bench, |length| length - 1)), "it is cut"),
    refused("cut in a skippable frame", By(|bench| followed(bench, b"\x50\x2a\x4d\x18\x09\0\0\0abc")), "it is cut"),
    refused("cut in another frame's magic number", By(|bench| followed(bench, b"\x28\xb5\x2f")), "it is cut"),
    refused(
        "another checksum",
        By(|bench| changed(bench, |bytes| *bytes.last_mut().unwrap() ^= 1)),
        "does not match its checksum",
    ),
    refused("a flipped bit", By(|bench| changed(bench, |bytes| flip(bytes))), DAMAGED),
    refused(
        "a flipped bit, no checksum",
        By(|bench| compressed(bench, NO_CHECKSUM).and_then(|()| rewrite(bench, |bytes| flip_literals(bytes)))),
        "damaged",
    ),
    refused("a block of the reserved type", By(|bench| changed(bench, |bytes| bytes[HEADER] |= 6)), "reserved type"),
    refused("a block that is too large", By(|bench| changed(bench, |bytes| bytes[HEADER + 2] = 0xff)), "too large"),
    refused("a reserved bit", By(|bench| changed(bench, |bytes| bytes[4] |= 8)), "reserved bit"),
    refused("a dictionary", By(with_dictionary), "needs a zstd dictionary"),
    refused(
        "a window of 256 MiB",
        By(|bench| compressed(bench, "zstd -q --long=28 <archive >images/system.img")),
        "--long=27 or less",
    ),
    refused("another size in its header", By(|bench| changed_disk(bench, |bytes| bytes[6] ^= 1)), DAMAGED),
    refused("zeros behind it", By(|bench| followed(bench, &[0; 512])), "no frame follows"),
    refused("a text behind it", By(|bench| followed(bench, b"-- signed, somebody --\n")), "no frame follows"),
    refused("a byte behind it", By(|bench| followed(bench, b"\n")), "it is cut"),
    refused("a frame of an old version", By(|bench| changed(bench, |bytes| bytes[0] = 0x27)), "no root file system"),
    refused("one behind it", By(|bench| followed(bench, b"\x27\xb5\x2f\xfd\x04\x58\x01\0\0")), "no frame follows"),
    refused(
        "skippable frames alone",
        By(|bench| by(bench, r"printf '\x50\x2a\x4d\x18\x03\0\0\0abc' >images/system.img")),
        "its content is no root file system",
    ),
    refused(
        "an empty frame alone",
        By(|bench| by(bench, ": | zstd -q >images/system.img")),
        "its content is no root file system",
    ),
    refused(
        "more than a thousand skippable frames",
        By(|bench| followed(bench, &b"\x50\x2a\x4d\x18\0\0\0\0".repeat(1001))),
        "too many skippable frames",
    ),
    refused(
        "a disk image that is cut",
        By(|bench| changed_disk(bench, |bytes| bytes.truncate(bytes.len() - 5))),
        "it is cut",
    ),
    refused("a disk image with a flipped bit", By(|bench| changed_disk(bench, |bytes| flip(bytes))), DAMAGED),
];

const NO_CHECKSUM: &str = "zstd -q --no-check <archive >images/system.img";

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
}

/// Flips bytes at the start of the first block, which belong to a header of the archive.
fn flip_literals(bytes: &mut [u8]) {
    for byte in &mut bytes[HEADER + 20..HEADER + 60] {
        *byte ^= 0x55;
    }
}

/// Compressed with a dictionary that has an id.
fn with_dictionary(bench: &Bench) -> anyhow::Result<()> {
    let train = "for n in $(seq 200); do echo \"user-$n:x:$n:$n::/home/$n:/bin/bash of $((n * n))\" >sample.$n; done; \
                 zstd -q --train sample.* --maxdict=2K -o dictionary; zstd -q -D dictionary <archive >images/system.img";
    compressed(bench, train)
}

/// Gives the image the name of the other kind, or of none.
fn renamed(bench: &Bench, to: &str) -> anyhow::Result<()> {
    let (image, sum) = (bench.image(), sum_file(&bench.image()));
    let to = bench.path("images").join(to);
    fs::rename(image, &to)?;
    fs::rename(sum, sum_file(&to)).or_else(|_| put_sum(&to))
}

const NAMES: [Row; 4] = [
    refused(
        "an archive that is named as a disk image",
        By(|bench| changed(bench, |_| ()).and_then(|()| renamed(bench, "system.img.zst"))),
        "/images/system.img (azaion-provision explain renamed-image)",
    ),
    refused(
        "a disk image that is named as an archive",
        By(|bench| changed_disk(bench, |_| ()).and_then(|()| renamed(bench, "system.img"))),
        "/images/system.img.zst (azaion-provision explain renamed-image)",
    ),
    good(
        "a raw image",
        By(|bench| mkfs(bench, &bench.image(), "", PLAIN).and_then(|()| renamed(bench, "system.img.zst"))),
    ),
    good(
        "a plain archive",
        By(|bench| make(bench, &bench.image(), PLAIN).and_then(|()| renamed(bench, "system.img.zst"))),
    ),
];

// Promise: a stream that is truncated, damaged, or beyond what the flasher's zstd decompresses is refused, unchanged.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn odd_streams() {
    try_all(&STREAMS);
}

// Promise: a compressed image with a name by which the flasher takes it for the other kind is refused, and the message
// has the correct name. An uncompressed image may have any name.
#[test]
fn names() {
    try_all(&NAMES);
}
