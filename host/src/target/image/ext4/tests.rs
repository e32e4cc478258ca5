use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::target::error::Result;
use crate::target::image::fixture::{mke2fs, put};
use crate::target::image::medium::Raw;

const CONF: &[u8] = b"AZAION_DEVICE_EMAIL=d@azaion.com\n";
const DIRECTORIES: [&str; 2] = ["etc", "azaion"];
const NAME: &str = "device.conf";

/// Options of mke2fs for tests that change structures.
const WITHOUT_CHECKSUMS: &[&str] = &["-O", "^metadata_csum"];

/// Makes a tree with a `device.conf`.
fn usual(root: &Path) {
    fs::create_dir_all(root.join("etc/azaion")).unwrap();
    put(&root.join("etc/azaion/device.conf"), CONF);
    fs::set_permissions(root.join("etc/azaion/device.conf"), fs::Permissions::from_mode(0o640)).unwrap();
}

/// Returns an image of a tree, made by mke2fs with these options.
fn image(options: &[&str], size: &str, tree: impl FnOnce(&Path)) -> File {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    tree(&root);
    mke2fs(dir.path(), Path::new("image"), size, options);
    File::options().read(true).write(true).open(dir.path().join("image")).unwrap()
}

/// Finds a file in an image, or returns the error message.
fn find(file: &File, name: &str) -> Result<Found, String> {
    let medium = Raw::new(file).unwrap();
    FileSystem::open(&medium).and_then(|system| system.find(DIRECTORIES, name)).map_err(|problem| problem.to_string())
}

/// Returns the content of the `device.conf` in an image.
fn content(file: &File) -> Vec<u8> {
    let OneBlockFile { inode, block, .. } = find(file, NAME).unwrap().file.unwrap();
    let mut bytes = vec![0; usize::try_from(inode.size).unwrap()];
    file.read_exact_at(&mut bytes, block.unwrap() * BLOCK).unwrap();
    bytes
}

// Promise: the file is found with its mode and owner in every layout of inodes and descriptors.
#[test]
fn found_in_each_layout() {
    for options in [&[][..], &["-I", "128"], &["-I", "1024"], &["-O", "^64bit"], &["-O", "^metadata_csum,^flex_bg"]] {
        let mut owner = (0, 0);
        let file = image(options, "8M", |root| {
            usual(root);
            let metadata = root.metadata().unwrap();
            owner = (metadata.uid(), metadata.gid());
        });
        let Found { directory: Some(directory), file: Some(conf) } = find(&file, NAME).unwrap() else { panic!() };
        assert_eq!((directory.uid, directory.gid), owner, "{options:?}");
        let OneBlockFile { inode, block: Some(_), .. } = conf else { panic!("{options:?}") };
        assert_eq!((inode.permissions(), inode.uid, inode.gid, inode.links), (0o640, owner.0, owner.1, 1));
        assert_eq!(content(&file), CONF, "{options:?}");
        assert!(find(&file, "other").unwrap().file.is_none(), "{options:?}");
    }
}

// Promise: a file is found also in a late group, whose descriptor is not among those that are read with the superblock.
#[test]
fn found_in_a_late_group() {
    for (options, size, files) in [
        (&["-g", "256", "-I", "512", "-N", "640", "-O", "64bit,^resize_inode"][..], "80M", 520),
        (&["-g", "256", "-I", "512", "-N", "1152", "-O", "^64bit,^resize_inode"], "144M", 1032),
    ] {
        let file = image(options, size, |root| {
            fs::create_dir_all(root.join("etc/azaion")).unwrap();
            (0..files).for_each(|n| put(&root.join(format!("etc/azaion/{n:0200}")), b""));
        });
        let medium = Raw::new(&file).unwrap();
        let system = FileSystem::open(&medium).unwrap();
        let last = (0..files).map(|n| find(&file, &format!("{n:0200}")).unwrap().file.unwrap().inode.number);
        let offset =
            system.superblock.descriptor_offset((last.max().unwrap() - 1) / system.superblock.inodes_per_group);
        assert!(offset.unwrap() >= 2 * BLOCK, "{options:?}");
    }
}

