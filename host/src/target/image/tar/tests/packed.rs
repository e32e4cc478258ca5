//! A `device.conf` that the image builder packed, or that an earlier version wrote.

use super::*;

// Promise: a packed device.conf is found, and its bytes are erased when another is written or it is cleared.
#[test]
fn a_packed_conf_is_found_and_erased() {
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
        assert!(!fixture.contains("firstpassword"));
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
        fixture.verify_checksum();

        let fixture = with_conf(&[format, "--owner=0", "--group=0", "."]);
        assert!(fixture.open().clear().unwrap());
        assert!(!fixture.contains("firstpassword"));
        assert_eq!((fixture.read_conf(), fixture.unpacked().as_deref()), (None, Some("")));
        fixture.verify_checksum();
    }
}

// Promise: a packed device.conf is restored unchanged; if nothing was written, a restore changes nothing.
#[test]
fn a_packed_conf_is_restored() {
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
    fixture.verify_checksum();
}

// Promise: a packed device.conf is in order only if it and its directory have the required modes and owner.
#[test]
fn a_packed_conf_is_in_order() {
    let root = ["--owner=0", "--group=0"];
    for (directory, file, owner, is_in_order) in [
        (0o755, 0o600, root, true),
        (0o755, 0o640, root, false),
        (0o775, 0o600, root, false),
        (0o755, 0o600, ["--owner=1", "--group=0"], false),
        (0o755, 0o600, ["--owner=0", "--group=1"], false),
    ] {
        let fixture = with_conf(&["."]);
        let mode = |path, mode| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(fixture.root("etc/azaion"), directory);
        mode(fixture.root("etc/azaion/device.conf"), file);
        fixture.pack(&[&owner[..], &["."]].concat());
        let target = fixture.open();
        let found = target.read_conf().unwrap().unwrap();
        assert_eq!(target.is_in_order(&found, Owner::Root).unwrap(), is_in_order, "{directory:o} {file:o} {owner:?}");
    }
}

/// Writes the appendix of an earlier version with this block behind the members.
fn put_earlier_appendix(fixture: &Fixture, block: &[u8]) {
    let mut bytes = fixture.bytes();
    bytes.truncate(end_of(fixture));
    let length = appendix::length(bytes.len() as u64, 0).unwrap();
    bytes.extend_from_slice(&appendix::make(block, true, None, length));
    put(&fixture.image(), &bytes);
    fixture.write_checksum();
}

// Promise: the appendix of an earlier version, which changed archives in place, is found and replaced by a copy with an appendix of
// this version; if a power cut has left only a part of its block, it counts as no device.conf.
#[test]
fn appendices_of_earlier_versions() {
    let block = slot::block_of(CONF.as_bytes()).unwrap();
    let torn = |edge: usize| [&vec![0; edge], &block[edge..]].concat();
    for (block, conf) in [(block.to_vec(), Some(CONF)), (slot::blank(), None), (torn(512), None), (torn(4096), None)] {
        let fixture = Fixture::new(&["."]);
        let end = end_of(&fixture);
        put_earlier_appendix(&fixture, &block);
        let before = fixture.bytes();
        assert_eq!(fixture.read_conf().as_deref(), conf);
        fixture.open().remove_leftovers().unwrap();
        assert!(fixture.bytes() == before);
        fixture.write(OTHER);
        let after = fixture.bytes();
        assert_eq!((after.len(), end_of(&fixture)), (before.len(), end + 5120));
        assert!(after[..end] == before[..end] && !fixture.contains("firstpassword"));
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
        fixture.verify_checksum();
        fixture.pack(&["."]);
        put_earlier_appendix(&fixture, &block);
        assert_eq!(fixture.open().clear().unwrap(), block != slot::blank());
        assert!(!fixture.contains("firstpassword"));
        fixture.verify_checksum();
    }
}

// Promise: `clear` also erases credentials in a packed device.conf that another one overrides.
#[test]
fn overridden_credentials() {
    for last in ["", "# none\n", OTHER] {
        let fixture = with_conf(&["."]);
        put(&fixture.root("etc/azaion/device.conf"), last.as_bytes());
        fixture.run("tar", &["-rf", NAME, "-C", "root", "./etc/azaion/device.conf"]);
        fixture.write_checksum();
        assert!(fixture.contains("firstpassword"));
        assert_eq!(fixture.read_conf().as_deref(), (!last.is_empty()).then_some(last));
        assert!(fixture.open().clear().unwrap());
        assert!(!fixture.contains("firstpassword") && !fixture.contains("second"));
        assert!(!fixture.open().clear().unwrap());
        fixture.verify_checksum();
    }
}
