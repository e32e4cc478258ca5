use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::SecretString;

use super::*;
use crate::failure::exit_of;
use crate::target::fixture::{image, put, sum, sum_of, summed};
use crate::target::{Kind, Owner, open};

const CONF: &str =
    "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=firstpassword\nAZAION_API_URL=https://a.example\n";

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

// Promise: a sum that has another name, beside a copy of the image, is right there, too: it is not written through.
#[test]
fn another_name_keeps_its_sum() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sum, other) = (dir.path().join("i"), dir.path().join("i.sha1sum"), dir.path().join("other"));
    put(&path, b"image");
    let (old, new) = ("a".repeat(40), "1".repeat(40));
    put(&sum, format!("{old}  i\n").as_bytes());
    fs::set_permissions(&sum, Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(&sum, &other).unwrap();
    let image = Image::open(&path).unwrap();
    Sum::read(&image).unwrap().unwrap().set(&image, &new).unwrap();
    assert_eq!(fs::read_to_string(&sum).unwrap(), format!("{new}  i\n"));
    assert_eq!(fs::read_to_string(&other).unwrap(), format!("{old}  i\n"));
    assert_eq!(sum.metadata().unwrap().mode() & 0o7777, 0o640);
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
        Base::read(&image, &(end..u64::MAX)).unwrap().keep(&image).unwrap();
        let kept = Kept::load(&image).unwrap();
        let mut sha1 = kept.base().unwrap().sha1;
        sha1.update(&bytes[usize::try_from(end).unwrap()..]);
        assert_eq!(hex(sha1), sum_of(&path), "{end}");
        assert!(!kept.is_current(&image));
    }
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

/// An image of a tree that was provisioned, made by a command, with the sum beside it.
fn packed(make: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("root/etc/azaion");
    fs::create_dir_all(&folder).unwrap();
    put(&folder.join("device.conf"), CONF.as_bytes());
    fs::set_permissions(folder.join("device.conf"), Permissions::from_mode(0o600)).unwrap();
    let done = Command::new("sh").args(["-c", make]).current_dir(dir.path()).status().unwrap();
    assert!(done.success(), "{make}");
    let path = dir.path().join("system.img");
    sum(&path);
    (dir, path)
}

// Promise: a device that is in an image already is reported only if the checksum beside it is right, also where there is no
// state of it; `look` and `clear` work with a wrong one.
#[test]
fn a_device_that_is_there_with_a_wrong_sum() {
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
            let survey = || open(&path).unwrap().survey(Owner::Root).map(|found| found.is_some());
            let image = fs::read(&path).unwrap();
            assert!(survey().unwrap() && summed(&path), "{make}");
            let _ = fs::remove_file(dir.path().join(".system.img.azaion-sha1"));
            let wrong = "0".repeat(40);
            put(&dir.path().join("system.img.sha1sum"), wrong.as_bytes());
            assert_eq!(survey().map_err(|error| exit_of(&error)), Err(Exit::Target), "{make} {is_packed}");
            assert!(fs::read(&path).unwrap() == image, "{make}");
            let target = open(&path).unwrap();
            assert!(target.look().unwrap().is_some() && target.clear().unwrap(), "{make}");
            assert!(target.look().unwrap().is_none(), "{make}");
            assert_eq!(fs::read_to_string(dir.path().join("system.img.sha1sum")).unwrap(), wrong, "{make}");
        }
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
    // Someone else wrote into it, before the slot or behind it, and perhaps while the sum was wrong.
    let left = [&path, &sum, &state].map(|path| fs::read(path).unwrap());
    for place in [100, (8 << 20) - 1] {
        for is_killed in [false, true] {
            for (path, bytes) in [&path, &sum, &state].into_iter().zip(&left) {
                put(path, bytes);
            }
            if is_killed {
                put(&sum, &before.0);
                put(&state, &before.1);
            }
            change(&path, place);
            let told = open(&path).unwrap().tidy().map_err(|error| exit_of(&error));
            assert_eq!(told, Err(Exit::Target), "{place} {is_killed}");
        }
    }
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
        let base = begin_at(end).unwrap().unwrap().0;
        let bytes = &left[0][..usize::try_from(end).unwrap()];
        assert_eq!((base.end, hex(base.sha1)), (end, hex(Sha1::new_with_prefix(bytes))));
        put(&state, &left[2]);
    }
    change(&path, 100);
    assert_eq!(exit_of(&begin_at(place).unwrap_err()), Exit::Target);
    assert_eq!([&sum, &state].map(|path| fs::read(path).unwrap()), [left[1].as_slice(), &left[2]]);
    put(&sum, sum_of(&path).as_bytes());
    let bytes = &fs::read(&path).unwrap()[..usize::try_from(place).unwrap()];
    assert_eq!(hex(begin_at(place).unwrap().unwrap().0.sha1), hex(Sha1::new_with_prefix(bytes)));
    fs::remove_file(&sum).unwrap();
    assert!(begin_at(place).unwrap().is_none());
}

