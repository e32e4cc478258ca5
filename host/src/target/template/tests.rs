use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use azaion_agent::api::fault::chain;
use nix::sys::stat::{SFlag, mknod};
use nix::unistd::{geteuid, mkfifo};
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, setxattr};
use tempfile::TempDir;

use super::*;
use crate::target;

/// Creates a tree with files of every type and with every attribute.
fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path_of = |name: &str| dir.path().join("template").join(name);
    for directory in ["etc", "usr/bin", "var/deep/er/est"] {
        fs::create_dir_all(path_of(directory)).unwrap();
    }
    let file = |name: &str, content: &[u8], mode| {
        File::create(path_of(name)).unwrap().write_all(content).unwrap();
        fs::set_permissions(path_of(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    file("etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644);
    file("etc/shadow", b"root:*:\n", 0o640);
    file("usr/bin/sudo", b"#!", 0o4755);
    file("usr/bin/ping", b"#!", 0o755);
    file("usr/bin/unreadable", b"", 0o000);
    fs::hard_link(path_of("etc/shadow"), path_of("var/deep/shadow-")).unwrap();
    fs::hard_link(path_of("etc/shadow"), path_of("usr/shadow-")).unwrap();
    symlink("../../etc/passwd", path_of("usr/bin/link")).unwrap();
    symlink("/nowhere", path_of("var/dangling")).unwrap();
    let mut holes = File::create(path_of("var/holes")).unwrap();
    holes.seek(SeekFrom::Start(1 << 20)).unwrap();
    holes.write_all(b"end").unwrap();
    holes.set_len(3 << 20).unwrap();
    mkfifo(&path_of("var/fifo"), Mode::S_IRUSR).unwrap();
    drop(UnixListener::bind(path_of("var/socket")).unwrap());
    fs::set_permissions(path_of("var/deep"), fs::Permissions::from_mode(0o1711)).unwrap();
    setxattr(path_of("etc/passwd"), "user.note", b"\0binary\xff", XattrFlags::empty()).unwrap();
    if geteuid().is_root() {
        chown(path_of("usr/bin/sudo"), Some(1), Some(2)).unwrap();
        fs::set_permissions(path_of("usr/bin/sudo"), fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::lchown(path_of("var/dangling"), Some(3), Some(4)).unwrap();
        mknod(&path_of("var/null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), nix::libc::makedev(1, 3)).unwrap();
        // cap_net_raw=ep (capabilities(7)), and u::rw- u:65534:r-- g::r-- m::r-- o::---
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        setxattr(path_of("usr/bin/ping"), "security.capability", &capability, XattrFlags::empty()).unwrap();
        let nobody = 65_534_u32.to_le_bytes();
        let entry = |tag: u8, perm: u8, id: [u8; 4]| [&[tag, 0, perm, 0][..], &id].concat();
        let list = [(1, 6, [255; 4]), (2, 4, nobody), (4, 4, [255; 4]), (16, 4, [255; 4]), (32, 0, [255; 4])];
        let list: Vec<u8> = list.into_iter().flat_map(|(tag, perm, id)| entry(tag, perm, id)).collect();
        setxattr(
            path_of("etc/shadow"),
            "system.posix_acl_access",
            &[&[2, 0, 0, 0], &list[..]].concat(),
            XattrFlags::empty(),
        )
        .unwrap();
    }
    // Last, because creating a file changes the time of its directory.
    let touch = ["-depth", "-exec", "touch", "-h", "-d", "2001-02-03 04:05:06.789", "{}", "+"];
    assert!(Command::new("find").arg(dir.path().join("template")).args(touch).status().unwrap().success());
    dir
}

/// Lists all attributes of the files in a tree, by name.
fn listed(root: &Path) -> BTreeMap<String, String> {
    let (mut all, mut left, mut links) = (BTreeMap::new(), vec![root.to_owned()], BTreeMap::new());
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let kind = metadata.file_type();
        let content =
            if kind.is_symlink() { fs::read_link(&path).unwrap().display().to_string() } else { String::new() };
        let mut attributes = String::new();
        if kind.is_file() || kind.is_dir() {
            let file = File::open(&path);
            attributes = file.map_or_else(|error| error.to_string(), |file| extended(&file));
        }
        // Hard links of one file share its first name. Link counts are not compared: those of directories depend on the file system.
        let first = links.entry(metadata.ino()).or_insert_with(|| name.clone()).clone();
        let size = if kind.is_dir() { 0 } else { metadata.size() };
        let facts = format!(
            "{:o} {}:{} {size} {} {} {}.{:09} {first} {content} {attributes}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.blocks(),
            metadata.rdev(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        );
        let bytes = if kind.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        all.insert(name, format!("{facts} {bytes:?}"));
        if kind.is_dir() {
            let mut inner: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            inner.sort();
            left.extend(inner);
        }
    }
    all
}

fn extended(file: &File) -> String {
    let mut names = vec![0; 4096];
    let length = flistxattr(file, names.as_mut_slice()).unwrap();
    let mut all: Vec<String> = names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = fgetxattr(file, name, value.as_mut_slice()).unwrap();
            format!("{}={:?}", String::from_utf8_lossy(name), &value[..length])
        })
        .collect();
    all.sort();
    all.join(" ")
}

// Promise: a copy of a tree is the same as one by `cp -a`, and no staging directory is left beside it.
#[test]
fn copies_as_cp_does() {
    let dir = tree();
    let (template, ours, theirs) = (dir.path().join("template"), dir.path().join("ours"), dir.path().join("theirs"));
    let copied = Command::new("cp").args(["-a", "-T"]).args([&template, &theirs]).status().unwrap();
    let target_path = ResolvedPath::find_or_create_parents(&ours).unwrap();
    target::open(&template).unwrap().template().unwrap().copy_to(&target_path).unwrap();
    assert!(copied.success());
    let (ours, theirs) = (listed(&ours), listed(&theirs));
    for (name, facts) in &theirs {
        assert_eq!(ours.get(name), Some(facts), "{name}");
    }
    assert_eq!(ours.len(), theirs.len());
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["ours", "template", "theirs"]);
}

// Promise: an existing file stays, also if it was created meanwhile; what a killed run has left is removed.
#[test]
fn existing_files_stay() {
    let dir = tree();
    let (template, copy) = (dir.path().join("template"), dir.path().join("copy"));
    let template = target::open(&template).unwrap().template().unwrap();
    let target_path = ResolvedPath::find_or_create_parents(&copy).unwrap();
    let left = dir.path().join(".copy.copying");
    let leave = || {
        fs::create_dir_all(left.join("copy/half")).unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o700)).unwrap();
        setxattr(&left, staging::ownership_attribute(), b"1", XattrFlags::empty()).unwrap();
    };
    leave();
    File::create(&copy).unwrap();
    template.copy_to(&target_path).unwrap();
    assert!(copy.is_file() && !left.exists());
    // Killed after the copy was renamed.
    leave();
    template.copy_if_missing(&mut ResolvedPath::find(&copy).unwrap()).unwrap();
    assert!(copy.is_file() && !left.exists());
    fs::remove_file(&copy).unwrap();
}

// Promise: nothing is left of a run that was killed before it could mark its directory.
#[test]
fn unmarked_empty_directories_are_removed() {
    let dir = tree();
    let (template, copy, left) =
        (dir.path().join("template"), dir.path().join("copy"), dir.path().join(".copy.copying"));
    fs::create_dir(&left).unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o700)).unwrap();
    let target_path = ResolvedPath::find_or_create_parents(&copy).unwrap();
    target::open(&template).unwrap().template().unwrap().copy_to(&target_path).unwrap();
    assert!(copy.join("etc/passwd").is_file());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

