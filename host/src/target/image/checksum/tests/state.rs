//! What is believed of a checksum state.

use azaion_agent::common::exit::Exit;

use super::*;

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
    assert_eq!(begin_at(place).unwrap_err().exit(), Exit::Target);
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

// Promise: a state that another user may have written is not believed, and neither is one that is not of as many bytes as it
// says: the checksum is right after a run that ends well.
#[test]
fn a_forged_state_is_not_believed() {
    type Give = fn(&Path);
    let cases: [(&str, Give, u64, bool); 9] = [
        // IdentitySource owns the file is trusted; this shows that the others are forged well.
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
