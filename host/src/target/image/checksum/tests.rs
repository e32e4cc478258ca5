use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::SecretString;

use azaion_agent::common::exit::Exit;

use super::*;
use crate::target::error::Result;
use crate::target::image::fixture::{image, put, sum, sum_of, summed};
use crate::target::{Kind, Owner, open};

mod state;

const CONF: &str =
    "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=firstpassword\nAZAION_API_URL=https://a.example\n";

// Promise: only the digits in a checksum file change; its format and mode stay.
#[test]
fn only_the_digits_change() {
    let dir = tempfile::tempdir().unwrap();
    let (path, checksum) = (dir.path().join("i"), dir.path().join("i.sha1sum"));
    put(&path, b"image");
    let image = Image::open(&path).unwrap();
    let (old, new) = ("A".repeat(40), "1b".repeat(20));
    let other = format!("{}  other.img\n{}  i\n", "b".repeat(40), "c".repeat(64));
    for (before, after) in [
        ("", "  system.img\n"),
        ("", ""),
        ("\\", " *tools/a b\n"),
        ("SHA1 (x) = ", "\r\n\0"),
        ("SHA1(x)= ", "\n"),
        ("sum: ", ""),
        ("", &format!("  i-{}.img\n", "c".repeat(40))),
        (&format!("SHA1 ({}) = ", "c".repeat(40)), "\n"),
        (&other, "  i\n"),
        ("", &format!(" *images/i\n{other}")),
        (&other, &format!("  ./i\n{other}")),
        (&format!("{other}SHA1 (i) = "), "\n"),
    ] {
        put(&checksum, format!("{before}{old}{after}").as_bytes());
        fs::set_permissions(&checksum, Permissions::from_mode(0o640)).unwrap();
        let read = ChecksumFile::read(&image).unwrap().unwrap();
        assert!(read.is(&old.to_lowercase()) && !read.is(&new));
        read.set(&image, &new).unwrap();
        // In upper case, as before.
        assert_eq!(fs::read_to_string(&checksum).unwrap(), format!("{before}{}{after}", new.to_uppercase()));
        assert_eq!(checksum.metadata().unwrap().mode() & 0o7777, 0o640);
    }
    fs::remove_file(&checksum).unwrap();
    assert!(ChecksumFile::read(&image).unwrap().is_none());
}

// Promise: a checksum file with a second hard link is replaced, so that the other link, beside a copy of the image, stays correct.
#[test]
fn another_hard_link_keeps_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let (path, checksum, other) = (dir.path().join("i"), dir.path().join("i.sha1sum"), dir.path().join("other"));
    put(&path, b"image");
    let (old, new) = ("a".repeat(40), "1".repeat(40));
    put(&checksum, format!("{old}  i\n").as_bytes());
    fs::set_permissions(&checksum, Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(&checksum, &other).unwrap();
    let image = Image::open(&path).unwrap();
    ChecksumFile::read(&image).unwrap().unwrap().set(&image, &new).unwrap();
    assert_eq!(fs::read_to_string(&checksum).unwrap(), format!("{new}  i\n"));
    assert_eq!(fs::read_to_string(&other).unwrap(), format!("{old}  i\n"));
    assert_eq!(checksum.metadata().unwrap().mode() & 0o7777, 0o640);
}

fn write(path: &Path, conf: &str) -> Result<()> {
    let target = open(path)?;
    target.may_write(Owner::Root)?;
    target.remove_leftovers()?;
    target.write(&SecretString::from(conf), Owner::Root)
}

// Promise: the checksum of ext4 and sparse images is right after each device, a restore, and a clear.
#[test]
fn the_checksum_follows_each_change() {
    for kind in [Kind::Ext4, Kind::Sparse] {
        let (_dir, path) = image(kind);
        assert_eq!(open(&path).unwrap().kind(), kind);
        for conf in [CONF.to_owned(), CONF.replace("first", "second")] {
            write(&path, &conf).unwrap();
            assert!(summed(&path), "{kind}");
        }
        let target = open(&path).unwrap();
        let before = target.read_conf().unwrap();
        target.write(&SecretString::from(CONF), Owner::Root).unwrap();
        target.restore(before.as_ref()).unwrap();
        assert!(summed(&path), "{kind}");
        assert!(target.clear().unwrap());
        assert!(summed(&path), "{kind}");
    }
}

// Promise: an image with a wrong checksum is refused before anything is changed.
#[test]
fn a_wrong_checksum_is_refused() {
    for kind in [Kind::Ext4, Kind::Sparse] {
        let (dir, path) = image(kind);
        put(&dir.path().join("system.img.sha1sum"), "0".repeat(40).as_bytes());
        let before = fs::read(&path).unwrap();
        assert_eq!(write(&path, CONF).unwrap_err().exit(), Exit::Target, "{kind}");
        assert!(fs::read(&path).unwrap() == before, "{kind}");
        put(&dir.path().join("system.img.sha1sum"), b"none");
        assert_eq!(write(&path, CONF).unwrap_err().exit(), Exit::Target, "{kind}");
    }
}