// Promise: a state of which one digit is another is none, and so is one of another version.
#[test]
fn a_damaged_state_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (path, state) = (dir.path().join("i"), dir.path().join(".i.azaion-sha1"));
    put(&path, &[7; 5000]);
    let image = Image::open(&path).unwrap();
    let kept = Kept::pending(&Base::read(&image, &(100..4196)).unwrap());
    kept.clone().save(&image).unwrap();
    let bytes = fs::read(&state).unwrap();
    for (place, _) in bytes.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit()) {
        let mut damaged = bytes.clone();
        damaged[place] = if bytes[place] == b'1' { b'2' } else { b'1' };
        put(&state, &damaged);
        assert_eq!(Kept::load(&image), None, "{}", String::from_utf8_lossy(&damaged));
    }
    kept.of_version(1).save(&image).unwrap();
    assert_eq!(Kept::load(&image), None);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Gives a file another name, and puts a symlink to that in its place.
fn link_to_itself(path: &Path) {
    fs::rename(path, path.with_file_name("other")).unwrap();
    std::os::unix::fs::symlink("other", path).unwrap();
}

// Promise: a state that another user may have written is not believed, and neither is one that is not of as many bytes as it
// says: the checksum is right after a run that ends well.
#[test]
fn a_forged_state_is_not_believed() {
    type Give = fn(&Path);
    let cases: [(&str, Give, u64, bool); 9] = [
        // Who owns the file is trusted; this shows that the others are forged well.
        ("the caller's", |_| (), 0, true),
        ("readable by all", |path| set_mode(path, 0o644), 0, true),
        ("of another length", |_| (), 1, false),
        ("of another length, a block more", |_| (), 64, false),
        ("writable by the group", |path| set_mode(path, 0o620), 0, false),
        ("writable by all", |path| set_mode(path, 0o602), 0, false),
        ("with another name", |path| fs::hard_link(path, path.with_file_name("other")).unwrap(), 0, false),
        ("through a symlink", link_to_itself, 0, false),
        ("another user's", |path| std::os::unix::fs::chown(path, Some(65_534), None).unwrap(), 0, false),
    ];
    // Only root may give files away.
    let possible = if nix::unistd::geteuid().is_root() { cases.len() } else { cases.len() - 1 };
    for kind in [Kind::Ext4, Kind::Tar] {
        for (name, give, more, is_believed) in &cases[..possible] {
            let (dir, path) = if kind == Kind::Tar {
                packed("tar --owner=0 --group=0 -cf system.img -C root .")
            } else {
                image(kind)
            };
            write(&path, CONF).unwrap();
            let state = dir.path().join(".system.img.azaion-sha1");
            {
                let image = Image::open(&path).unwrap();
                let kept = Kept::load(&image).unwrap();
                let length = kept.end() + more;
                kept.forged(length).save(&image).unwrap();
            }
            give(&state);
            write(&path, &CONF.replace("first", "second")).unwrap();
            assert_eq!(summed(&path), !is_believed, "{kind}, {name}");
            if !is_believed {
                assert!(state.symlink_metadata().is_ok_and(|state| state.is_file() && state.nlink() == 1), "{name}");
                write(&path, CONF).unwrap();
                assert!(summed(&path), "{kind}, {name}");
            }
        }
    }
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
        let sum = Sum::read(&image).unwrap();
        assert_eq!(sum.as_ref().is_some_and(|sum| !is_known(&image, sum)), is_read, "{name}");
        let checked = check_while(&image, sum.as_ref(), || Ok(()));
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

// Promise: an image is as it was left only if its file and the bytes that change are; of those, no more are read than
// makes sense.
#[test]
fn as_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    let bytes: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251).to_le_bytes()[0]).collect();
    put(&path, &bytes);
    let image = Image::open(&path).unwrap();
    let base = Base::read(&image, &(1000..5096)).unwrap();
    assert_eq!(base.rest, hex(Sha1::new_with_prefix(&bytes[5096..])));
    for (length, is_right, is_current) in [
        ((2 << 20) + 1, true, false),
        (2 << 20, true, true),
        (4096, true, true),
        (4096, false, false),
        (3 << 20, true, false),
        (0, true, true),
    ] {
        let changing = &bytes[1000..(1000 + length).min(bytes.len())];
        let changing = if is_right { hex(Sha1::new_with_prefix(changing)) } else { "0".repeat(40) };
        let kept = Kept::done(&base, &image, sum_of(&path), length as u64, changing).unwrap();
        kept.clone().save(&image).unwrap();
        // Also over a longer one.
        assert_eq!(Kept::load(&image), Some(kept.clone()), "{length}");
        assert_eq!((kept.end(), kept.is_current(&image)), (1000, is_current), "{length}");
        assert!(kept.is_of(&base));
    }
    let kept = Kept::load(&image).unwrap();
    assert!(!kept.is_of(&Base { end: 999, ..base.clone() }));
    assert!(!kept.is_of(&Base { sha1: Sha1::new(), ..base.clone() }));
    assert!(!kept.is_of(&Base { rest: hex(Sha1::new()), ..base.clone() }));
    let pending = Kept::pending(&base);
    assert!(!pending.is_current(&image));
    drop(image);
    change(&path, 0);
    assert!(!kept.is_current(&Image::open(&path).unwrap()));
}

