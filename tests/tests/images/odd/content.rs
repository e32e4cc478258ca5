//! What may be at the path of the device's file, or on the way to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::Make::{By, Bytes, Debugfs, Patch, Tree};
use super::{Row, good, malformed, refused, try_all};
use crate::bench::{Bench, EMAIL, OTHER, SERIAL, Snapshot, User, for_each};
use crate::oracle;
use crate::recipe::{self, Kind, PLAIN, mkfs, put};

const CONF: &str = "etc/azaion/device.conf";
const BY_HAND: &str = "by hand";

/// Creates an entry at the path of the device's file.
fn place(tree: &Path, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    fs::create_dir_all(tree.join("etc/azaion"))?;
    make(&tree.join(CONF))
}

fn file(tree: &Path, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    put(&tree.join(CONF), content, 0o600)
}

const FILE: [Row; 18] = [
    refused("a symlink", Tree(|tree| place(tree, |conf| Ok(symlink("/etc/passwd", conf)?))), BY_HAND),
    refused("a directory", Tree(|tree| place(tree, |conf| Ok(fs::create_dir(conf)?))), BY_HAND),
    refused("a FIFO", Tree(|tree| place(tree, |conf| Ok(mkfifo(conf, Mode::S_IRUSR)?))), BY_HAND),
    refused("a hard link", Debugfs("ln /etc/passwd /etc/twice\nsif /etc/azaion/device.conf links_count 2"), BY_HAND),
    malformed("two blocks", Tree(|tree| file(tree, [b'#'; 4097]))),
    malformed("many blocks", Tree(|tree| file(tree, vec![b'#'; 5 << 20]))),
    malformed("a hole", Tree(|tree| place(tree, |conf| Ok(fs::File::create(conf)?.set_len(4096)?)))),
    malformed("a hole after it", Tree(|tree| file(tree, "# text\n").and_then(|()| lengthen(&tree.join(CONF))))),
    malformed(
        "blocks without content",
        Debugfs("punch /etc/azaion/device.conf 0 0\nfallocate /etc/azaion/device.conf 0 0"),
    ),
    malformed("blocks beyond its end", Debugfs("fallocate /etc/azaion/device.conf 1 1")),
    malformed("no text", Tree(|tree| file(tree, b"\x7fELF\x02\x01\x01\0"))),
    malformed("zeros", Tree(|tree| file(tree, [[0; 4095].as_slice(), b"x"].concat()))),
    Row { name: "comments", make: Debugfs(""), code: 65, says: "device.conf" },
    Row { name: "nonsense", make: Tree(|tree| file(tree, "hush hush\n")), code: 65, says: "device.conf:1" },
    good("nothing", Tree(|tree| file(tree, ""))),
    good("a newline", Tree(|tree| file(tree, "\n"))),
    good("blanks", Tree(|tree| file(tree, "  \n\n"))),
    good("a block of newlines", Tree(|tree| file(tree, [b'\n'; 4096]))),
];

fn lengthen(file: &Path) -> anyhow::Result<()> {
    Ok(fs::OpenOptions::new().write(true).open(file)?.set_len(8192)?)
}

/// Replaces a directory of the tree.
fn instead(tree: &Path, name: &str, make: impl FnOnce(&Path) -> std::io::Result<()>) -> anyhow::Result<()> {
    let folder = tree.join(name);
    if folder.exists() {
        fs::rename(&folder, tree.join("elsewhere"))?;
    }
    Ok(make(&folder)?)
}

const WAY: [Row; 9] = [
    refused("/etc is a symlink", Tree(|tree| instead(tree, "etc", |etc| symlink("elsewhere", etc))), "a symlink"),
    refused("azaion is a symlink", Tree(|tree| instead(tree, "etc/azaion", |to| symlink("/boot", to))), "a symlink"),
    refused("azaion is a file", Tree(|tree| put(&tree.join("etc/azaion"), "", 0o644)), "not a directory"),
    refused("no /etc", Tree(|tree| without(tree, &["etc", "boot"])), "no /etc"),
    refused("only /boot", Tree(|tree| without(tree, &["etc", "usr"])), "holds only /boot"),
    refused("no room for a block", By(|bench| filled(bench, 0)), "is full: it has no free block"),
    refused("no room for an inode", By(no_inodes), "is full: it has no free inode"),
    good("room for two blocks", By(|bench| filled(bench, 2))),
    good("names in all blocks of /etc", By(crowded)),
];

fn without(tree: &Path, folders: &[&str]) -> anyhow::Result<()> {
    folders.iter().try_for_each(|name| Ok(fs::remove_dir_all(tree.join(name))?))
}

