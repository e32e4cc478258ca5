use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::SecretString;
use tempfile::TempDir;

use super::*;
use crate::failure::exit_of;
use crate::target::{Kind, Owner, open};

const CONF: &str =
    "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=firstpassword\nAZAION_API_URL=https://a.example\n";

fn put(path: &Path, bytes: &[u8]) {
    std::io::Write::write_all(&mut File::create(path).unwrap(), bytes).unwrap();
}

fn sum_of(path: &Path) -> String {
    let output = Command::new("sha1sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout[..40].to_vec()).unwrap()
}

// Promise: all but the digits stays as it was in the file, and so does its mode.
#[test]
fn the_form_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sum) = (dir.path().join("i"), dir.path().join("i.sha1sum"));
    put(&path, b"image");
    let image = Image::open(&path).unwrap();
    let (old, new) = ("A".repeat(40), "1".repeat(40));
    for (before, after) in [("", "  system.img\n"), ("", ""), ("\\", " *tools/a b\n"), ("SHA1 (x) = ", "\r\n\0")] {
        put(&sum, format!("{before}{old}{after}").as_bytes());
        fs::set_permissions(&sum, Permissions::from_mode(0o640)).unwrap();
        let read = Sum::read(&image).unwrap().unwrap();
        assert!(read.is(&old.to_lowercase()) && !read.is(&new));
        read.set(&image, &new).unwrap();
        assert_eq!(fs::read_to_string(&sum).unwrap(), format!("{before}{new}{after}"));
        assert_eq!(sum.metadata().unwrap().mode() & 0o7777, 0o640);
    }
    fs::remove_file(&sum).unwrap();
    assert!(Sum::read(&image).unwrap().is_none());
}

// Promise: from a state that was written down, the sum goes on as if all had been read.
#[test]
fn the_state_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    put(&path, &bytes);
    let image = Image::open(&path).unwrap();
    for end in [0, 1, 63, 64, 65, 512, 1_048_577, 3_000_000] {
        Base::read(&image, end, &[]).unwrap().keep(&image).unwrap();
        let kept = Kept::load(&image).unwrap();
        let mut sha1 = kept.base().unwrap().sha1;
        sha1.update(&bytes[usize::try_from(end).unwrap()..]);
        assert_eq!(hex(sha1), sum_of(&path), "{end}");
        assert!(!kept.is_current(&image));
    }
}

/// An image of a tree with /etc, of a kind, with the sum beside it.
fn image(kind: Kind) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("system.img");
    fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    let raw = if kind == Kind::Sparse { dir.path().join("raw") } else { path.clone() };
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-d", "root"])
        .arg(&raw)
        .arg("8M")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    if kind == Kind::Sparse {
        let blocks = u32::try_from(raw.metadata().unwrap().len() / 4096).unwrap();
        let words = [0xed26_ff3a, 1, 0x000c_001c, 4096, blocks, 1, 0, 0xcac1, blocks, 12 + blocks * 4096];
        let head: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        put(&path, &[head, fs::read(&raw).unwrap()].concat());
    }
    sum(&path);
    (dir, path)
}

fn sum(path: &Path) {
    put(&path.with_file_name("system.img.sha1sum"), format!("{}\n", sum_of(path)).as_bytes());
}

fn summed(path: &Path) -> bool {
    fs::read_to_string(path.with_file_name("system.img.sha1sum")).unwrap() == format!("{}\n", sum_of(path))
}

fn write(path: &Path, conf: &str) -> anyhow::Result<()> {
    let target = open(path)?;
    target.may_write(Owner::Root)?;
    target.tidy()?;
    target.write(&SecretString::from(conf), Owner::Root)
}

// Promise: the sum beside images of the other kinds is right after each device, a restore, and a clear.
#[test]
fn other_kinds() {
    for kind in [Kind::Ext4, Kind::Sparse] {
        let (_dir, path) = image(kind);
        assert_eq!(open(&path).unwrap().kind(), kind);
        for conf in [CONF.to_owned(), CONF.replace("first", "second")] {
            write(&path, &conf).unwrap();
            assert!(summed(&path), "{kind}");
        }
        let target = open(&path).unwrap();
        let before = target.look().unwrap();
        target.write(&SecretString::from(CONF), Owner::Root).unwrap();
        target.restore(before.as_ref()).unwrap();
        assert!(summed(&path), "{kind}");
        assert!(target.clear().unwrap());
        assert!(summed(&path), "{kind}");
    }
}

// Promise: an image whose sum is wrong is refused before anything is changed.
#[test]
fn other_kinds_with_a_wrong_sum() {
    for kind in [Kind::Ext4, Kind::Sparse] {
        let (dir, path) = image(kind);
        put(&dir.path().join("system.img.sha1sum"), "0".repeat(40).as_bytes());
        let before = fs::read(&path).unwrap();
        assert_eq!(exit_of(&write(&path, CONF).unwrap_err()), Exit::Target, "{kind}");
        assert!(fs::read(&path).unwrap() == before, "{kind}");
        put(&dir.path().join("system.img.sha1sum"), b"none");
        assert_eq!(exit_of(&write(&path, CONF).unwrap_err()), Exit::Target, "{kind}");
    }
}