/// Returns an image of a tree that was provisioned, made by the command `make`, with its checksum file.
fn packed(make: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("root/etc/azaion");
    fs::create_dir_all(&directory).unwrap();
    put(&directory.join("device.conf"), CONF.as_bytes());
    fs::set_permissions(directory.join("device.conf"), Permissions::from_mode(0o600)).unwrap();
    let done = Command::new("sh").args(["-c", make]).current_dir(dir.path()).status().unwrap();
    assert!(done.success(), "{make}");
    let path = dir.path().join("system.img");
    sum(&path);
    (dir, path)
}

// Promise: a `device.conf` that is already in an image is used only if the checksum is right, also without a checksum state;
// `inspect` and `clear` work with a wrong checksum.
#[test]
fn an_existing_conf_with_a_wrong_checksum() {
    for make in [
        "PATH=$PATH:/usr/sbin:/sbin; mke2fs -q -t ext4 -b 4096 -d root system.img 8M >/dev/null",
        "PATH=$PATH:/usr/sbin:/sbin; mke2fs -q -t ext4 -b 4096 -d root raw 8M >/dev/null; img2simg raw system.img; rm raw",
        "tar --owner=0 --group=0 -cf system.img -C root .",
        "tar --owner=0 --group=0 -I zstd -cf system.img -C root .",
    ] {
        for is_packed in [true, false] {
            let (dir, path) = packed(make);
            if !is_packed {
                write(&path, CONF).unwrap();
                fs::remove_file(dir.path().join(".system.img.azaion-sha1")).unwrap();
            }
            let read_for_update = || {
                let target = open(&path).unwrap();
                target.may_write(Owner::Root)?;
                target.remove_leftovers()?;
                target.read_conf().map(|found| found.is_some())
            };
            let image = fs::read(&path).unwrap();
            assert!(read_for_update().unwrap() && summed(&path), "{make}");
            let _ = fs::remove_file(dir.path().join(".system.img.azaion-sha1"));
            let wrong = "0".repeat(40);
            put(&dir.path().join("system.img.sha1sum"), wrong.as_bytes());
            assert_eq!(read_for_update().map_err(|error| error.exit()), Err(Exit::Target), "{make} {is_packed}");
            assert!(fs::read(&path).unwrap() == image, "{make}");
            let target = open(&path).unwrap();
            assert!(target.read_conf().unwrap().is_some() && target.clear().unwrap(), "{make}");
            assert!(target.read_conf().unwrap().is_none(), "{make}");
            assert_eq!(fs::read_to_string(dir.path().join("system.img.sha1sum")).unwrap(), wrong, "{make}");
        }
    }
}

// Promise: the next run finishes a run that was killed before it wrote the checksum; a change by others is refused.
#[test]
fn a_killed_run_is_finished() {
    let (dir, path) = image(Kind::Ext4);
    let (checksum, state) = (dir.path().join("system.img.sha1sum"), dir.path().join(".system.img.azaion-sha1"));
    let original = fs::read(&checksum).unwrap();
    write(&path, CONF).unwrap();
    // Killed after the image was replaced and before the checksum was written.
    let state_before = ChecksumState::load(&Image::open(&path).unwrap()).unwrap();
    let pending = ChecksumState::pending(&state_before.prefix().unwrap());
    pending.save(&Image::open(&path).unwrap()).unwrap();
    put(&checksum, &original);
    open(&path).unwrap().remove_leftovers().unwrap();
    assert!(summed(&path));
    // Killed after the slot was overwritten and before the checksum was written.
    let before = (fs::read(&checksum).unwrap(), fs::read(&state).unwrap());
    write(&path, &CONF.replace("first", "second")).unwrap();
    put(&checksum, &before.0);
    put(&state, &before.1);
    open(&path).unwrap().remove_leftovers().unwrap();
    assert!(summed(&path));
    // Another program changed the image, before or behind the slot, with a right or a wrong checksum.
    let left = [&path, &checksum, &state].map(|path| fs::read(path).unwrap());
    for offset in [100, (8 << 20) - 1] {
        for is_killed in [false, true] {
            for (path, bytes) in [&path, &checksum, &state].into_iter().zip(&left) {
                put(path, bytes);
            }
            if is_killed {
                put(&checksum, &before.0);
                put(&state, &before.1);
            }
            change(&path, offset);
            let result = open(&path).unwrap().remove_leftovers().map_err(|error| error.exit());
            assert_eq!(result, Err(Exit::Target), "{offset} {is_killed}");
        }
    }
}