/// Returns a count of free items from the superblock.
fn free(bench: &Bench, what: &str) -> anyhow::Result<u64> {
    let stats = oracle::debugfs(&bench.image(), "stats -h")?;
    let line = stats.lines().find_map(|line| line.strip_prefix("Free ")?.strip_prefix(what));
    Ok(line.context("the free count")?.trim().parse()?)
}

/// An image whose free blocks, except for `keep`, are used by a file.
fn filled(bench: &Bench, keep: u64) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), "", |tree| put(&tree.join("boot/filler"), "", 0o644))?;
    let last = free(bench, "blocks:")? - keep - 1;
    recipe::debugfs(&bench.image(), &format!("fallocate /boot/filler 0 {last}\n"))?;
    anyhow::ensure!(free(bench, "blocks:")? == keep, "the remaining blocks are not free");
    oracle::is_clean(&bench.image())
}

/// An image without a free inode.
fn no_inodes(bench: &Bench) -> anyhow::Result<()> {
    let names = |tree: &Path| (0..42).try_for_each(|n| put(&tree.join(format!("boot/{n}")), "", 0o644));
    mkfs(bench, &bench.image(), "-N 64", names)?;
    anyhow::ensure!(free(bench, "inodes:")? == 0, "there are free inodes");
    Ok(())
}

/// An `/etc` whose single block has no space for another name.
fn crowded(bench: &Bench) -> anyhow::Result<()> {
    let change = |tree: &Path| {
        let name = |n| format!("a-name-of-this-length-takes-as-much-of-the-block-as-it-takes-{n:04}");
        (0..50).try_for_each(|n| put(&tree.join("etc").join(name(n)), "", 0o644))
    };
    mkfs(bench, &bench.image(), "", change)
}

const MAGIC: [Row; 25] = [
    refused("zeros", Bytes(0, b"\0"), "no root file system"),
    refused("text", Bytes(0, b"#!/bin/sh\n"), "no root file system"),
    refused("a program", Bytes(0, b"\x7fELF"), "no root file system"),
    refused("squashfs", Bytes(0, b"hsqs"), "another kind than ext4 (squashfs)"),
    refused("squashfs of the other byte order", Bytes(0, b"sqsh"), "another kind than ext4 (squashfs)"),
    refused("xfs", Bytes(0, b"XFSB"), "another kind than ext4 (xfs)"),
    refused("UBI", Bytes(0, b"UBI#\x01"), "another kind than ext4 (UBI)"),
    refused("ubifs", Bytes(0, b"\x31\x18\x10\x06"), "another kind than ext4 (ubifs)"),
    refused("f2fs", Bytes(1024, b"\x10\x20\xf5\xf2"), "another kind than ext4 (f2fs)"),
    refused("erofs", Bytes(1024, b"\xe2\xe1\xf5\xe0"), "another kind than ext4 (erofs)"),
    refused("btrfs", Bytes(0x1_0040, b"_BHRfS_M"), "another kind than ext4 (btrfs)"),
    refused("qcow2", Bytes(0, b"QFI\xfb\0\0\0\x03"), "virtual disk (qcow2)"),
    refused("vmdk", Bytes(0, b"KDMV"), "virtual disk (vmdk)"),
    refused("cpio", Bytes(0, b"070701"), "is a cpio archive"),
    refused("zip", Bytes(0, b"PK\x03\x04"), "is a zip archive"),
    refused("GPT without MBR", Bytes(512, b"EFI PART"), "whole disk"),
    refused("LUKS", Bytes(0, b"LUKS\xba\xbe\0\x02"), "before the image is generated"),
    good("a boot sector before the file system", Patch(510, b"\x55\xaa")),
    refused("gzip", Bytes(0, b"\x1f\x8b\x08"), "one device at a time"),
    refused("zstd", Bytes(0, b"\x28\xb5\x2f\xfd"), "damaged zstd stream"),
    refused("xz", Bytes(0, b"\xfd7zXZ\0"), "unpack it"),
    refused("bzip2", Bytes(0, b"BZh9"), "unpack it"),
    refused("MBR", Bytes(510, b"\x55\xaa"), "whole disk"),
    refused("GPT", Bytes(510, b"\x55\xaaEFI PART"), "whole disk"),
    refused("a sparse image's magic alone", Bytes(0, b"\x3a\xff\x26\xed"), "another version"),
];

// Promise: whatever is at the path of the file is refused, unchanged, or corrected.
#[test]
fn in_the_place_of_the_file() {
    try_all(&FILE);
}

// Promise: no symlink on the path to the file is followed, and no missing directory above it is created.
#[test]
fn on_the_way() {
    try_all(&WAY);
}

// Promise: the kind of image is detected by content, and the message says what to do instead.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn other_kinds_of_files() {
    try_all(&MAGIC);
}