// Promise: a run that was killed before the sum is finished by the next, wherever it was; a change by others is not.
#[test]
fn a_killed_run_is_finished() {
    let (dir, path) = image(Kind::Ext4);
    let (sum, state) = (dir.path().join("system.img.sha1sum"), dir.path().join(".system.img.azaion-sha1"));
    let original = fs::read(&sum).unwrap();
    write(&path, CONF).unwrap();
    // The image was replaced, its sum was not.
    let kept = Kept::load(&Image::open(&path).unwrap()).unwrap();
    let pending = Kept::pending(&kept.base().unwrap());
    pending.save(&Image::open(&path).unwrap()).unwrap();
    put(&sum, &original);
    open(&path).unwrap().tidy().unwrap();
    assert!(summed(&path));
    // The slot was overwritten, its sum was not.
    let before = (fs::read(&sum).unwrap(), fs::read(&state).unwrap());
    write(&path, &CONF.replace("first", "second")).unwrap();
    put(&sum, &before.0);
    put(&state, &before.1);
    open(&path).unwrap().tidy().unwrap();
    assert!(summed(&path));
    // Someone else wrote into it.
    File::options().write(true).open(&path).unwrap().write_all_at(b"x", 100).unwrap();
    assert_eq!(exit_of(&open(&path).unwrap().tidy().unwrap_err()), Exit::Target);
}

/// Bytes that this thread has read.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Changes one byte of the image, as another program would.
fn change(path: &Path, place: u64) {
    File::options().write(true).open(path).unwrap().write_all_at(b"x", place).unwrap();
}

// Promise: what is kept is believed only of the image as it was left, and only where the slot lies; else all of the image
// is read, and must fit the sum.
#[test]
fn what_is_kept_is_not_believed_blindly() {
    let (dir, path) = image(Kind::Ext4);
    let (sum, state) = (dir.path().join("system.img.sha1sum"), dir.path().join(".system.img.azaion-sha1"));
    write(&path, CONF).unwrap();
    let place = Kept::load(&Image::open(&path).unwrap()).unwrap().end();
    let left = [&path, &sum, &state].map(|path| fs::read(path).unwrap());
    let begin_at = |end: u64| begin(&Image::open(&path).unwrap(), end);
    for end in [place, place - 4096, place + 4096] {
        let base = begin_at(end).unwrap().unwrap();
        let bytes = &left[0][..usize::try_from(end).unwrap()];
        assert_eq!((base.end, hex(base.sha1)), (end, hex(Sha1::new_with_prefix(bytes))));
        put(&state, &left[2]);
    }
    change(&path, 100);
    assert_eq!(exit_of(&begin_at(place).unwrap_err()), Exit::Target);
    assert_eq!([&sum, &state].map(|path| fs::read(path).unwrap()), [left[1].as_slice(), &left[2]]);
    put(&sum, sum_of(&path).as_bytes());
    let bytes = &fs::read(&path).unwrap()[..usize::try_from(place).unwrap()];
    assert_eq!(hex(begin_at(place).unwrap().unwrap().sha1), hex(Sha1::new_with_prefix(bytes)));
    fs::remove_file(&sum).unwrap();
    assert!(begin_at(place).unwrap().is_none());
}

// Promise: an image is given a slot only if the sum beside it is right; all of it is read for that only if it must be.
#[test]
fn a_sum_is_checked() {
    type Change = fn(&Path, &Path);
    let cases: [(&str, Change, bool, bool); 6] = [
        ("as it was left", |_, _| (), true, false),
        ("another sum", |_, sum| put(sum, "0".repeat(40).as_bytes()), false, true),
        ("another image", |path, _| change(path, 100), false, true),
        ("another image behind the slot", |path, _| change(path, (8 << 20) - 1), false, true),
        (
            "another image and its sum",
            |path, _| {
                change(path, 100);
                sum(path);
            },
            true,
            true,
        ),
        ("no sum", |_, sum| fs::remove_file(sum).unwrap(), true, false),
    ];
    for (name, make, is_right, is_read) in cases {
        let (dir, path) = image(Kind::Ext4);
        write(&path, CONF).unwrap();
        make(&path, &dir.path().join("system.img.sha1sum"));
        let image = Image::open(&path).unwrap();
        let before = bytes_read();
        let checked = check(&image);
        assert_eq!(bytes_read() - before >= 8 << 20, is_read, "{name}");
        assert_eq!(
            checked.map_err(|error| exit_of(&error)),
            if is_right { Ok(()) } else { Err(Exit::Target) },
            "{name}"
        );
    }
}

// Promise: whether there is a sum to be kept right is known before anything is written; an odd one is refused.
#[test]
fn a_sum_is_looked_for_first() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sum) = (dir.path().join("i"), dir.path().join("i.sha1sum"));
    put(&path, b"image");
    let image = Image::open(&path).unwrap();
    assert!(!may_write(&image).unwrap());
    put(&sum, "0".repeat(40).as_bytes());
    assert!(may_write(&image).unwrap());
    fs::remove_file(&sum).unwrap();
    std::os::unix::fs::symlink("elsewhere", &sum).unwrap();
    assert_eq!(exit_of(&may_write(&image).unwrap_err()), Exit::Target);
}
