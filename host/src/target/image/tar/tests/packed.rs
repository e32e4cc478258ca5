//! A `device.conf` that was packed with the rest, or written by an earlier version.

use super::*;

// Promise: a device.conf that was packed with the rest is found, and its bytes are gone once another is written or it
// is cleared.
#[test]
fn a_packed_conf_is_found_and_taken_out() {
    for format in ["--format=gnu", "--format=posix"] {
        let fixture = with_conf(&[format, "--owner=0", "--group=0", "."]);
        let before = fixture.bytes();
        let target = fixture.open();
        let found = target.read_conf().unwrap().unwrap();
        assert_eq!((found.bytes.as_slice(), found.mode), (CONF.as_bytes(), 0o640));
        assert!(!target.is_in_order(&found, Owner::Root).unwrap());
        drop(target);
        assert_eq!(fixture.bytes(), before);
        fixture.write(OTHER);
        assert!(!fixture.holds("firstpassword"));
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
        fixture.check_sum();

        let fixture = with_conf(&[format, "--owner=0", "--group=0", "."]);
        assert!(fixture.open().clear().unwrap());
        assert!(!fixture.holds("firstpassword"));
        assert_eq!((fixture.read_conf(), fixture.unpacked().as_deref()), (None, Some("")));
        fixture.check_sum();
    }
}

// Promise: a packed device.conf that a restore puts back is the same again; where nothing was written, nothing is put back.
#[test]
fn a_packed_conf_is_put_back() {
    let fixture = with_conf(&["."]);
    let archive = fixture.bytes();
    let target = fixture.open();
    let before = target.read_conf().unwrap();
    target.restore(before.as_ref()).unwrap();
    assert!(fixture.bytes() == archive);
    target.write(&SecretString::from(OTHER), Owner::Root).unwrap();
    target.restore(before.as_ref()).unwrap();
    drop(target);
    assert_eq!((fixture.read_conf().as_deref(), fixture.unpacked().as_deref()), (Some(CONF), Some(CONF)));
    fixture.check_sum();
}

// Promise: a packed device.conf is in order only if it and its folder have the modes and the owner that ours have.
#[test]
fn a_packed_conf_is_in_order() {
    let root = ["--owner=0", "--group=0"];
    for (folder, file, owner, is_in_order) in [
        (0o755, 0o600, root, true),
        (0o755, 0o640, root, false),
        (0o775, 0o600, root, false),
        (0o755, 0o600, ["--owner=1", "--group=0"], false),
        (0o755, 0o600, ["--owner=0", "--group=1"], false),
    ] {
        let fixture = with_conf(&["."]);
        let mode = |path, mode| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(fixture.root("etc/azaion"), folder);
        mode(fixture.root("etc/azaion/device.conf"), file);
        fixture.pack(&[&owner[..], &["."]].concat());
        let target = fixture.open();
        let found = target.read_conf().unwrap().unwrap();
        assert_eq!(target.is_in_order(&found, Owner::Root).unwrap(), is_in_order, "{folder:o} {file:o} {owner:?}");
    }
}

/// Puts the tail of an earlier version with this block behind the members.
fn put_earlier_tail(fixture: &Fixture, block: &[u8]) {
    let mut bytes = fixture.bytes();
    bytes.truncate(end_of(fixture));
    let length = tail::length(bytes.len() as u64, 0).unwrap();
    bytes.extend_from_slice(&tail::make(block, true, None, length));
    put(&fixture.image(), &bytes);
    fixture.sum();
}

// Promise: what a version wrote that changed archives in place is found, gives way to a tail of this version in a copy, and is
// no device's if a power cut has left a part of it.
#[test]
fn tails_of_earlier_versions() {
    let block = slot::block_of(CONF.as_bytes()).unwrap();
    let torn = |edge: usize| [&vec![0; edge], &block[edge..]].concat();
    for (block, conf) in [(block.to_vec(), Some(CONF)), (slot::blank(), None), (torn(512), None), (torn(4096), None)] {
        let fixture = Fixture::new(&["."]);
        let end = end_of(&fixture);
        put_earlier_tail(&fixture, &block);
        let before = fixture.bytes();
        assert_eq!(fixture.read_conf().as_deref(), conf);
        fixture.open().remove_leftovers().unwrap();
        assert!(fixture.bytes() == before);
        fixture.write(OTHER);
        let after = fixture.bytes();
        assert_eq!((after.len(), end_of(&fixture)), (before.len(), end + 5120));
        assert!(after[..end] == before[..end] && !fixture.holds("firstpassword"));
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
        fixture.check_sum();
        fixture.pack(&["."]);
        put_earlier_tail(&fixture, &block);
        assert_eq!(fixture.open().clear().unwrap(), block != slot::blank());
        assert!(!fixture.holds("firstpassword"));
        fixture.check_sum();
    }
}

// Promise: credentials in a packed device.conf that another one overrides are taken out by `clear`, too.
#[test]
fn overridden_credentials() {
    for last in ["", "# none\n", OTHER] {
        let fixture = with_conf(&["."]);
        put(&fixture.root("etc/azaion/device.conf"), last.as_bytes());
        fixture.run("tar", &["-rf", NAME, "-C", "root", "./etc/azaion/device.conf"]);
        fixture.sum();
        assert!(fixture.holds("firstpassword"));
        assert_eq!(fixture.read_conf().as_deref(), (!last.is_empty()).then_some(last));
        assert!(fixture.open().clear().unwrap());
        assert!(!fixture.holds("firstpassword") && !fixture.holds("second"));
        assert!(!fixture.open().clear().unwrap());
        fixture.check_sum();
    }
}
