//! File systems with features and in states that a finished image does not have.

use std::fs;

use anyhow::Context;

use super::Make::{By, ByRoot, Bytes, Debugfs, Mkfs, Patch};
use super::{Row, cut, good, refused, try_all};
use crate::bench::Bench;
use crate::oracle::{Attached, Mounted, debugfs, is_clean, run, text};
use crate::recipe::{self, PLAIN, by_the_kernel, mkfs, patch, put, to_sparse, to_zstd};

const DIRTY: &str = "not unmounted cleanly";
const CUT: &str = "is truncated";
const DAMAGED: &str = "damaged file system";

fn plain(bench: &Bench) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), "", PLAIN)
}

const FEATURES: [Row; 35] = [
    refused("blocks of 1 KiB", Mkfs("-b 1024"), "4096 bytes"),
    refused("blocks of 2 KiB", Mkfs("-b 2048"), "4096 bytes"),
    refused("blocks of 64 KiB", Mkfs("-b 65536 -O ^has_journal"), "4096 bytes"),
    refused("inline data", Mkfs("-O inline_data"), "without the inline_data feature"),
    refused("encrypt", Mkfs("-O encrypt"), "without, or provision the rootfs"),
    refused("casefold", Mkfs("-O casefold"), "casefold"),
    refused("verity", Mkfs("-O verity"), "verity"),
    refused("bigalloc", Mkfs("-O bigalloc"), "bigalloc"),
    refused("quota", Mkfs("-O quota"), "quota"),
    refused("project, with quota", Mkfs("-O quota,project"), "quota"),
    good("project", Mkfs("-O project")),
    refused("mmp", Mkfs("-O mmp"), "mmp"),
    refused("meta_bg", Mkfs("-O meta_bg,^resize_inode"), "meta_bg"),
    refused("ea_inode", Mkfs("-O ea_inode"), "without the ea_inode feature"),
    refused("no filetype", Mkfs("-O ^filetype"), "lacks the filetype feature"),
    refused("revision 0", Mkfs("-r 0 -O none -t ext2"), "revision 0"),
    refused("dirdata", Debugfs("feature dirdata"), "dirdata"),
    refused(
        "a feature that e2fsck is too old for",
        By(|b| plain(b).and_then(|()| recipe::debugfs(&b.image(), "feature FEATURE_C13"))),
        "does not know its features FEATURE_C13",
    ),
    good("large_dir", Mkfs("-O large_dir")),
    good("orphan_file", Mkfs("-O orphan_file")),
    good("metadata_csum_seed", Mkfs("-O metadata_csum_seed")),
    refused("orphans", Debugfs("feature orphan_file orphan_present"), DIRTY),
    refused("shared blocks", Debugfs("feature shared_blocks"), "shared_blocks"),
    refused("read-only", Debugfs("feature read-only"), "read-only"),
    refused("an unknown incompatible feature", Debugfs("feature FEATURE_I30"), "does not know"),
    refused("an unknown read-only feature", Debugfs("feature FEATURE_R30"), "does not know"),
    good("an unknown compatible feature of e2fsck's", Mkfs("-O sparse_super2,^resize_inode")),
    refused("ext2", Mkfs("-t ext2"), "as ext3 has"),
    refused("ext3", Mkfs("-t ext3"), "as ext3 has"),
    refused("a journal to replay", Debugfs("feature needs_recovery"), DIRTY),
    refused("errors", Debugfs("ssv state 3"), DIRTY),
    refused("not unmounted", Debugfs("ssv state 0"), DIRTY),
    refused("a list of orphans", Debugfs("ssv last_orphan 12"), DIRTY),
    refused("a journal device", Mkfs("-O journal_dev"), "the journal of another file system"),
    refused("a journal elsewhere", ByRoot(journal_elsewhere), "e2fsck finds faults"),
];

/// Offset of the superblock, and of its fields.
const SUPER: u64 = 1024;