/// Changes one byte of the image, as another program would.
fn change(path: &Path, offset: u64) {
    File::options().write(true).open(path).unwrap().write_all_at(b"x", offset).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Renames a file, and puts a symlink to it at the old path.
fn replace_by_symlink(path: &Path) {
    fs::rename(path, path.with_file_name("other")).unwrap();
    std::os::unix::fs::symlink("other", path).unwrap();
}

// Promise: an image gets a slot only if its checksum is right; all of it is read only if the checksum state does not match.
#[test]
fn the_checksum_is_verified() {
    type Change = fn(&Path, &Path);
    let cases: [(&str, Change, bool, bool); 6] = [
        ("unchanged", |_, _| (), true, false),
        ("another checksum", |_, checksum| put(checksum, "0".repeat(40).as_bytes()), false, true),
        ("another image", |path, _| change(path, 100), false, true),
        ("another image behind the slot", |path, _| change(path, (8 << 20) - 1), false, true),
        (
            "another image and its checksum",
            |path, _| {
                change(path, 100);
                sum(path);
            },
            true,
            true,
        ),
        ("no checksum", |_, checksum| fs::remove_file(checksum).unwrap(), true, false),
    ];
    for (name, make, is_right, is_read) in cases {
        let (dir, path) = image(Kind::Ext4);
        write(&path, CONF).unwrap();
        make(&path, &dir.path().join("system.img.sha1sum"));
        let image = Image::open(&path).unwrap();
        let checksum = ChecksumFile::read(&image).unwrap();
        assert_eq!(checksum.as_ref().is_some_and(|checksum| !is_known(&image, checksum)), is_read, "{name}");
        let checked = check_while(&image, checksum.as_ref(), || Ok(()));
        assert_eq!(checked.map_err(|error| error.exit()), if is_right { Ok(()) } else { Err(Exit::Target) }, "{name}");
    }
}

// Promise: the checksum file is read before anything is written; a malformed one is refused.
#[test]
fn the_checksum_file_is_read_first() {
    let dir = tempfile::tempdir().unwrap();
    let (path, checksum) = (dir.path().join("i"), dir.path().join("i.sha1sum"));
    put(&path, b"image");
    let image = Image::open(&path).unwrap();
    assert!(!may_write(&image).unwrap());
    put(&checksum, "0".repeat(40).as_bytes());
    assert!(may_write(&image).unwrap());
    fs::remove_file(&checksum).unwrap();
    std::os::unix::fs::symlink("elsewhere", &checksum).unwrap();
    assert_eq!(may_write(&image).unwrap_err().exit(), Exit::Target);
}

// Promise: anything but a small regular file with one usable SHA-1 is refused, without a hang.
#[test]
fn malformed_checksum_files_are_refused() {
    type Make = fn(&Path);
    let sum = |length: usize| [b"0".repeat(40), b"\n".repeat(length - 40)].concat();
    let cases: [(&str, Make); 3] = [
        ("symlink", |path| std::os::unix::fs::symlink("elsewhere", path).unwrap()),
        ("not a regular file", |path| fs::create_dir(path).unwrap()),
        ("not a regular file", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
    ];
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("i"), b"image");
    let image = Image::open(&dir.path().join("i")).unwrap();
    let path = dir.path().join("i.sha1sum");
    for (expected, make) in cases {
        make(&path);
        assert!(ChecksumFile::read(&image).unwrap_err().to_string().contains(expected), "{expected}");
        if path.is_dir() { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
    }
    for (bytes, expected) in [
        (sum(65_536), None),
        (sum(65_537), Some("at most 64 KiB")),
        (b"0".repeat(39), Some("holds no SHA-1")),
        (b"0".repeat(41), Some("holds no SHA-1")),
        (b"0".repeat(64), Some("holds a SHA-256 instead of a SHA-1")),
        (b"0".repeat(128), Some("holds a SHA-512 instead of a SHA-1")),
        ([b"0".repeat(32), b"  i\n".to_vec()].concat(), Some("holds an MD5 instead of a SHA-1")),
        ([sum(41), sum(40)].concat(), Some("has several lines with a SHA-1, none of them for this image")),
        ([b"x-".to_vec(), sum(40), b"-x-".to_vec(), sum(40)].concat(), Some("more than once")),
        ([b"0".repeat(39), b"\n".to_vec(), sum(40)].concat(), None),
    ] {
        put(&path, &bytes);
        let message = ChecksumFile::read(&image).err().map(|error| error.to_string());
        assert!(
            message
                .as_deref()
                .map_or(expected.is_none(), |message| expected.is_some_and(|expected| message.contains(expected))),
            "{message:?}"
        );
    }
}
