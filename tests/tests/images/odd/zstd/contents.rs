//! Unusual content of compressed images.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::Make::By;
use super::super::{Row, malformed, refused, try_all};
use super::{by, compressed};
use crate::archive::{pack, sum_file};
use crate::bench::Bench;
use crate::recipe::{self, Kind, PLAIN, Tree, mkfs, put, small_file, to_sparse};

const CONF: &str = "etc/azaion/device.conf";
const TO_IMAGE: &str = "zstd -q <archive >images/system.img";

/// A compressed archive of another tree.
fn of(bench: &Bench, change: Tree) -> anyhow::Result<()> {
    Kind::TarZst.make(bench, &bench.image(), change)
}

/// A minimal compressed archive packed with other options.
fn packed(bench: &Bench, options: &[&str], compress: &str) -> anyhow::Result<()> {
    recipe::tree(bench, PLAIN)?;
    pack(bench, &bench.path("archive"), &[&["-b1"], options].concat())?;
    by(bench, compress)
}

/// A file with these bytes at an offset and zeros elsewhere, compressed as an image of this name.
fn content(bench: &Bench, offset: u64, bytes: &[u8], name: &str) -> anyhow::Result<()> {
    let file = bench.path("content");
    put(&file, "", 0o644)?;
    recipe::resize(&file, 1 << 20)?;
    recipe::patch(&file, offset, bytes)?;
    by(bench, &format!("zstd -q content -o images/{name}"))
}

/// A compressed disk image, made with further options of mke2fs, and changed before it is compressed.
fn disk(bench: &Bench, tree: Tree, change: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let image = bench.path("disk");
    mkfs(bench, &image, "", tree)?;
    change(&image)?;
    by(bench, "zstd -q disk -o images/system.img.zst")
}

fn conf(tree: &Path, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    fs::create_dir_all(tree.join("etc/azaion"))?;
    make(&tree.join(CONF))
}

fn two_names(tree: &Path) -> anyhow::Result<()> {
    conf(tree, |at| put(at, "# text\n", 0o600))?;
    Ok(fs::hard_link(tree.join(CONF), tree.join("etc/zz"))?)
}

/// A compressed sparse image.
fn sparse(bench: &Bench) -> anyhow::Result<()> {
    let image = bench.path("disk");
    mkfs(bench, &image, "", PLAIN)?;
    to_sparse(&image)?;
    by(bench, "zstd -q disk -o images/system.img.zst")
}

fn wrong_sum(bench: &Bench) -> anyhow::Result<()> {
    put(&sum_file(&bench.image()), format!("{:040}\n", 0), 0o644)
}

