use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

const PRIVATE: Attributes = Attributes { mode: 0o600, uid: None, gid: None };

// Promise: a first write and a replacement both give the content and the mode, and leave no other file.
#[test]
fn replaces_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    for (mode, text) in [(0o600, "one"), (0o640, "two"), (0o644, "three")] {
        replace(fd.as_fd(), "f", Attributes { mode, ..PRIVATE }, text.as_bytes(), Lifetime::Durable).unwrap();
        let path = dir.path().join("f");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

// Promise: the next run removes the leftover of a killed run, and never writes through a symlink in its place.
#[test]
fn leftovers_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut elsewhere = tempfile::NamedTempFile::new().unwrap();
    elsewhere.write_all(b"of another").unwrap();
    let fd = File::open(dir.path()).unwrap();
    assert!(has_no_leftovers(fd.as_fd(), "f"));
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(".f.new")).unwrap();
    // A symlink counts whatever its target is, and the check works without the permission to list the directory.
    let by_path = openat(AT_FDCWD, dir.path(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    assert!(!has_no_leftovers(by_path.as_fd(), "f") && has_no_leftovers(by_path.as_fd(), "g"));
    replace(fd.as_fd(), "f", PRIVATE, b"x", Lifetime::ThisBoot).unwrap();
    assert!(has_no_leftovers(fd.as_fd(), "f"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(fs::read(elsewhere.path()).unwrap(), b"of another");
    assert!(erase_all(fd.as_fd(), "f").unwrap());
    assert!(!erase_all(fd.as_fd(), "f").unwrap());
}

// Promise: a name that can't be replaced is an error, and leaves no leftover.
#[test]
fn a_failed_write_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("f")).unwrap();
    let fd = File::open(dir.path()).unwrap();
    assert!(replace(fd.as_fd(), "f", PRIVATE, b"x", Lifetime::Durable).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Creates a file of `size` bytes at `path`, and keeps it open to read it after its name is removed.
fn filled(path: &Path, size: usize) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.write_all_at(&vec![b'x'; size], 0).unwrap();
    file
}

// Promise: the bytes of a removed file do not stay on the disk; a copy of an image, or a file with a second hard link, keeps its
// bytes.
#[test]
fn bytes_are_overwritten_first() {
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    for (name, size, links, is_overwritten) in [
        ("f", 0, 1, true),
        ("f", 1, 1, true),
        ("f", 4096, 1, true),
        ("f", 5000, 1, true),
        ("f", 300_000, 1, true),
        ("f", 5000, 2, false),
        (".f.new", 65_536, 1, true),
        (".f.new", 65_537, 1, false),
    ] {
        let path = dir.path().join(name);
        let file = filled(&path, size);
        let second = dir.path().join("second");
        if links == 2 {
            fs::hard_link(&path, &second).unwrap();
        }
        assert_eq!(erase_all(fd.as_fd(), "f").unwrap(), name == "f");
        assert!(!path.exists());
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &file, &mut bytes).unwrap();
        let expected = if is_overwritten { b'\n' } else { b'x' };
        assert_eq!(bytes.len(), size);
        assert!(bytes.iter().all(|&b| b == expected), "{name} {size} {links}");
    }
}

// Promise: a FIFO at the path is removed without blocking.
#[test]
fn a_fifo_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    for is_read in [false, true] {
        let path = dir.path().join("f");
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let _reader = is_read.then(|| nix::fcntl::open(&path, flags, Mode::empty()).unwrap());
        assert!(erase_all(fd.as_fd(), "f").unwrap());
        assert!(!path.exists());
    }
}

// Promise: a durable file is flushed to the disk, which fails for a pipe; other files are not flushed.
#[test]
fn durable_means_flushed() {
    let (_reader, writer) = std::io::pipe().unwrap();
    assert!(sync(writer.as_fd(), Lifetime::Durable).is_err());
    assert!(sync(writer.as_fd(), Lifetime::ThisBoot).is_ok());
}

// Promise: owner and group are set independently.
#[test]
fn owner_and_group_are_set() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    for (uid, gid) in [(None, None), (Some(1), None), (None, Some(2)), (Some(1), Some(2))] {
        replace(fd.as_fd(), "f", Attributes { mode: 0o640, uid, gid }, b"x", Lifetime::ThisBoot).unwrap();
        let metadata = fs::metadata(dir.path().join("f")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (uid.unwrap_or(0), gid.unwrap_or(0)));
        assert_eq!(metadata.mode() & 0o7777, 0o640);
    }
}

// Promise: the error names a directory at the temporary name, and the directory stays.
#[test]
fn a_directory_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    fs::create_dir(dir.path().join(".f.new")).unwrap();
    let error = replace(fd.as_fd(), "f", PRIVATE, b"x", Lifetime::ThisBoot).unwrap_err();
    assert!(error.to_string().contains(".f.new"), "{error}");
    assert!(dir.path().join(".f.new").is_dir());
}
