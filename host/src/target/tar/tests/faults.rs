//! Power cuts, killed runs, and files that others have changed.

use super::*;

/// A run that has nothing to write, and so must leave all in order by what comes before.
fn open_and_tidy(fixture: &Fixture) {
    let target = fixture.open();
    target.may_write(Owner::Root).unwrap();
    target.tidy().unwrap();
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

/// The state as it is kept before the first write.
fn keep_pending(fixture: &Fixture) {
    let image = Image::open(&fixture.image()).unwrap();
    let layout = Layout::read(&image).unwrap();
    Base::read(&image, layout.end..u64::MAX, &layout.blanks()).unwrap().keep(&image).unwrap();
}

// Promise: a first tail that a power cut has left half written, whichever half, is made whole by the next run; what is
// unpacked then is what was, the packed device.conf or none.
#[test]
fn a_torn_first_tail() {
    for make in [|| Fixture::new(&["."]), || with_conf(&["."])] {
        let fixture = make();
        let (before, packed) = (Snapshot::of(&fixture), fixture.look());
        keep_pending(&fixture);
        let pending = Snapshot::of(&fixture);
        fixture.write(CONF);
        let after = fixture.bytes();
        let end = usize::try_from(sums_end(&fixture)).unwrap();
        for edge in (end..=after.len()).step_by(512) {
            let mut old = before.image.clone();
            old.resize(after.len(), 0);
            let new_first = [&after[..edge], &old[edge..]].concat();
            let old_first = [&before.image[..end], &old[end..edge], &after[edge..]].concat();
            for torn in [new_first, old_first] {
                // The packed one is made blank after the tail alone.
                let torn = [&before.image[..end], &torn[end..]].concat();
                put(&fixture.image(), &torn);
                pending.put_beside(&fixture);
                open_and_tidy(&fixture);
                fixture.check_sum();
                let in_force = if torn[end..] == after[end..] { Some(CONF) } else { packed.as_deref() };
                assert_eq!(fixture.look().as_deref(), in_force, "{edge}");
                assert_eq!(fixture.unpacked().unwrap_or_default(), in_force.unwrap_or_default(), "{edge}");
                fixture.write(OTHER);
                fixture.check_sum();
                assert_eq!(fixture.unpacked().as_deref(), Some(OTHER), "{edge}");
                assert!(!fixture.holds("firstpassword"), "{edge}");
            }
        }
    }
}

fn sums_end(fixture: &Fixture) -> u64 {
    Kept::load(&Image::open(&fixture.image()).unwrap()).unwrap().end()
}

// Promise: a torn tail of a later device is no device's, and is made whole by the next run, with or without state.
#[test]
fn a_torn_later_tail() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    let old = Snapshot::of(&fixture);
    fixture.write(OTHER);
    let new = fixture.bytes();
    let end = usize::try_from(sums_end(&fixture)).unwrap();
    for edge in (end..new.len()).step_by(512) {
        let first = [&new[..edge], &old.image[edge..]].concat();
        let second = [&old.image[..edge], &new[edge..]].concat();
        for torn in [first, second] {
            put(&fixture.image(), &torn);
            old.put_beside(&fixture);
            if torn != new && torn != old.image {
                assert_eq!(fixture.look(), None);
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
            let refused = open(&fixture.image()).and_then(|target| target.tidy()).unwrap_err();
            assert_eq!(exit_of(&refused), Exit::Target);
            assert!(fixture.bytes() == before);
            continue;
        }
        fixture.sum();
        assert_eq!(fixture.look().as_deref(), Some(CONF));
        fixture.write(OTHER);
        fixture.check_sum();
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
        assert!(fixture.holds("by hand") && !fixture.holds("firstpassword"));
    }
}

// Promise: half a tail that nothing proves to be ours is refused, not guessed at.
#[test]
fn a_torn_tail_without_proof() {
    let fixture = Fixture::new(&["."]);
    let before = fixture.bytes();
    fixture.write(CONF);
    let end = usize::try_from(sums_end(&fixture)).unwrap();
    let after = fixture.bytes();
    let torn = [&before[..end], &[0; 512], &after[end + 512..]].concat();
    put(&fixture.image(), &torn);
    fs::remove_file(fixture.state()).unwrap();
    let error = open(&fixture.image()).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Target);
    assert!(error.to_string().contains("generate the images again"), "{error}");
}