// Promise: a file that is not a device's is replaced on request, whatever its size.
#[test]
fn replaced_when_asked_to() -> anyhow::Result<()> {
    for size in [10, 4000, 4050, 4090, 4095, 4096] {
        let bench = Bench::new()?;
        mkfs(&bench, &bench.image(), "", PLAIN)?;
        let text = bench.path("text");
        put(&text, vec![b'#'; size], 0o644)?;
        let request = format!("mkdir /etc/azaion\ncd /etc/azaion\nwrite {} device.conf\n", text.display());
        recipe::debugfs(&bench.image(), &request)?;
        bench.device(SERIAL, &[])?.ended_with(65)?;
        bench.device(SERIAL, &["--replace"])?.ended_with(0).map_err(|e| e.context(format!("{size} bytes")))?;
        bench.holds(SERIAL, EMAIL)?;
    }
    Ok(())
}

/// An access control list that lets user 1000 read, as a file of `bench`.
fn access_list(bench: &Bench) -> anyhow::Result<String> {
    let entries = [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)];
    let entry =
        |(tag, mode, id): (u16, u16, u32)| [&tag.to_le_bytes()[..], &mode.to_le_bytes(), &id.to_le_bytes()].concat();
    let list = bench.path("list");
    put(&list, [&2_u32.to_le_bytes()[..], &entries.map(entry).concat()].concat(), 0o600)?;
    Ok(list.display().to_string())
}

/// Further debugfs requests for the file or its directory, besides the list, and the name of the entry with the list.
const WITH_LISTS: [(&str, &str, &str); 5] = [
    ("in the inode", CONF, ""),
    ("in a block", CONF, "ea_set etc/azaion/device.conf user.large LARGE\n"),
    ("of the directory", "etc/azaion", ""),
    ("of the directory, in a block", "etc/azaion", "ea_set etc/azaion user.large LARGE\n"),
    ("of a file that is immutable", CONF, "sif etc/azaion/device.conf flags 0x80030\n"),
];

// Promise: an access control list that lets others read or replace the file is removed with the first device, and so
// are flags that protect the file from changes.
#[test]
fn access_lists_are_removed() {
    for kind in [Kind::Ext4, Kind::Sparse] {
        for_each(
            &WITH_LISTS,
            |row| format!("{} {}", kind.name(), row.0),
            |(_, path, more)| {
                let bench = Bench::new()?;
                mkfs(&bench, &bench.image(), "", recipe::small_file)?;
                let list = access_list(&bench)?;
                let requests = format!("ea_set -f {list} {path} system.posix_acl_access\n{more}");
                recipe::debugfs(&bench.image(), &requests.replace("LARGE", &"v".repeat(800)))?;
                anyhow::ensure!(
                    oracle::debugfs(&bench.image(), &format!("ea_list {path}"))?.contains("posix_acl_access")
                );
                oracle::is_clean(&bench.image())?;
                if kind == Kind::Sparse {
                    recipe::to_sparse(&bench.image())?;
                }
                for serial in [SERIAL, OTHER] {
                    bench.device(serial, &["--replace"])?.ended_with(0)?;
                    let raw = oracle::raw_copy(&bench.image())?;
                    let attributes = oracle::debugfs(raw.path(), &format!("ea_list {path}"))?;
                    anyhow::ensure!(!attributes.contains("acl"), "{attributes}");
                    anyhow::ensure!(attributes.contains("user.large") == more.contains("ea_set"), "{attributes}");
                    let stat = oracle::debugfs(raw.path(), &format!("stat {CONF}"))?;
                    anyhow::ensure!(stat.contains("Flags: 0x80000\n"), "{stat}");
                }
                bench.holds(OTHER, "azaion-jetson-0043@azaion.com")
            },
        );
    }
}

// Promise: a file that debugfs would replace without removing its attributes is refused, with a message that says what
// helps.
#[test]
fn replaced_files_with_attributes() -> anyhow::Result<()> {
    let trees: [recipe::Tree; 2] = [|tree| file(tree, ""), |tree| file(tree, [b'#'; 5000])];
    for tree in trees {
        let bench = Bench::with(User::Caller)?;
        mkfs(&bench, &bench.image(), "", tree)?;
        recipe::debugfs(&bench.image(), &format!("ea_set {CONF} user.large {}\n", "v".repeat(800)))?;
        let before = Snapshot::of(&bench.image())?;
        let run = bench.device(SERIAL, &["--replace"])?.ended_with(66)?;
        anyhow::ensure!(run.stderr.contains("mount the image, remove the file"), "{}", run.stderr);
        before.is_still(&bench.image())?;
        bench.has_no_leftovers()?;
    }
    Ok(())
}
