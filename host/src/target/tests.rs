use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, os::unix::net::UnixListener};

use azaion_agent::common::clock::{Clock, SystemClock};
use azaion_agent::common::exit::Exit;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;
use crate::target::confirmation::without_confirmation;
use crate::target::confirmation::{is_confirmed, with_confirmation};
use crate::target::error::Result;

const CONF: &str = "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=p\nAZAION_API_URL=https://a.example\n";

fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    dir
}

fn write(target: &dyn Target) -> Result<()> {
    target.write(&SecretString::from(CONF), Owner::Current)
}

fn write_as_root(target: &dyn Target, conf: &str) {
    target.write(&SecretString::from(conf), Owner::Root).unwrap();
}

// Promise: a device.conf is written, read and cleared; directory and file have their modes; no other file is left beside it.
#[test]
fn writes_reads_and_clears() {
    let dir = tree();
    let root = dir.path().join("root");
    let target = open(&root).unwrap();
    assert!(target.read_conf().unwrap().is_none());
    assert!(!target.clear().unwrap());
    for _ in 0..2 {
        write(target.as_ref()).unwrap();
        let found = target.read_conf().unwrap().unwrap();
        assert_eq!((found.bytes.as_slice(), found.mode), (CONF.as_bytes(), 0o600));
        assert!(target.is_in_order(&found, Owner::Current).unwrap());
        assert_eq!(fs::metadata(root.join("etc/azaion")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(root.join("etc/azaion")).unwrap().count(), 1);
    }
    assert!(target.clear().unwrap());
    assert_eq!(fs::read_dir(root.join("etc/azaion")).unwrap().count(), 0);
}

// Promise: clearing erases the bytes, not only the name: a process that holds the file open no longer reads them.
#[test]
fn clearing_erases_the_bytes() {
    let dir = tree();
    let root = dir.path().join("root");
    let target = open(&root).unwrap();
    write(target.as_ref()).unwrap();
    let mut opened = File::open(root.join(PATH)).unwrap();
    target.clear().unwrap();
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes).unwrap();
    assert!(bytes.iter().all(|&b| b == b'\n') && bytes.len() == CONF.len());
}

// Promise: a restore brings back the earlier file with its attributes, or removes the file if there was none.
#[test]
fn restores_the_earlier_file() {
    let dir = tree();
    let root = dir.path().join("root");
    let target = open(&root).unwrap();
    write(target.as_ref()).unwrap();
    target.restore(None).unwrap();
    assert!(target.read_conf().unwrap().is_none());
    let before = Found { bytes: Zeroizing::new(b"X=1\n".to_vec()), mode: 0o640, uid: 0, gid: 0 };
    let before = Found { uid: fs::metadata(&root).unwrap().uid(), gid: fs::metadata(&root).unwrap().gid(), ..before };
    target.restore(Some(&before)).unwrap();
    let after = target.read_conf().unwrap().unwrap();
    assert_eq!((after.bytes, after.mode, after.uid), (before.bytes, before.mode, before.uid));
}

// Promise: symlinks never lead out of the tree.
#[test]
fn never_leaves_the_tree() {
    let canary = tempfile::tempdir().unwrap();
    for link in [canary.path().to_str().unwrap(), "../../..", "/etc", "../../outside"] {
        let dir = tree();
        let root = dir.path().join("root");
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink(link, root.join("etc/azaion")).unwrap();
        let _ = write(open(&root).unwrap().as_ref());
        assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0, "{link}");
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0, "{link}");
        assert!(!Path::new("/etc/device.conf").exists(), "{link}");
    }
}

// Promise: a file of white space counts as no device.conf, in a directory as in an image, and can be replaced.
#[test]
fn blank_files_count_as_missing() {
    for text in ["", "\n", " \t\r\n\n"] {
        let dir = tree();
        let root = dir.path().join("root");
        fs::create_dir(root.join("etc/azaion")).unwrap();
        image::fixture::put(&root.join(PATH), text.as_bytes());
        let target = open(&root).unwrap();
        assert!(target.read_conf().unwrap().is_none(), "{text:?}");
        write(target.as_ref()).unwrap();
        assert!(target.read_conf().unwrap().is_some(), "{text:?}");
    }
}