// Promise: a run that was killed after its write and before the sum is finished by the next one, though that has nothing
// to write.
#[test]
fn a_killed_run_is_finished() {
    for make in [|| Fixture::new(&["."]), || with_conf(&["."])] {
        let fixture = make();
        keep_pending(&fixture);
        let pending = Snapshot::of(&fixture);
        fixture.write(OTHER);
        let first = Snapshot::of(&fixture);
        for (beside, conf) in [(&pending, OTHER), (&first, CONF)] {
            fixture.write(conf);
            beside.put_beside(&fixture);
            open_and_tidy(&fixture);
            fixture.check_sum();
            assert_eq!(fixture.look().as_deref(), Some(conf));
        }
        // Between the state and the sum, the other way round.
        put(&fixture.dir.path().join("system.img.sha1sum"), &first.sum);
        open_and_tidy(&fixture);
        fixture.check_sum();
    }
}

// Promise: credentials that were packed go, even if the run that wrote the tail over them was killed.
#[test]
fn a_killed_run_leaves_no_packed_credentials() {
    let fixture = with_conf(&["."]);
    let before = fixture.bytes();
    keep_pending(&fixture);
    let pending = Snapshot::of(&fixture);
    fixture.write(OTHER);
    let end = usize::try_from(sums_end(&fixture)).unwrap();
    put(&fixture.image(), &[&before[..end], &fixture.bytes()[end..]].concat());
    pending.put_beside(&fixture);
    assert!(fixture.holds("firstpassword"));
    open_and_tidy(&fixture);
    assert!(!fixture.holds("firstpassword"));
    fixture.check_sum();
    assert_eq!(fixture.look().as_deref(), Some(OTHER));
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
    assert_eq!(fixture.look(), None);
    let new_sum = Snapshot::of(&fixture).sum;
    put(&fixture.dir.path().join("system.img.sha1sum"), &old_sum);
    let before = fixture.bytes();
    let error = fixture.open().tidy().and_then(|()| fixture.open().write(&SecretString::from(CONF), Owner::Root));
    assert_eq!(exit_of(&error.unwrap_err()), Exit::Target);
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
    let error = fixture.open().tidy().unwrap_err();
    assert_eq!(exit_of(&error), Exit::Target);
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

// Promise: half a first tail is made whole only behind the base that was kept; with any other byte before it, the archive
// is refused and left alone.
#[test]
fn a_torn_first_tail_behind_another_base() {
    let fixture = Fixture::new(&["."]);
    keep_pending(&fixture);
    let pending = Snapshot::of(&fixture);
    fixture.write(CONF);
    let end = usize::try_from(sums_end(&fixture)).unwrap();
    let mut torn = fixture.bytes();
    torn[end..end + 512].fill(0);
    let content = torn.windows(7).position(|window| window == b"jetson\n").unwrap();
    let header = content - 512;
    let cases: [(&str, &[usize]); 4] = [
        ("nothing", &[]),
        ("content", &[content]),
        ("what fills up a block", &[content + 511]),
        ("a header", &[header + 146]),
    ];
    for (name, changed) in cases {
        let mut bytes = torn.clone();
        for &at in changed {
            bytes[at] ^= 1;
        }
        if name == "a header" {
            let mut right = ::tar::Header::from_byte_slice(&bytes[header..content]).clone();
            right.set_cksum();
            bytes[header..content].copy_from_slice(right.as_bytes());
        }
        put(&fixture.image(), &bytes);
        pending.put_beside(&fixture);
        let opened = open(&fixture.image()).map(drop).map_err(|error| exit_of(&error));
        assert_eq!(opened, if changed.is_empty() { Ok(()) } else { Err(Exit::Target) }, "{name}");
        assert!(fixture.bytes() == bytes, "{name}");
    }
}

fn target(fixture: &Fixture) -> TarImage {
    TarImage::new(Image::open(&fixture.image()).unwrap()).unwrap()
}

// Promise: the base is kept before anything is changed; what is known of an archive as it was left stays until then.
#[test]
fn the_base_is_kept_first() {
    let fixture = Fixture::new(&["."]);
    let before = fixture.bytes();
    let first = target(&fixture);
    let base = first.base().unwrap();
    assert!(Kept::load(&first.image).unwrap().is_of(&base));
    assert!(fixture.bytes() == before);
    drop(first);
    fixture.write(CONF);
    let left = Snapshot::of(&fixture).state;
    target(&fixture).base().unwrap();
    assert_eq!(Snapshot::of(&fixture).state, left);
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
    assert_eq!(exit_of(&fixture.open().tidy().unwrap_err()), Exit::Target);
}

// Promise: room for the tail is made first, and only room: what the archive holds stays.
#[test]
fn room_is_made_first() {
    let fixture = Fixture::new(&["."]);
    let mut wanted = fixture.bytes();
    let size = wanted.len();
    for more in [0, 1, 10_240] {
        let (from, to) = (wanted.len(), size + more);
        target(&fixture).grow(from as u64, to as u64).unwrap();
        wanted.resize(to, 0);
        assert!(fixture.bytes() == wanted, "{more}");
        assert_eq!(target(&fixture).size().unwrap(), to as u64);
    }
}