// Promise: a missing file or directory is reported as missing; anything else than directories and a regular file is
// refused.
#[test]
fn unusual_trees() {
    type Tree = fn(&Path);
    let found: [(&str, Tree, [bool; 3]); 4] = [
        ("usual", usual, [true, true, true]),
        ("no directory", |root| fs::create_dir(root.join("etc")).unwrap(), [false, false, false]),
        ("no file", |root| fs::create_dir_all(root.join("etc/azaion")).unwrap(), [true, false, false]),
        (
            "an empty file",
            |root| {
                usual(root);
                put(&root.join("etc/azaion/device.conf"), b"");
            },
            [true, true, false],
        ),
    ];
    for (name, tree, [has_directory, has_file, has_block]) in found {
        let Found { directory, file } = find(&image(&[], "8M", tree), NAME).unwrap();
        assert_eq!((directory.is_some(), file.is_some()), (has_directory, has_file), "{name}");
        assert_eq!(file.is_some_and(|file| file.block.is_some()), has_block, "{name}");
    }
    let refused: [(&str, Tree); 8] = [
        ("has no /etc", |_| ()),
        ("only /boot", |root| fs::create_dir(root.join("boot")).unwrap()),
        ("symlink in place", |root| symlink("usr", root.join("etc")).unwrap()),
        ("not a directory", |root| put(&root.join("etc"), b"")),
        ("not a directory", |root| {
            fs::create_dir(root.join("etc")).unwrap();
            put(&root.join("etc/azaion"), b"");
        }),
        ("symlink at", |root| {
            fs::create_dir_all(root.join("etc/azaion")).unwrap();
            symlink("other", root.join("etc/azaion/device.conf")).unwrap();
        }),
        ("not a regular file", |root| fs::create_dir_all(root.join("etc/azaion/device.conf")).unwrap()),
        ("hard link", |root| {
            usual(root);
            fs::hard_link(root.join("etc/azaion/device.conf"), root.join("etc/other")).unwrap();
        }),
    ];
    for (expected, tree) in refused {
        let message = find(&image(&[], "8M", tree), NAME).unwrap_err();
        assert!(message.contains(expected), "{expected}: {message}");
    }
    // A file that is too large for a slot has no single block, but all its blocks are known.
    let large = image(&[], "8M", |root| {
        usual(root);
        put(&root.join("etc/azaion/device.conf"), &[b'#'; 9000]);
    });
    let OneBlockFile { block, first, all, .. } = find(&large, NAME).unwrap().file.unwrap();
    assert_eq!((block, first, all.len()), (None, all.first().copied(), 3));
    let full = image(&[], "8M", |root| {
        usual(root);
        put(&root.join("etc/azaion/device.conf"), &[b'#'; 4096]);
    });
    assert_eq!(content(&full), [b'#'; 4096]);
}

/// Writes another root node of the extent tree into an inode.
fn set_root(file: &File, number: u32, root: &[u8]) {
    let medium = Raw::new(file).unwrap();
    let system = FileSystem::open(&medium).unwrap();
    let sb = &system.superblock;
    let (group, index) = ((number - 1) / sb.inodes_per_group, (number - 1) % sb.inodes_per_group);
    let offset = system.inode_table(group).unwrap() * BLOCK + u64::from(index) * u64::from(sb.inode_size);
    file.write_all_at(root, offset + 0x28).unwrap();
}

/// Returns a node of an extent tree. Each entry consists of the number of its first block in the file, and the
/// remaining bytes.
fn node(depth: u16, entries: &[(u32, [u8; 8])]) -> Vec<u8> {
    let count = u16::try_from(entries.len()).unwrap();
    let head = [0xF30A, count, 340, depth, 0, 0].map(u16::to_le_bytes);
    let mut node = head.as_flattened().to_vec();
    node.extend(entries.iter().flat_map(|(first, rest)| [&first.to_le_bytes()[..], rest].concat()));
    node
}

/// Returns the remaining bytes of an entry of a leaf.
fn run(length: u16, start: u32) -> [u8; 8] {
    (u64::from(start) << 32 | u64::from(length)).to_le_bytes()
}

/// Returns the remaining bytes of an entry that refers to a child node.
fn child(block: u32) -> [u8; 8] {
    u64::from(block).to_le_bytes()
}

