//! Power cuts, killed runs, and files that others have changed.

use super::*;

/// A run that has nothing to write, and so must leave all in order by what comes before.
fn open_and_tidy(fixture: &Fixture) {
    let target = fixture.open();
    target.may_write(Owner::Root).unwrap();
    target.remove_leftovers().unwrap();
}

/// Everything beside the tree, to be put back.
struct Snapshot {
    image: Vec<u8>,
    sum: Vec<u8>,
    state: Option<Vec<u8>>,
}

impl Snapshot {
    fn of(fixture: &Fixture) -> Self {
        Self {
            image: fixture.bytes(),
            sum: fs::read(fixture.dir.path().join("system.img.sha1sum")).unwrap(),
            state: fs::read(fixture.state()).ok(),
        }
    }

    /// Puts back what lies beside the image.
    fn put_beside(&self, fixture: &Fixture) {
        put(&fixture.dir.path().join("system.img.sha1sum"), &self.sum);
        match &self.state {
            Some(state) => put(&fixture.state(), state),
            None => drop(fs::remove_file(fixture.state())),
        }
    }
}

// Promise: a torn tail of a later device is no device's, and is made whole by the next run, also where its checksum is of before.
#[test]
fn a_torn_later_tail() {
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
            old.put_beside(&fixture);
            if torn != new && torn != old.image {
                assert_eq!(fixture.read_conf(), None);
            }
            open_and_tidy(&fixture);
            fixture.check_sum();
            fixture.write(OTHER);
            assert_eq!(fixture.unpacked().as_deref(), Some(OTHER), "{edge}");
            fixture.check_sum();
        }
    }
}

// Promise: members that somebody added behind a device's are kept if the sum is right, and never taken for the half of
// a tail; with a sum that is not, the archive is refused and left alone.
#[test]
fn members_that_were_added() {
    for is_summed in [true, false] {
        let fixture = Fixture::new(&["."]);
        fixture.write(CONF);
        fs::create_dir(fixture.dir.path().join("more")).unwrap();
        put(&fixture.dir.path().join("more/by-hand"), b"by hand\n");
        let more = fixture.dir.path().join("more");
        let added = Command::new("tar").arg("-rf").arg(fixture.image()).arg("-C").arg(more).arg("./by-hand").status();
        assert!(added.unwrap().success());
        if !is_summed {
            let before = fixture.bytes();
            let refused = open(&fixture.image()).and_then(|target| target.remove_leftovers()).unwrap_err();
            assert_eq!(refused.exit(), Exit::Target);
            assert!(fixture.bytes() == before);
            continue;
        }
        fixture.sum();
        assert_eq!(fixture.read_conf().as_deref(), Some(CONF));
        fixture.write(OTHER);
        fixture.check_sum();
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
        assert!(fixture.holds("by hand") && !fixture.holds("firstpassword"));
    }
}

// Promise: a run that was killed after its write and before the sum is finished by the next one, though that has nothing
// to write.
#[test]
fn a_killed_run_is_finished() {
    for make in [|| Fixture::new(&["."]), || with_conf(&["."])] {
        let fixture = make();
        fixture.write(OTHER);
        let first = Snapshot::of(&fixture);
        fixture.write(CONF);
        first.put_beside(&fixture);
        open_and_tidy(&fixture);
        fixture.check_sum();
        assert_eq!(fixture.read_conf().as_deref(), Some(CONF));
        // Between the state and the sum, the other way round.
        put(&fixture.dir.path().join("system.img.sha1sum"), &first.sum);
        open_and_tidy(&fixture);
        fixture.check_sum();
    }
}

// Promise: state that is lost, damaged, or of another image costs time alone.
#[test]
fn state_is_only_a_hint() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    let good = fs::read(fixture.state()).unwrap();
    for at in (0..good.len()).step_by(11) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        put(&fixture.state(), &bad);
        fixture.write(if at % 2 == 0 { OTHER } else { CONF });
        fixture.check_sum();
    }
    put(&fixture.state(), &good[..good.len() / 2]);
    fixture.write(CONF);
    fixture.check_sum();
    fs::remove_file(fixture.state()).unwrap();
    fixture.write(OTHER);
    fixture.check_sum();
    assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
}

// Promise: another archive in the same place, of the same size, is known to be another; a wrong sum for it is refused.
#[test]
fn another_image_in_its_place() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    put(&fixture.root("usr/bin/tool"), &[9; 10_000]);
    let old_sum = Snapshot::of(&fixture).sum;
    fixture.pack(&["."]);
    assert_eq!(fixture.read_conf(), None);
    let new_sum = Snapshot::of(&fixture).sum;
    put(&fixture.dir.path().join("system.img.sha1sum"), &old_sum);
    let before = fixture.bytes();
    let error =
        fixture.open().remove_leftovers().and_then(|()| fixture.open().write(&SecretString::from(CONF), Owner::Root));
    assert_eq!(error.unwrap_err().exit(), Exit::Target);
    assert!(fixture.bytes() == before);
    put(&fixture.dir.path().join("system.img.sha1sum"), &new_sum);
    fixture.write(OTHER);
    assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
    fixture.check_sum();
}

// Promise: a byte of the base that others have changed is not summed over.
#[test]
fn a_changed_base_is_refused() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    let at = fixture.bytes().windows(7).position(|window| window == b"jetson\n").unwrap();
    let file = File::options().write(true).open(fixture.image()).unwrap();
    file.write_all_at(b"J", u64::try_from(at).unwrap()).unwrap();
    let error = fixture.open().remove_leftovers().unwrap_err();
    assert_eq!(error.exit(), Exit::Target);
    assert!(error.to_string().contains("does not match"), "{error}");
}

// Promise: nothing but the image, its sum and one file of state is left in the folder.
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

// Promise: where nothing is left half done, nothing is written, and no large part of the archive is read.
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
        open_and_tidy(&fixture);
        assert_eq!(files(), before, "{is_written}");
        assert!(bytes_read() - read < 1 << 20, "{is_written}");
    }
}

// Promise: without what was kept, an archive with our tail is believed only if its sum is right.
#[test]
fn a_tail_without_state() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    fs::remove_file(fixture.state()).unwrap();
    open_and_tidy(&fixture);
    fixture.check_sum();
    assert!(fixture.state().exists());
    fs::remove_file(fixture.state()).unwrap();
    put(&fixture.dir.path().join("system.img.sha1sum"), "0".repeat(40).as_bytes());
    assert_eq!(fixture.open().remove_leftovers().unwrap_err().exit(), Exit::Target);
}
