//! Tests of the checksum state: when it is trusted, and when the image is read again.

use azaion_agent::common::exit::Exit;

use super::*;

// Promise: hashing continues from a saved state as if the prefix had been read.
#[test]
fn hashing_continues_from_a_saved_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    put(&path, &bytes);
    let image = Image::open(&path).unwrap();
    for end in [0, 1, 63, 64, 65, 512, 1_048_577, 3_000_000] {
        Prefix::read(&image, &(end..u64::MAX)).unwrap().save(&image).unwrap();
        let state_read = ChecksumState::load(&image).unwrap();
        let mut sha1 = state_read.prefix().unwrap().sha1;
        sha1.update(&bytes[usize::try_from(end).unwrap()..]);
        assert_eq!(hex(sha1), sum_of(&path), "{end}");
        assert!(!state_read.is_current(&image));
    }
}

// Promise: a state is trusted only for the unchanged image and for the offset of its slot; otherwise all of the image is read, and
// must match its checksum.
#[test]
fn a_state_is_trusted_only_for_its_image() {
    let (dir, path) = image(Kind::Ext4);
    let (checksum, state) = (dir.path().join("system.img.sha1sum"), dir.path().join(".system.img.azaion-sha1"));
    write(&path, CONF).unwrap();
    let slot_offset = ChecksumState::load(&Image::open(&path).unwrap()).unwrap().prefix_end();
    let left = [&path, &checksum, &state].map(|path| fs::read(path).unwrap());
    let begin_at = |end: u64| begin(&Image::open(&path).unwrap(), end);
    for end in [slot_offset, slot_offset - 4096, slot_offset + 4096] {
        let prefix = begin_at(end).unwrap().unwrap().0;
        let bytes = &left[0][..usize::try_from(end).unwrap()];
        assert_eq!((prefix.end, hex(prefix.sha1)), (end, hex(Sha1::new_with_prefix(bytes))));
        put(&state, &left[2]);
    }
    change(&path, 100);
    assert_eq!(begin_at(slot_offset).unwrap_err().exit(), Exit::Target);
    assert_eq!([&checksum, &state].map(|path| fs::read(path).unwrap()), [left[1].as_slice(), &left[2]]);
    put(&checksum, sum_of(&path).as_bytes());
    let bytes = &fs::read(&path).unwrap()[..usize::try_from(slot_offset).unwrap()];
    assert_eq!(hex(begin_at(slot_offset).unwrap().unwrap().0.sha1), hex(Sha1::new_with_prefix(bytes)));
    fs::remove_file(&checksum).unwrap();
    assert!(begin_at(slot_offset).unwrap().is_none());
}

// Promise: a state with one changed digit, or of another version, is ignored.
#[test]
fn a_damaged_state_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (path, state) = (dir.path().join("i"), dir.path().join(".i.azaion-sha1"));
    put(&path, &[7; 5000]);
    let image = Image::open(&path).unwrap();
    let state_read = ChecksumState::pending(&Prefix::read(&image, &(100..4196)).unwrap());
    state_read.clone().save(&image).unwrap();
    let bytes = fs::read(&state).unwrap();
    for (offset, _) in bytes.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit()) {
        let mut damaged = bytes.clone();
        damaged[offset] = if bytes[offset] == b'1' { b'2' } else { b'1' };
        put(&state, &damaged);
        assert_eq!(ChecksumState::load(&image), None, "{}", String::from_utf8_lossy(&damaged));
    }
    state_read.of_version(1).save(&image).unwrap();
    assert_eq!(ChecksumState::load(&image), None);
}

// Promise: a state that another user may have written is not trusted, and neither is one whose SHA-1 state is of another length
// than it says: after a successful run the checksum is right.
#[test]
fn a_forged_state_is_not_trusted() {
    type Give = fn(&Path);
    let cases: [(&str, Give, u64, bool); 9] = [
        // The owner of the file is trusted; this case shows that the forged states of the others would be used.
        ("the caller's", |_| (), 0, true),
        ("readable by all", |path| set_mode(path, 0o644), 0, true),
        ("of another length", |_| (), 1, false),
        ("of another length, a block more", |_| (), 64, false),
        ("writable by the group", |path| set_mode(path, 0o620), 0, false),
        ("writable by all", |path| set_mode(path, 0o602), 0, false),
        ("with another name", |path| fs::hard_link(path, path.with_file_name("other")).unwrap(), 0, false),
        ("through a symlink", replace_by_symlink, 0, false),
        ("another user's", |path| std::os::unix::fs::chown(path, Some(65_534), None).unwrap(), 0, false),
    ];
    // Only root may give files away.
    let possible = if nix::unistd::geteuid().is_root() { cases.len() } else { cases.len() - 1 };
    for kind in [Kind::Ext4, Kind::Tar] {
        for (name, give, more, is_trusted) in &cases[..possible] {
            let (dir, path) = if kind == Kind::Tar {
                packed("tar --owner=0 --group=0 -cf system.img -C root .")
            } else {
                image(kind)
            };
            write(&path, CONF).unwrap();
            let state = dir.path().join(".system.img.azaion-sha1");
            {
                let image = Image::open(&path).unwrap();
                let state_read = ChecksumState::load(&image).unwrap();
                let length = state_read.prefix_end() + more;
                state_read.forged(length).save(&image).unwrap();
            }
            give(&state);
            write(&path, &CONF.replace("first", "second")).unwrap();
            assert_eq!(summed(&path), !is_trusted, "{kind}, {name}");
            if !is_trusted {
                assert!(state.symlink_metadata().is_ok_and(|state| state.is_file() && state.nlink() == 1), "{name}");
                write(&path, CONF).unwrap();
                assert!(summed(&path), "{kind}, {name}");
            }
        }
    }
}

// Promise: a state is current only if the identity of the image and the bytes that change match; a state with too many changing
// bytes is not current, and they are not read.
#[test]
fn a_state_is_current_for_the_unchanged_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    let bytes: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251).to_le_bytes()[0]).collect();
    put(&path, &bytes);
    let image = Image::open(&path).unwrap();
    let prefix = Prefix::read(&image, &(1000..5096)).unwrap();
    assert_eq!(prefix.rest, hex(Sha1::new_with_prefix(&bytes[5096..])));
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
        let state_read = ChecksumState::complete(&prefix, &image, sum_of(&path), length as u64, changing).unwrap();
        state_read.clone().save(&image).unwrap();
        // Also when it overwrites a longer file.
        assert_eq!(ChecksumState::load(&image), Some(state_read.clone()), "{length}");
        assert_eq!((state_read.prefix_end(), state_read.is_current(&image)), (1000, is_current), "{length}");
        assert!(state_read.has_prefix(&prefix));
    }
    let state_read = ChecksumState::load(&image).unwrap();
    assert!(!state_read.has_prefix(&Prefix { end: 999, ..prefix.clone() }));
    assert!(!state_read.has_prefix(&Prefix { sha1: Sha1::new(), ..prefix.clone() }));
    assert!(!state_read.has_prefix(&Prefix { rest: hex(Sha1::new()), ..prefix.clone() }));
    let pending = ChecksumState::pending(&prefix);
    assert!(!pending.is_current(&image));
    drop(image);
    change(&path, 0);
    assert!(!state_read.is_current(&Image::open(&path).unwrap()));
}