// Promise: an extent tree is read in order, up to the size of its file, and never endlessly or outside of the file
// system.
#[test]
fn extents_are_followed() {
    let file = image(WITHOUT_CHECKSUMS, "8M", usual);
    let found = find(&file, NAME).unwrap();
    let (directory, conf) = (found.directory.unwrap(), found.file.unwrap());
    let extents_of = |inode: &Inode| {
        let medium = Raw::new(&file).unwrap();
        FileSystem::open(&medium).unwrap().extents(inode).unwrap().first().map(|extent| extent.start).unwrap()
    };
    let start = u32::try_from(extents_of(&directory)).unwrap();
    let block = u32::try_from(conf.block.unwrap()).unwrap();
    // Unused blocks.
    let [first, second, third] = [2040, 2041, 2042];
    let put = |block: u32, bytes: &[u8]| file.write_all_at(bytes, u64::from(block) * BLOCK).unwrap();
    // In the directory: the leaf with its block follows an empty leaf.
    put(first, &node(0, &[]));
    put(second, &node(0, &[(0, run(1, start))]));
    set_root(&file, directory.number, &node(1, &[(0, child(first)), (0, child(second))]));
    assert_eq!(content(&file), CONF);
    // The extents of several leaves are in order.
    let medium = Raw::new(&file).unwrap();
    put(first, &node(0, &[(0, run(1, 5)), (1, run(1, 6))]));
    put(second, &node(0, &[(2, run(1, 7))]));
    let inode = FileSystem::open(&medium).unwrap().inode(directory.number).unwrap();
    let starts = FileSystem::open(&medium).unwrap().extents(&inode).unwrap();
    assert!(starts.iter().map(|extent| extent.start).eq([5, 6, 7]));
    // Blocks beyond the end of a directory contain no names.
    put(first, &node(0, &[(0, run(1, start)), (1, run(1, third))]));
    put(third, &[&[conf.inode.number.to_le_bytes()[0], 0, 0, 0, 0, 16, 5, 1], &b"other"[..]].concat());
    set_root(&file, directory.number, &node(1, &[(0, child(first))]));
    assert_eq!(content(&file), CONF);
    assert!(find(&file, "other").unwrap().file.is_none());
    // The largest permitted directory, and a larger one.
    set_root(&file, directory.number, &node(0, &[(0, run(10_000, start))]));
    assert_eq!(content(&file), CONF);
    set_root(&file, directory.number, &node(0, &[(0, run(10_001, start))]));
    assert!(find(&file, NAME).unwrap_err().contains("a directory is too large"));
    // All entries of a node refer to the same child: 1 + 33 + 33 * 302 are 10,000.
    for (count, is_valid) in [(302, true), (303, false)] {
        put(first, &node(2, &vec![(0, child(second)); 33]));
        put(second, &node(1, &vec![(0, child(third)); count]));
        put(third, &node(0, &[]));
        set_root(&file, directory.number, &node(3, &[(0, child(first))]));
        let message = find(&file, NAME).err();
        assert!(
            message.as_ref().map_or(is_valid, |text| !is_valid && text.contains("too many extents")),
            "{message:?}"
        );
    }
    for outside in [0, 2048, u32::MAX] {
        set_root(&file, directory.number, &node(1, &[(0, child(outside))]));
        assert!(find(&file, NAME).unwrap_err().contains("a block number is outside"), "{outside}");
    }
    // In the file.
    set_root(&file, directory.number, &node(0, &[(0, run(1, start))]));
    for entry in [(0, run(1, 0)), (0, run(1, 2048)), (1, run(2, 2047))] {
        set_root(&file, conf.inode.number, &node(0, &[entry]));
        assert!(find(&file, NAME).unwrap_err().contains("a block number is outside"), "{entry:?}");
    }
    let at = u64::from(block);
    for (entry, starts_at, blocks) in [
        ((1, run(1, block)), None, vec![at]),
        ((0, run(2, block)), Some(at), vec![at, at + 1]),
        ((0, run(32_769, block)), None, vec![at]),
    ] {
        set_root(&file, conf.inode.number, &node(0, &[entry]));
        let OneBlockFile { block, first, all, .. } = find(&file, NAME).unwrap().file.unwrap();
        assert_eq!((block, first, all), (None, starts_at, blocks), "{entry:?}");
    }
    set_root(&file, conf.inode.number, &node(0, &[(0, run(1, block))]));
    assert_eq!(content(&file), CONF);
}

// Promise: inode numbers out of range, and inode tables outside of the file system, are refused.
#[test]
fn inodes_outside() {
    let file = image(&[], "8M", usual);
    let medium = Raw::new(&file).unwrap();
    let system = FileSystem::open(&medium).unwrap();
    let last = system.superblock.inodes;
    for (number, expected) in [(0, "out of range"), (last, "not in use"), (last + 1, "out of range")] {
        let message = system.inode(number).unwrap_err().to_string();
        assert!(message.contains(expected), "{number}: {message}");
    }
    // The high half of the block number of a table is read, too.
    let file = image(&["-O", "64bit,^metadata_csum"], "8M", usual);
    file.write_all_at(&[1], BLOCK + 0x28).unwrap();
    assert!(find(&file, NAME).unwrap_err().contains("a block number is outside"));
}

mod checksums;