// Promise: what is no small file with one sum is refused, without a hang.
#[test]
fn odd_sums() {
    type Make = fn(&Path);
    let sum = |length: usize| [b"0".repeat(40), b"\n".repeat(length - 40)].concat();
    let odd: [(&str, Make); 3] = [
        ("symlink", |path| std::os::unix::fs::symlink("elsewhere", path).unwrap()),
        ("no small file", |path| fs::create_dir(path).unwrap()),
        ("no small file", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
    ];
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("i"), b"image");
    let image = Image::open(&dir.path().join("i")).unwrap();
    let path = dir.path().join("i.sha1sum");
    for (says, make) in odd {
        make(&path);
        assert!(Sum::read(&image).unwrap_err().to_string().contains(says), "{says}");
        if path.is_dir() { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
    }
    for (bytes, says) in [
        (sum(65_536), None),
        (sum(65_537), Some("no small file")),
        (b"0".repeat(39), Some("holds no sum")),
        (b"0".repeat(41), Some("holds no sum")),
        ([sum(41), sum(40)].concat(), Some("or several")),
        ([b"0".repeat(39), b"\n".to_vec(), sum(40)].concat(), None),
    ] {
        put(&path, &bytes);
        let said = Sum::read(&image).err().map(|error| error.to_string());
        assert!(
            said.as_deref().map_or(says.is_none(), |said| says.is_some_and(|says| said.contains(says))),
            "{said:?}"
        );
    }
}