// Promise: anything but a regular file with one name at the path of device.conf is refused with 66, without a hang, and unchanged.
#[test]
fn irregular_files_are_refused() {
    type Make = fn(&Path);
    let kinds: [(&str, Make); 5] = [
        ("symlink", |path| symlink("/etc/passwd", path).unwrap()),
        ("fifo", |path| mkfifo(path, Mode::S_IRWXU).unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("hard link", |path| {
            File::create(path.with_extension("other")).unwrap();
            fs::hard_link(path.with_extension("other"), path).unwrap();
        }),
    ];
    for (name, make) in kinds {
        let dir = tree();
        let root = dir.path().join("root");
        fs::create_dir(root.join("etc/azaion")).unwrap();
        make(&root.join(PATH));
        let target = open(&root).unwrap();
        assert_eq!(target.read_conf().unwrap_err().exit(), Exit::Target, "{name}");
        assert_eq!(target.clear().unwrap_err().exit(), Exit::Target, "{name}");
        assert!(root.join(PATH).symlink_metadata().is_ok(), "{name}");
    }
}

// Promise: a target that is not a root file system is refused with 66, and the message says what to do instead.
#[test]
fn other_targets_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, offset: usize, magic: &[u8]| {
        let path = dir.path().join(name);
        let mut bytes = vec![0; 4096];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        std::io::Write::write_all(&mut File::create(&path).unwrap(), &bytes).unwrap();
        path
    };
    fs::create_dir_all(dir.path().join("bootonly/boot")).unwrap();
    fs::create_dir_all(dir.path().join("file-in-the-way")).unwrap();
    File::create(dir.path().join("file-in-the-way/etc")).unwrap();
    for (path, advice) in [
        (dir.path().join("missing"), "can't be opened"),
        (file("luks", 0, b"LUKS\xba\xbe"), "encrypted"),
        (file("gzip", 0, b"\x1f\x8b"), "gzip"),
        (file("zstd", 0, b"\x28\xb5\x2f\xfd"), "zstd"),
        (file("ext4", 0x438, b"\x53\xef"), "another size"),
        (file("sparse", 0, b"\x3a\xff\x26\xed"), "another version"),
        (file("disk", 510, b"\x55\xaa"), "whole disk"),
        (file("tar", 257, b"ustar"), "tar"),
        (file("zero", 0, b""), "no root file system"),
        (dir.path().join("bootonly"), "only /boot"),
        (PathBuf::from("/"), "own root"),
        (PathBuf::from("/dev/null"), "neither"),
    ] {
        let error = open(&path).and_then(|target| target.read_conf()).unwrap_err();
        assert_eq!(error.exit(), Exit::Target, "{path:?}");
        assert!(error.to_string().contains(advice), "{path:?}: {error}");
    }
    let error = open(&dir.path().join("file-in-the-way")).and_then(|t| t.read_conf()).unwrap_err();
    assert_eq!(error.exit(), Exit::Target);
}

// Promise: a target that is given under two names is refused, instead of a deadlock.
#[test]
fn a_target_given_twice_is_refused() {
    let dir = tree();
    let root = dir.path().join("root");
    symlink(&root, dir.path().join("alias")).unwrap();
    let error =
        open_all([root, dir.path().join("alias")].iter().map(|path| find(path).unwrap()).collect()).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
}

// Promise: existing directories keep their content; a wrong mode of etc/azaion is corrected.
#[test]
fn corrects_the_mode_of_the_directory() {
    let dir = tree();
    let directory = dir.path().join("root/etc/azaion");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    File::create(directory.join("agent.toml")).unwrap();
    write(open(&dir.path().join("root")).unwrap().as_ref()).unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o755);
    assert!(directory.join("agent.toml").exists());
}

/// Returns the number of bytes from the first to the last one in which two files of the same length differ.
fn difference(one: &[u8], other: &[u8]) -> usize {
    assert_eq!(one.len(), other.len());
    let mut offsets = one.iter().zip(other).enumerate().filter_map(|(at, (a, b))| (a != b).then_some(at));
    offsets.next().map_or(0, |first| offsets.next_back().unwrap_or(first) - first + 1)
}

/// Adds the confirmation comment, as a batch does once the API has accepted the password.
fn confirm(target: &dyn Target) {
    let found = target.read_conf().unwrap().unwrap();
    if !is_confirmed(&found.bytes) {
        target.write(&with_confirmation(&found.bytes).unwrap(), Owner::Root).unwrap();
    }
}

/// Checks that the file is `text` with the confirmation comment.
fn assert_confirmed(target: &dyn Target, text: &str) {
    let found = target.read_conf().unwrap().unwrap();
    assert!(is_confirmed(&found.bytes));
    assert_eq!(std::str::from_utf8(without_confirmation(&found.bytes)).unwrap(), text.trim_end());
}

