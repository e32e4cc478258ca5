use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::target::error::Result;
use crate::target::image::fixture::{mke2fs, put};
use crate::target::image::medium::Raw;

const CONF: &[u8] = b"AZAION_DEVICE_EMAIL=d@azaion.com\n";
const FOLDERS: [&str; 2] = ["etc", "azaion"];
const NAME: &str = "device.conf";

/// For changes of structures.
const WITHOUT_CHECKSUMS: &[&str] = &["-O", "^metadata_csum"];

/// A tree with our file.
fn usual(root: &Path) {
    fs::create_dir_all(root.join("etc/azaion")).unwrap();
    put(&root.join("etc/azaion/device.conf"), CONF);
    fs::set_permissions(root.join("etc/azaion/device.conf"), fs::Permissions::from_mode(0o640)).unwrap();
}

/// An image of a tree, as mke2fs makes it with these options.
fn image(options: &[&str], size: &str, tree: impl FnOnce(&Path)) -> File {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    tree(&root);
    mke2fs(dir.path(), Path::new("image"), size, options);
    File::options().read(true).write(true).open(dir.path().join("image")).unwrap()
}

/// What is found in it, or what is said of it.
fn find(file: &File, name: &str) -> Result<Found, String> {
    let medium = Raw::new(file).unwrap();
    FileSystem::open(&medium).and_then(|system| system.find(FOLDERS, name)).map_err(|problem| problem.to_string())
}

/// The bytes that are found.
fn content(file: &File) -> Vec<u8> {
    let OneBlockFile { inode, block, .. } = find(file, NAME).unwrap().file.unwrap();
    let mut bytes = vec![0; usize::try_from(inode.size).unwrap()];
    file.read_exact_at(&mut bytes, block.unwrap() * BLOCK).unwrap();
    bytes
}

// Promise: the file is found with its mode and owner, however inodes and descriptors are laid out.
#[test]
fn found_in_each_layout() {
    for options in [&[][..], &["-I", "128"], &["-I", "1024"], &["-O", "^64bit"], &["-O", "^metadata_csum,^flex_bg"]] {
        let mut owner = (0, 0);
        let file = image(options, "8M", |root| {
            usual(root);
            let metadata = root.metadata().unwrap();
            owner = (metadata.uid(), metadata.gid());
        });
        let Found { folder: Some(folder), file: Some(conf) } = find(&file, NAME).unwrap() else { panic!() };
        assert_eq!((folder.uid, folder.gid), owner, "{options:?}");
        let OneBlockFile { inode, block: Some(_), .. } = conf else { panic!("{options:?}") };
        assert_eq!((inode.permissions(), inode.uid, inode.gid, inode.links), (0o640, owner.0, owner.1, 1));
        assert_eq!(content(&file), CONF, "{options:?}");
        assert!(find(&file, "other").unwrap().file.is_none(), "{options:?}");
    }
}

// Promise: it is found also in a late group, whose descriptor is not among those that are read with the superblock.
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
        let place = system.superblock.descriptor_place((last.max().unwrap() - 1) / system.superblock.inodes_per_group);
        assert!(place.unwrap() >= 2 * BLOCK, "{options:?}");
    }
}

