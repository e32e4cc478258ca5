//! Power cuts, killed runs, and changes by others.

use super::*;

/// Runs the steps before a write. A run that has nothing to write must finish a killed run by these alone.
fn open_and_remove_leftovers(fixture: &Fixture) {
    let target = fixture.open();
    target.may_write(Owner::Root).unwrap();
    target.remove_leftovers().unwrap();
}

/// The image, its checksum file and its checksum state, to be restored.
struct Snapshot {
    image: Vec<u8>,
    checksum: Vec<u8>,
    state: Option<Vec<u8>>,
}

impl Snapshot {
    fn of(fixture: &Fixture) -> Self {
        Self {
            image: fixture.bytes(),
            checksum: fs::read(fixture.dir.path().join("system.img.sha1sum")).unwrap(),
            state: fs::read(fixture.state()).ok(),
        }
    }

    /// Restores the checksum file and the checksum state.
    fn restore_checksum(&self, fixture: &Fixture) {
        put(&fixture.dir.path().join("system.img.sha1sum"), &self.checksum);
        match &self.state {
            Some(state) => put(&fixture.state(), state),
            None => drop(fs::remove_file(fixture.state())),
        }
    }
}

// Promise: a half-written block of a later device counts as no device.conf, and the next run completes it, also if the checksum is
// that of the earlier device.
#[test]
fn a_half_written_later_block() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    let old = Snapshot::of(&fixture);
    fixture.write(OTHER);
    let new = fixture.bytes();
    for edge in (end_of(&fixture) - slot::SIZE..new.len()).step_by(512) {
        let first = [&new[..edge], &old.image[edge..]].concat();
        let second = [&old.image[..edge], &new[edge..]].concat();
        for torn in [first, second] {
            put(&fixture.image(), &torn);
            old.restore_checksum(&fixture);
            if torn != new && torn != old.image {
                assert_eq!(fixture.read_conf(), None);
            }
            open_and_remove_leftovers(&fixture);
            fixture.verify_checksum();
            fixture.write(OTHER);
            assert_eq!(fixture.unpacked().as_deref(), Some(OTHER), "{edge}");
            fixture.verify_checksum();
        }
    }
}

// Promise: members that were added behind an appendix are kept if the checksum is right, and never mistaken for a half-written
// appendix; with a wrong checksum the archive is refused and stays unchanged.
#[test]
fn added_members() {
    for has_right_checksum in [true, false] {
        let fixture = Fixture::new(&["."]);
        fixture.write(CONF);
        fs::create_dir(fixture.dir.path().join("more")).unwrap();
        put(&fixture.dir.path().join("more/by-hand"), b"by hand\n");
        let more = fixture.dir.path().join("more");
        let added = Command::new("tar").arg("-rf").arg(fixture.image()).arg("-C").arg(more).arg("./by-hand").status();
        assert!(added.unwrap().success());
        if !has_right_checksum {
            let before = fixture.bytes();
            let refused = open(&fixture.image()).and_then(|target| target.remove_leftovers()).unwrap_err();
            assert_eq!(refused.exit(), Exit::Target);
            assert!(fixture.bytes() == before);
            continue;
        }
        fixture.write_checksum();
        assert_eq!(fixture.read_conf().as_deref(), Some(CONF));
        fixture.write(OTHER);
        fixture.verify_checksum();
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
        assert!(fixture.contains("by hand") && !fixture.contains("firstpassword"));
    }
}

// Promise: the next run finishes a run that was killed after its write and before the checksum, even if it has nothing to write.
#[test]
fn a_killed_run_is_finished() {
    for make in [|| Fixture::new(&["."]), || with_conf(&["."])] {
        let fixture = make();
        fixture.write(OTHER);
        let first = Snapshot::of(&fixture);
        fixture.write(CONF);
        first.restore_checksum(&fixture);
        open_and_remove_leftovers(&fixture);
        fixture.verify_checksum();
        assert_eq!(fixture.read_conf().as_deref(), Some(CONF));
        // Killed between checksum state and checksum file.
        put(&fixture.dir.path().join("system.img.sha1sum"), &first.checksum);
        open_and_remove_leftovers(&fixture);
        fixture.verify_checksum();
    }
}