const DAMAGE: [Row; 31] = [
    refused("nothing", By(|bench| put(&bench.image(), "", 0o644)), "no root file system"),
    refused("cut before the magic", By(|b| plain(b).and_then(|()| cut(b, |_| 1000))), "no root file system"),
    refused("cut in the superblock", By(|b| plain(b).and_then(|()| cut(b, |_| 1500))), DAMAGED),
    refused("cut after the superblock", By(|b| plain(b).and_then(|()| cut(b, |_| 4096))), CUT),
    refused("cut in the middle", By(|b| plain(b).and_then(|()| cut(b, |all| all / 2))), CUT),
    refused("cut by a byte", By(|b| plain(b).and_then(|()| cut(b, |all| all - 1))), CUT),
    good("longer than the file system", By(|b| plain(b).and_then(|()| cut(b, |all| all + 12345)))),
    refused("zeros with the magic", Bytes(SUPER + 0x38, b"\x53\xef"), "4096 bytes"),
    refused("noise with the magic", By(noise), ""),
    refused("no groups", Patch(SUPER + 0x20, &[0; 4]), DAMAGED),
    refused("groups without inodes", Patch(SUPER + 0x28, &[0; 4]), DAMAGED),
    refused("inodes of an odd size", Patch(SUPER + 0x58, &[3, 0]), DAMAGED),
    refused("large descriptors", Patch(SUPER + 0xFE, &[0xFF, 0xFF]), DAMAGED),
    refused("more blocks than bytes", By(more_blocks_than_bytes), CUT),
    refused("a wrong byte in the superblock", Patch(SUPER + 0x2C, &[0xFF]), "the checksum of the superblock"),
    refused("a wrong byte in a descriptor", Patch(4096 + 0x10, &[0xFF]), "the checksum of group descriptor 0"),
    refused("a wrong checksum of an inode", Debugfs("sif /etc checksum 1"), "the checksum of inode"),
    refused("a wrong byte in a directory", By(of_a_directory), "of a directory, is wrong"),
    refused("a wrong byte in an extent tree", By(of_extents), "of extents, is wrong"),
    refused("a wrong byte in a hash tree", ByRoot(of_a_hash_tree), "of a directory, is wrong"),
    refused("the same in a sparse image", By(|b| of_a_directory(b).and_then(|()| to_sparse(&b.image()))), "`simg2img`"),
    refused("the same, compressed", By(|b| of_a_directory(b).and_then(|()| to_zstd(&b.image()))), "`zstd -d`"),
    refused("inodes outside", Patch(4096 + 8, &[0xFF; 4]), DAMAGED),
    refused("inodes in the superblock", Patch(4096 + 8, &[0; 4]), DAMAGED),
    refused("no extents", Debugfs("sif /etc block[0] 0"), DAMAGED),
    refused("more extents than room", Debugfs("sif /etc block[0] 0xFFFFF30A"), DAMAGED),
    refused("a tree of extents too deep", Debugfs("sif /etc block[1] 0xFFFF0004"), DAMAGED),
    refused("a leaf in place of a node", Debugfs("sif /etc block[1] 0x00050004"), DAMAGED),
    refused("an endless directory", Debugfs("sif /etc size 0x7FFFFFFFF000\nsif /etc block[4] 0xFFFF"), DAMAGED),
    refused("an unused inode", Debugfs("sif /etc links_count 0"), "is not in use"),
    refused("a directory outside the image", Debugfs("sif /etc block[5] 0xFFFFFF"), DAMAGED),
];

fn more_blocks_than_bytes(bench: &Bench) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), "-O ^metadata_csum", PLAIN)?;
    patch(&bench.image(), SUPER + 0x150, &[0xFF; 4])
}

/// Changes a byte in the first of a file's blocks that debugfs lists.
fn change_block_of(bench: &Bench, request: &str, offset: u64) -> anyhow::Result<()> {
    let said = debugfs(&bench.image(), request)?;
    let number = said.split_whitespace().find_map(|word| word.parse::<u64>().ok()).context("a block")?;
    patch(&bench.image(), number * 4096 + offset, b"?")?;
    anyhow::ensure!(is_clean(&bench.image()).is_err(), "e2fsck accepts it");
    Ok(())
}

fn of_a_directory(bench: &Bench) -> anyhow::Result<()> {
    plain(bench)?;
    change_block_of(bench, "blocks /etc", 9)
}

/// In an extent tree block of a directory with scattered blocks.
fn of_extents(bench: &Bench) -> anyhow::Result<()> {
    plain(bench)?;
    let name = |n| format!("a-name-that-takes-as-much-of-a-block-as-it-can-{n:0150}");
    let one = |n: usize| format!("write /dev/null {}\nwrite {} /filler{n}\n", name(n), text(&bench.path("ca.pem")));
    recipe::debugfs(&bench.image(), &format!("cd /etc\n{}", (0..150).map(one).collect::<String>()))?;
    let said = debugfs(&bench.image(), "stat /etc")?;
    let block = said.split_once("(ETB0):").context("a block of extents")?.1;
    let number: u64 = block.split([',', ' ', '\n']).next().context("a number")?.parse()?;
    patch(&bench.image(), number * 4096 + 20, b"?")
}

/// In the root of an index created by the kernel.
fn of_a_hash_tree(bench: &Bench) -> anyhow::Result<()> {
    by_the_kernel(bench, &bench.image(), "")?;
    change_block_of(bench, "blocks /etc", 33)
}

/// The magic number among random bytes.
fn noise(bench: &Bench) -> anyhow::Result<()> {
    let noise: Vec<u8> = (1..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    put(&bench.image(), noise, 0o644)?;
    patch(&bench.image(), SUPER + 0x38, b"\x53\xef")
}

/// A file system with an external journal.
fn journal_elsewhere(bench: &Bench) -> anyhow::Result<()> {
    let journal = bench.path("journal");
    run("mke2fs", &["-q", "-F", "-b", "4096", "-O", "journal_dev", text(&journal), "16M"])?;
    let journal = Attached::new(&journal)?;
    mkfs(bench, &bench.image(), &format!("-J device={}", text(journal.device())), PLAIN)
}

// Promise: features with which an in-place write could go wrong, and states of file systems in use, are refused,
// unchanged.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn features() {
    try_all(&FEATURES);
}

// Promise: truncated and inconsistent file systems are refused, unchanged.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn damage() {
    try_all(&DAMAGE);
}

/// An image that was copied while it was mounted and written to.
fn copied_while_mounted(bench: &Bench) -> anyhow::Result<()> {
    let other = bench.path("mounted.img");
    by_the_kernel(bench, &other, "")?;
    let mounted = Mounted::new(&other, "rw")?;
    put(&mounted.inside("etc/new"), "new", 0o644)?;
    run("sync", &["-f", text(mounted.path())])?;
    fs::copy(&other, bench.image())?;
    Ok(())
}

// Promise: an image that was copied while it was mounted has a journal to replay, and is refused.
#[test]
fn a_copy_of_a_mounted_image() {
    try_all(&[refused("copied while mounted", ByRoot(copied_while_mounted), DIRTY)]);
}