const CONTENTS: [Row; 32] = [
    refused(
        "an archive that is cut",
        By(|bench| compressed(bench, "head -c 300000 archive | zstd -q >images/system.img")),
        "damaged tar archive (it is cut short)",
    ),
    refused(
        "cut in its last block of content",
        By(|bench| packed(bench, &["."], "head -c -1025 archive | zstd -q >images/system.img")),
        "it is cut",
    ),
    refused(
        "a damaged header",
        By(|bench| {
            packed(
                bench,
                &["--format=gnu", "."],
                "printf x | dd of=archive bs=1 seek=600 conv=notrunc status=none; zstd -q <archive >images/system.img",
            )
        }),
        "checksum",
    ),
    refused(
        "something behind the end marker",
        By(|bench| compressed(bench, "echo x >>archive; zstd -q <archive >images/system.img")),
        "something follows its end",
    ),
    refused(
        "a frame behind the end marker",
        By(|bench| compressed(bench, "{ zstd -q <archive; echo x | zstd -q; } >images/system.img")),
        "something follows its end",
    ),
    refused(
        "an archive behind the end marker",
        By(|bench| compressed(bench, "{ zstd -q <archive; tar -cf - archive | zstd -q; } >images/system.img")),
        "its end",
    ),
    refused(
        "zeros without an end",
        By(|bench| compressed(bench, "{ cat archive; head -c 65M /dev/zero; } | zstd -q >images/system.img")),
        "too much",
    ),
    refused("of version 7", By(|bench| packed(bench, &["--format=v7", "."], TO_IMAGE)), "no root file system"),
    refused(
        "a global header",
        By(|bench| packed(bench, &["--format=pax", "--pax-option=uid=5", "."], TO_IMAGE)),
        "global header",
    ),
    refused(
        "a name with ..",
        By(|bench| packed(bench, &["-P", "--transform=s,^boot,../boot,", "boot", "etc"], TO_IMAGE)),
        "`..`",
    ),
    refused("no /etc", By(|bench| packed(bench, &["usr"], TO_IMAGE)), "no /etc"),
    refused("only /boot", By(|bench| packed(bench, &["./boot"], TO_IMAGE)), "holds only /boot"),
    refused(
        "azaion is a symlink",
        By(|bench| of(bench, |tree| Ok(symlink("/boot", tree.join("etc/azaion"))?))),
        "a symlink",
    ),
    refused("a symlink", By(|bench| of(bench, |tree| conf(tree, |at| Ok(symlink("/etc/passwd", at)?)))), "a symlink"),
    refused("two names", By(|bench| of(bench, two_names)), "a hard link"),
    refused(
        "a directory",
        By(|bench| of(bench, |tree| conf(tree, |at| Ok(fs::create_dir(at)?)))),
        "not a regular file",
    ),
    malformed("too large", By(|bench| of(bench, |tree| put(&tree.join(CONF), [b'#'; 4097], 0o600)))),
    malformed("no text", By(|bench| of(bench, |tree| put(&tree.join(CONF), b"\x7fELF\0\0", 0o600)))),
    Row {
        name: "nonsense",
        make: By(|bench| of(bench, |tree| put(&tree.join(CONF), "hush hush\n", 0o600))),
        code: 65,
        says: "device.conf:1",
    },
    refused("LUKS", By(|bench| content(bench, 0, b"LUKS\xba\xbe\0\x02", "system.img.zst")), "encrypted"),
    refused("an Android sparse image", By(sparse), "Android sparse"),
    refused("gzip", By(|bench| content(bench, 0, b"\x1f\x8b\x08", "system.img")), "gzip"),
    refused("xz", By(|bench| content(bench, 0, b"\xfd7zXZ\0", "system.img")), "xz"),
    refused("zstd", By(|bench| compressed(bench, "zstd -q <archive | zstd -q >images/system.img")), "zstd twice"),
    refused("a whole disk", By(|bench| content(bench, 510, b"\x55\xaaEFI PART", "system.img.zst")), "whole disk"),
    refused("text", By(|bench| content(bench, 0, b"#!/bin/sh\n", "system.img")), "no root file system"),
    refused(
        "a damaged disk image",
        By(|bench| disk(bench, PLAIN, |image| recipe::patch(image, 1024 + 0x20, b"\xff\xff"))),
        "superblock",
    ),
    refused(
        "a disk image with faults",
        By(|bench| disk(bench, PLAIN, |image| recipe::debugfs(image, "sif /usr/bin/sudo links_count 5"))),
        "e2fsck finds faults",
    ),
    refused(
        "a disk image that is shorter than its file system",
        By(|bench| disk(bench, PLAIN, |image| recipe::resize(image, 8 << 20))),
        "is truncated",
    ),
    refused(
        "a disk image with a symlink",
        By(|bench| disk(bench, |tree| conf(tree, |at| Ok(symlink("/etc/passwd", at)?)), |_| Ok(()))),
        "by hand",
    ),
    refused("of another sum", By(|bench| of(bench, PLAIN).and_then(|()| wrong_sum(bench))), "does not match"),
    refused(
        "of another sum, with a file packed",
        By(|bench| of(bench, small_file).and_then(|()| wrong_sum(bench))),
        "does not match",
    ),
];

// Promise: a compressed image of another format, or with unusual content, is refused, unchanged, as it is when not
// compressed.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn odd_contents() {
    try_all(&CONTENTS);
}