// Promise: a checksum state that is lost, damaged, or of another image only costs time.
#[test]
fn state_is_only_a_hint() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    let good = fs::read(fixture.state()).unwrap();
    for offset in (0..good.len()).step_by(11) {
        let mut bad = good.clone();
        bad[offset] ^= 1;
        put(&fixture.state(), &bad);
        fixture.write(if offset % 2 == 0 { OTHER } else { CONF });
        fixture.verify_checksum();
    }
    put(&fixture.state(), &good[..good.len() / 2]);
    fixture.write(CONF);
    fixture.verify_checksum();
    fs::remove_file(fixture.state()).unwrap();
    fixture.write(OTHER);
    fixture.verify_checksum();
    assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
}

// Promise: another archive of the same size at the same path is recognized as another; with a wrong checksum it is refused.
#[test]
fn another_image_at_the_same_path() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    put(&fixture.root("usr/bin/tool"), &[9; 10_000]);
    let old_checksum = Snapshot::of(&fixture).checksum;
    fixture.pack(&["."]);
    assert_eq!(fixture.read_conf(), None);
    let new_checksum = Snapshot::of(&fixture).checksum;
    put(&fixture.dir.path().join("system.img.sha1sum"), &old_checksum);
    let before = fixture.bytes();
    let error =
        fixture.open().remove_leftovers().and_then(|()| fixture.open().write(&SecretString::from(CONF), Owner::Root));
    assert_eq!(error.unwrap_err().exit(), Exit::Target);
    assert!(fixture.bytes() == before);
    put(&fixture.dir.path().join("system.img.sha1sum"), &new_checksum);
    fixture.write(OTHER);
    assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
    fixture.verify_checksum();
}

// Promise: if others have changed a byte of the prefix, the archive is refused, and no checksum is computed over the change.
#[test]
fn a_changed_prefix_is_refused() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    let at = fixture.bytes().windows(7).position(|window| window == b"jetson\n").unwrap();
    let file = File::options().write(true).open(fixture.image()).unwrap();
    file.write_all_at(b"J", u64::try_from(at).unwrap()).unwrap();
    let error = fixture.open().remove_leftovers().unwrap_err();
    assert_eq!(error.exit(), Exit::Target);
    assert!(error.to_string().contains("does not match"), "{error}");
}

// Promise: only the image, its checksum file and its checksum state are left in the directory.
#[test]
fn nothing_else_is_left() {
    let fixture = Fixture::new(&["."]);
    put(&fixture.dir.path().join("..system.img.azaion-sha1.new"), b"x");
    fixture.write(CONF);
    let mut names: Vec<_> =
        fs::read_dir(&fixture.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [".system.img.azaion-sha1", "root", "system.img", "system.img.sha1sum"]);
    assert_eq!(fixture.state().metadata().unwrap().mode() & 0o7777, 0o600);
}

// Promise: if there is nothing to finish, nothing is written, and no large part of the archive is read.
#[test]
fn nothing_to_finish() {
    let fixture = Fixture::tree();
    put(&fixture.root("usr/large"), &vec![3; 4 << 20]);
    fixture.pack(&["."]);
    let files = || {
        let paths = [fixture.image(), fixture.dir.path().join("system.img.sha1sum"), fixture.state()];
        paths.map(|path| path.metadata().ok().map(|file| (file.ino(), file.mtime(), file.len())))
    };
    for is_written in [false, true] {
        if is_written {
            fixture.write(CONF);
            let long_ago = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            File::options().write(true).open(fixture.state()).unwrap().set_times(long_ago).unwrap();
        }
        let (before, read) = (files(), bytes_read());
        open_and_remove_leftovers(&fixture);
        assert_eq!(files(), before, "{is_written}");
        assert!(bytes_read() - read < 1 << 20, "{is_written}");
    }
}

// Promise: without a checksum state, an archive with an appendix is trusted only if its checksum is right.
#[test]
fn an_appendix_without_a_state() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    fs::remove_file(fixture.state()).unwrap();
    open_and_remove_leftovers(&fixture);
    fixture.verify_checksum();
    assert!(fixture.state().exists());
    fs::remove_file(fixture.state()).unwrap();
    put(&fixture.dir.path().join("system.img.sha1sum"), "0".repeat(40).as_bytes());
    assert_eq!(fixture.open().remove_leftovers().unwrap_err().exit(), Exit::Target);
}