// Promise: the confirmation comment is added once, to a file that this run or an earlier one wrote; only the bytes of the comment
// change, and the checksum is right.
#[test]
fn the_confirmation_is_added_in_place() {
    for (kind, has_checksum) in [(Kind::Ext4, false), (Kind::Ext4, true), (Kind::Sparse, false), (Kind::Sparse, true)] {
        let (_dir, path) = image::fixture::image(kind);
        if !has_checksum {
            fs::remove_file(path.with_file_name("system.img.sha1sum")).unwrap();
        }
        for is_earlier in [false, true] {
            let mut target = open(&path).unwrap();
            write_as_root(target.as_ref(), CONF);
            if is_earlier {
                drop(target);
                target = open(&path).unwrap();
            }
            let before = fs::read(&path).unwrap();
            confirm(target.as_ref());
            assert_confirmed(target.as_ref(), CONF);
            let after = fs::read(&path).unwrap();
            assert!((1..60).contains(&difference(&before, &after)), "{kind} {has_checksum} {is_earlier}");
            assert!(!has_checksum || image::fixture::summed(&path), "{kind} {is_earlier}");
            confirm(target.as_ref());
            assert!(fs::read(&path).unwrap() == after, "{kind} {has_checksum} {is_earlier}");
        }
    }
}

/// Returns the offset at which these bytes start in a file.
fn offset_of(path: &Path, bytes: &[u8]) -> u64 {
    let all = fs::read(path).unwrap();
    all.windows(bytes.len()).position(|window| window == bytes).unwrap() as u64
}

// Promise: a reader of a target needs no lock. While another run holds it, the reader waits for the complete write. A write that
// stays incomplete counts as no device.conf; if no run holds the lock, the reader does not wait.
#[test]
fn readers_never_see_half_a_write() {
    let read_conf = |path: &Path| open_to_read(path).unwrap().read_conf().unwrap().map(|found| found.bytes);
    let whole = || Some(Zeroizing::new(CONF.as_bytes().to_vec()));
    for kind in [Kind::Directory, Kind::Ext4, Kind::Sparse] {
        let (dir, path) = if kind == Kind::Directory { (tree(), PathBuf::new()) } else { image::fixture::image(kind) };
        let path = if kind == Kind::Directory { dir.path().join("root") } else { path };
        let writer = open(&path).unwrap();
        writer.write(&SecretString::from(CONF), Owner::Current).unwrap();
        assert_eq!(read_conf(&path), whole(), "{kind}");
        let file = if kind == Kind::Directory { path.join(PATH) } else { path.clone() };
        let offset = offset_of(&file, CONF.as_bytes());
        let file = File::options().write(true).open(&file).unwrap();
        file.write_all_at(&[b'\n'; 40], offset).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_conf(&path));
            SystemClock.sleep(Duration::from_millis(100));
            file.write_all_at(CONF.as_bytes(), offset).unwrap();
            assert_eq!(reader.join().unwrap(), whole(), "{kind}");
        });
        if kind != Kind::Directory {
            file.write_all_at(b"\n\n\n", offset).unwrap();
            assert_eq!(read_conf(&path), None, "{kind}");
            drop(writer);
            let start = SystemClock.boot();
            assert_eq!(read_conf(&path), None, "{kind}");
            assert!(SystemClock.boot() < start + Duration::from_secs(1), "{kind}");
        }
    }
}

// Promise: a file of arbitrary bytes is restored unchanged; one that is too large can't be, and then the password that was written
// in its stead is erased.
#[test]
fn restores_arbitrary_bytes() {
    let before = |bytes: &[u8]| Found { bytes: Zeroizing::new(bytes.to_vec()), mode: 0o600, uid: 0, gid: 0 };
    for kind in [Kind::Ext4, Kind::Sparse] {
        let (_dir, path) = image::fixture::image(kind);
        let target = open(&path).unwrap();
        for bytes in [&b"A=1\r\nB=2\n"[..], b"\xef\xbb\xbfA=1\n", b"\x7fELF\0\x01\n"] {
            write_as_root(target.as_ref(), CONF);
            target.restore(Some(&before(bytes))).unwrap();
            assert_eq!(target.read_conf().unwrap().unwrap().bytes.trim_ascii_end(), bytes.trim_ascii_end(), "{kind}");
        }
        write_as_root(target.as_ref(), CONF);
        assert_eq!(target.restore(Some(&before(&[b'#'; 4097]))).unwrap_err().exit(), Exit::Data);
        assert!(target.read_conf().unwrap().is_none() && image::fixture::summed(&path), "{kind}");
    }
}