// Promise: files of others under the name of the staging directory are neither used nor emptied.
#[test]
fn files_of_others_are_not_touched() {
    let plants: [fn(&Path); 4] = [
        |path| symlink("/", path).unwrap(),
        |path| drop(File::create(path).unwrap()),
        |path| fs::create_dir_all(path.join("inner")).unwrap(),
        |path| {
            fs::create_dir_all(path.join("inner")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        },
    ];
    for plant in plants {
        let dir = tree();
        let (template, copy, planted) =
            (dir.path().join("template"), dir.path().join("copy"), dir.path().join(".copy.copying"));
        plant(&planted);
        let before = fs::symlink_metadata(&planted).unwrap();
        let target_path = ResolvedPath::find_or_create_parents(&copy).unwrap();
        target::open(&template).unwrap().template().unwrap().copy_to(&target_path).unwrap();
        let after = fs::symlink_metadata(&planted).unwrap();
        assert!(copy.join("etc/passwd").is_file() && before.ino() == after.ino());
        assert_eq!(planted.join("inner").exists(), before.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}

// Promise: a tree that is too deep is an error, and exhausts neither the stack nor the file descriptors.
#[test]
fn a_deep_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (mut deep, copy) = (dir.path().join("template/usr"), dir.path().join("copy"));
    for _ in 0..300 {
        deep.push("d");
    }
    fs::create_dir_all(deep).unwrap();
    let target_path = ResolvedPath::find_or_create_parents(&copy).unwrap();
    let error =
        target::open(&dir.path().join("template")).unwrap().template().unwrap().copy_to(&target_path).unwrap_err();
    assert!(chain(&error).contains("levels deep"), "{error:?}");
    assert!(!copy.exists());
}