// Promise: what is missing is said to be; what is odd on the way, or in the file's place, is refused.
#[test]
fn odd_trees() {
    type Tree = fn(&Path);
    let found: [(&str, Tree, [bool; 3]); 4] = [
        ("usual", usual, [true, true, true]),
        ("no folder", |root| fs::create_dir(root.join("etc")).unwrap(), [false, false, false]),
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
    for (name, tree, [has_folder, has_file, has_block]) in found {
        let Found { folder, file } = find(&image(&[], "8M", tree), NAME).unwrap();
        assert_eq!((folder.is_some(), file.is_some()), (has_folder, has_file), "{name}");
        assert_eq!(file.is_some_and(|file| file.block.is_some()), has_block, "{name}");
    }
    let refused: [(&str, Tree); 8] = [
        ("has no /etc", |_| ()),
        ("only /boot", |root| fs::create_dir(root.join("boot")).unwrap()),
        ("symlink in place", |root| symlink("usr", root.join("etc")).unwrap()),
        ("that is no folder", |root| put(&root.join("etc"), b"")),
        ("that is no folder", |root| {
            fs::create_dir(root.join("etc")).unwrap();
            put(&root.join("etc/azaion"), b"");
        }),
        ("symlink at", |root| {
            fs::create_dir_all(root.join("etc/azaion")).unwrap();
            symlink("other", root.join("etc/azaion/device.conf")).unwrap();
        }),
        ("that is no file", |root| fs::create_dir_all(root.join("etc/azaion/device.conf")).unwrap()),
        ("hard link", |root| {
            usual(root);
            fs::hard_link(root.join("etc/azaion/device.conf"), root.join("etc/other")).unwrap();
        }),
    ];
    for (says, tree) in refused {
        let said = find(&image(&[], "8M", tree), NAME).unwrap_err();
        assert!(said.contains(says), "{says}: {said}");
    }
    // What is too large for a slot has no block that is all of it, and where all of it lies is known.
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

/// Writes another root of extents into an inode.
fn set_root(file: &File, number: u32, root: &[u8]) {
    let medium = Raw::new(file).unwrap();
    let system = FileSystem::open(&medium).unwrap();
    let sb = &system.superblock;
    let (group, index) = ((number - 1) / sb.inodes_per_group, (number - 1) % sb.inodes_per_group);
    let place = system.inode_table(group).unwrap() * BLOCK + u64::from(index) * u64::from(sb.inode_size);
    file.write_all_at(root, place + 0x28).unwrap();
}

/// A node of extents: each entry is the first block in the file, and what follows that.
fn node(depth: u16, entries: &[(u32, [u8; 8])]) -> Vec<u8> {
    let count = u16::try_from(entries.len()).unwrap();
    let head = [0xF30A, count, 340, depth, 0, 0].map(u16::to_le_bytes);
    let mut node = head.as_flattened().to_vec();
    node.extend(entries.iter().flat_map(|(first, rest)| [&first.to_le_bytes()[..], rest].concat()));
    node
}

/// A run of blocks, for a leaf.
fn run(length: u16, start: u32) -> [u8; 8] {
    (u64::from(start) << 32 | u64::from(length)).to_le_bytes()
}

/// A node below.
fn below(block: u32) -> [u8; 8] {
    u64::from(block).to_le_bytes()
}

// Promise: a tree of extents is followed in order, as far as its owner is long, and never without end or outside.
#[test]
fn extents_are_followed() {
    let file = image(WITHOUT_CHECKSUMS, "8M", usual);
    let found = find(&file, NAME).unwrap();
    let (folder, conf) = (found.folder.unwrap(), found.file.unwrap());
    let extents_of = |inode: &Inode| {
        let medium = Raw::new(&file).unwrap();
        FileSystem::open(&medium).unwrap().extents(inode).unwrap().first().map(|extent| extent.start).unwrap()
    };
    let start = u32::try_from(extents_of(&folder)).unwrap();
    let block = u32::try_from(conf.block.unwrap()).unwrap();
    // Blocks that nobody uses.
    let [first, second, third] = [2040, 2041, 2042];
    let put = |block: u32, bytes: &[u8]| file.write_all_at(bytes, u64::from(block) * BLOCK).unwrap();
    // Of the folder: the names lie below, behind a node without any.
    put(first, &node(0, &[]));
    put(second, &node(0, &[(0, run(1, start))]));
    set_root(&file, folder.number, &node(1, &[(0, below(first)), (0, below(second))]));
    assert_eq!(content(&file), CONF);
    // Of several, the order counts.
    let medium = Raw::new(&file).unwrap();
    put(first, &node(0, &[(0, run(1, 5)), (1, run(1, 6))]));
    put(second, &node(0, &[(2, run(1, 7))]));
    let inode = FileSystem::open(&medium).unwrap().inode(folder.number).unwrap();
    let starts = FileSystem::open(&medium).unwrap().extents(&inode).unwrap();
    assert!(starts.iter().map(|extent| extent.start).eq([5, 6, 7]));
    // Beyond its end, a folder has no names.
    put(first, &node(0, &[(0, run(1, start)), (1, run(1, third))]));
    put(third, &[&[conf.inode.number.to_le_bytes()[0], 0, 0, 0, 0, 16, 5, 1], &b"other"[..]].concat());
    set_root(&file, folder.number, &node(1, &[(0, below(first))]));
    assert_eq!(content(&file), CONF);
    assert!(find(&file, "other").unwrap().file.is_none());
    // As large as a folder may be, and larger.
    set_root(&file, folder.number, &node(0, &[(0, run(10_000, start))]));
    assert_eq!(content(&file), CONF);
    set_root(&file, folder.number, &node(0, &[(0, run(10_001, start))]));
    assert!(find(&file, NAME).unwrap_err().contains("a folder is too large"));
    // Each node leads to the same one again and again: 1 + 33 + 33 * 302 are 10,000.
    for (count, is_good) in [(302, true), (303, false)] {
        put(first, &node(2, &vec![(0, below(second)); 33]));
        put(second, &node(1, &vec![(0, below(third)); count]));
        put(third, &node(0, &[]));
        set_root(&file, folder.number, &node(3, &[(0, below(first))]));
        let said = find(&file, NAME).err();
        assert!(said.as_ref().map_or(is_good, |said| !is_good && said.contains("too many extents")), "{said:?}");
    }
    for outside in [0, 2048, u32::MAX] {
        set_root(&file, folder.number, &node(1, &[(0, below(outside))]));
        assert!(find(&file, NAME).unwrap_err().contains("a block lies outside"), "{outside}");
    }
    // Of the file.
    set_root(&file, folder.number, &node(0, &[(0, run(1, start))]));
    for entry in [(0, run(1, 0)), (0, run(1, 2048)), (1, run(2, 2047))] {
        set_root(&file, conf.inode.number, &node(0, &[entry]));
        assert!(find(&file, NAME).unwrap_err().contains("a block lies outside"), "{entry:?}");
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

// Promise: inodes that the file system has not, and tables of them outside of it, are refused.
#[test]
fn inodes_outside() {
    let file = image(&[], "8M", usual);
    let medium = Raw::new(&file).unwrap();
    let system = FileSystem::open(&medium).unwrap();
    let last = system.superblock.inodes;
    for (number, says) in [(0, "no such number"), (last, "not in use"), (last + 1, "no such number")] {
        let said = system.inode(number).unwrap_err().to_string();
        assert!(said.contains(says), "{number}: {said}");
    }
    // The high half of where a table lies counts, too.
    let file = image(&["-O", "64bit,^metadata_csum"], "8M", usual);
    file.write_all_at(&[1], BLOCK + 0x28).unwrap();
    assert!(find(&file, NAME).unwrap_err().contains("a block lies outside"));
}

mod checksums;
