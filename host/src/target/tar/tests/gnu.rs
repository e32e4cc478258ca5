//! What this walk and GNU tar make of the same odd archive.

use super::*;

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Changes a header in one place, checksum and all.
fn change(header: &mut [u8], dice: &mut Dice) {
    const KINDS: &[u8] = b"01234567xgLKSDMVN\0A";
    const NAMES: [&[u8]; 5] =
        [b"etc\0", b"./etc/azaion\0", b"etc/azaion/device.conf\0", b"/etc//azaion/./device.conf\0", b"etc/\0"];
    match dice.below(5) {
        0 => header[156] = KINDS[dice.below(KINDS.len())],
        1 => {
            let size = format!("{:011o}\0", [0, 1, 511, 512, 513, 4096, 5000][dice.below(7)]);
            header[124..136].copy_from_slice(size.as_bytes());
        }
        2 => header[dice.below(512)] = u8::try_from(dice.below(256)).unwrap(),
        3 => header[124 + dice.below(12)] = u8::try_from(dice.below(256)).unwrap(),
        _ => {
            let (name, at) = (NAMES[dice.below(NAMES.len())], [0, 157][dice.below(2)]);
            header[at..at + name.len()].copy_from_slice(name);
        }
    }
    let mut right = ::tar::Header::from_byte_slice(header).clone();
    right.set_cksum();
    header.copy_from_slice(right.as_bytes());
}

// Promise: of whatever archive is not refused, GNU tar unpacks our file last.
#[test]
fn gnu_tar_agrees() {
    let mut dice = Dice(77);
    let mut accepted = 0;
    for format in ["--format=gnu", "--format=posix"] {
        let fixture = Fixture::tree();
        let long = "l".repeat(200);
        fs::create_dir_all(fixture.root(&format!("usr/{long}"))).unwrap();
        fs::create_dir(fixture.root("etc/azaion")).unwrap();
        let sparse = File::create(fixture.root("usr/sparse")).unwrap();
        (0..10).for_each(|at| sparse.write_all_at(b"data", at * 100_000).unwrap());
        fixture.pack(&["--sparse", format, "."]);
        fs::remove_file(fixture.dir.path().join("system.img.sha1sum")).unwrap();
        let whole = fixture.bytes();
        let is_header = |at: &usize| whole[at + 257..].starts_with(b"ustar");
        let headers: Vec<usize> = (0..whole.len()).step_by(512).filter(is_header).collect();
        for _ in 0..120 {
            let mut bytes = whole.clone();
            for _ in 0..=dice.below(2) {
                let at = headers[dice.below(headers.len())];
                change(&mut bytes[at..at + 512], &mut dice);
            }
            put(&fixture.image(), &bytes);
            let Ok(target) = open(&fixture.image()) else { continue };
            if target.look().is_err() {
                continue;
            }
            target.write(&SecretString::from(CONF), Owner::Root).unwrap();
            drop(target);
            accepted += 1;
            assert_unpacks_last(&fixture);
        }
    }
    assert!(accepted > 20, "{accepted}");
}

fn assert_unpacks_last(fixture: &Fixture) {
    let out = fixture.dir.path().join("out");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).unwrap();
    // It may complain of what was changed.
    let unpack = ["--numeric-owner", "--xattrs", "-xpf", NAME, "-C", "out"];
    Command::new("tar").args(unpack).current_dir(&fixture.dir).output().unwrap();
    let file = out.join("etc/azaion/device.conf");
    assert!(fs::read_to_string(&file).unwrap().contains(CONF));
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
}

/// A header and the content of a member, as many blocks as it takes.
fn member(kind: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.as_old_mut().name.iter_mut().zip(name).for_each(|(there, &byte)| *there = byte);
    header.set_entry_type(::tar::EntryType::new(kind));
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1 << 30);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut blocks = [header.as_bytes(), content].concat();
    blocks.resize(blocks.len().next_multiple_of(512), 0);
    blocks
}

/// The file that is packed under whatever name.
fn file(name: &[u8]) -> Vec<u8> {
    member(b'0', name, CONF.as_bytes())
}

/// A member of which bytes of the header are others.
fn changed(mut member: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    member[at..at + bytes.len()].copy_from_slice(bytes);
    let mut right = ::tar::Header::from_byte_slice(&member[..512]).clone();
    right.set_cksum();
    member[..512].copy_from_slice(right.as_bytes());
    member
}

fn pax(records: &[Vec<u8>]) -> Vec<u8> {
    member(b'x', b"PaxHeaders/x", &records.concat())
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let text = [b" ", key, b"=", value, b"\n"].concat();
    let length =
        (1..9).map(|digits| digits + text.len()).find(|length| length.to_string().len() + text.len() == *length);
    [length.unwrap().to_string().as_bytes(), &text].concat()
}

/// A record of a `path`, with something in the place of its length.
fn path_with_length(length: impl Fn(usize) -> String) -> Vec<u8> {
    let text = b" path=usr/other\n";
    let digits = length(text.len() + 2);
    [length(text.len() + digits.len()).as_bytes(), text].concat()
}

const OURS: &[u8] = b"etc/azaion/device.conf";
const ELSEWHERE: &[u8] = b"usr/other";

/// An archive with these blocks among its members.
fn archive_with(blocks: &[u8]) -> Fixture {
    let fixture = Fixture::tree();
    let start = [member(b'5', b"etc/", b""), member(b'0', b"etc/hostname", b"jetson\n")].concat();
    let mut bytes = [&start, blocks].concat();
    bytes.resize((bytes.len() + 1024).next_multiple_of(10_240), 0);
    put(&fixture.image(), &bytes);
    fixture.sum();
    fixture
}

// Promise: a name that says two things is refused; of any other, this walk takes what GNU tar takes.
#[test]
fn names_that_say_two_things() {
    let path = |value: &[u8]| pax(&[record(b"path", value)]);
    let long = |kind, name: &[u8]| member(kind, b"././@LongLink", name);
    let with_nul = [OURS, b"\0x"].concat();
    let ours_ended = [OURS, b"\0"].concat();
    let elsewhere_ended = [ELSEWHERE, b"\0"].concat();
    let hard_link = |link: &[u8]| changed(member(b'1', b"usr/link", b""), 157, link);
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("a pax path", [path(OURS), file(ELSEWHERE)].concat(), true),
        ("a pax path for another", [path(ELSEWHERE), file(OURS)].concat(), true),
        ("a pax path, NUL", [path(&with_nul), file(ELSEWHERE)].concat(), false),
        ("a pax path for another, NUL", [path(b"usr/other\0x"), file(OURS)].concat(), false),
        ("an empty pax path", [path(b""), file(OURS)].concat(), false),
        ("a pax path that starts with a NUL", [path(b"\0usr/other"), file(OURS)].concat(), false),
        ("two pax paths", [pax(&[record(b"path", ELSEWHERE), record(b"path", OURS)]), file(ELSEWHERE)].concat(), true),
        ("two pax paths, one empty", [pax(&[record(b"path", OURS), record(b"path", b"")]), file(OURS)].concat(), false),
        ("two pax headers", [path(OURS), pax(&[record(b"comment", b"x")]), file(ELSEWHERE)].concat(), false),
        ("a path of no UTF-8", [path(b"usr/\xff\xfe"), file(OURS)].concat(), true),
        ("a path with a newline", [path(b"usr/a\n12 path=etc\n"), file(OURS)].concat(), true),
        ("a NUL in a key", [pax(&[record(b"pa\0th", ELSEWHERE)]), file(OURS)].concat(), false),
        ("a NUL behind a key", [pax(&[record(b"path\0", ELSEWHERE)]), file(OURS)].concat(), false),
        ("a global path", [member(b'g', b"g", &record(b"path", ELSEWHERE)), file(OURS)].concat(), false),
        ("a zero before a length", [pax(&[path_with_length(|n| format!("0{n}"))]), file(OURS)].concat(), true),
        ("a newline in a length", [pax(&[path_with_length(|n| format!("{n}\n"))]), file(OURS)].concat(), false),
        ("a newline before a length", [pax(&[path_with_length(|n| format!("\n{n}"))]), file(OURS)].concat(), false),
        ("a sign before a length", [pax(&[path_with_length(|n| format!("+{n}"))]), file(OURS)].concat(), false),
        ("a NUL before a length", [pax(&[path_with_length(|n| format!("\0{n}"))]), file(OURS)].concat(), false),
        ("a NUL behind a record", [pax(&[record(b"path", OURS), b"\0".to_vec()]), file(ELSEWHERE)].concat(), false),
        ("a sign before a number", [pax(&[record(b"size", b"+1")]), file(OURS)].concat(), false),
        ("a NUL in a number", [pax(&[record(b"size", b"4\x000")]), file(OURS)].concat(), false),
        ("a long name", [long(b'L', &ours_ended), file(ELSEWHERE)].concat(), true),
        ("a long name for another", [long(b'L', &elsewhere_ended), file(OURS)].concat(), true),
        ("a long name without an end", [long(b'L', OURS), file(ELSEWHERE)].concat(), true),
        ("a long name, NUL", [long(b'L', &with_nul), file(ELSEWHERE)].concat(), false),
        ("an empty long name", [long(b'L', b"\0"), file(OURS)].concat(), false),
        ("a long name of no bytes", [long(b'L', b""), file(OURS)].concat(), false),
        ("two long names", [long(b'L', &ours_ended), long(b'L', &elsewhere_ended), file(OURS)].concat(), false),
        ("a long name behind a pax path", [path(OURS), long(b'L', &elsewhere_ended), file(OURS)].concat(), false),
        ("a long name before a pax path", [long(b'L', &ours_ended), path(ELSEWHERE), file(OURS)].concat(), false),
        ("no name", file(b""), false),
        ("a name as of a directory", file(b"etc/azaion/device.conf/"), false),
        ("a name as of this directory", file(b"etc/azaion/device.conf/."), false),
        ("a size in base 64", changed(file(OURS), 124, b"+AAAAAAAAAB\0"), false),
        ("a size with a sign", changed(file(OURS), 124, b"+0000000200\0"), false),
        ("a link to ours", [file(OURS), hard_link(OURS)].concat(), false),
        ("a pax link", [file(OURS), pax(&[record(b"linkpath", OURS)]), hard_link(b"usr")].concat(), false),
        ("a pax link, NUL", [file(OURS), pax(&[record(b"linkpath", &with_nul)]), hard_link(b"usr")].concat(), false),
        ("an empty pax link", [file(OURS), pax(&[record(b"linkpath", b"")]), hard_link(OURS)].concat(), false),
        ("a long link", [file(OURS), long(b'K', &ours_ended), hard_link(b"usr")].concat(), false),
        ("a long link, NUL", [file(OURS), long(b'K', &with_nul), hard_link(b"usr")].concat(), false),
    ];
    for (name, blocks, is_taken) in cases {
        let fixture = archive_with(&blocks);
        let said = fixture.open().look();
        if !is_taken {
            assert_eq!(said.map(drop).map_err(|error| error.exit()), Err(Exit::Target), "{name}");
            let before = fixture.bytes();
            let written = fixture.open().write(&SecretString::from(OTHER), Owner::Root);
            assert!(written.is_err() && fixture.open().clear().is_err() && fixture.bytes() == before, "{name}");
            continue;
        }
        let said = said.unwrap().map(|found| String::from_utf8(found.bytes.to_vec()).unwrap());
        assert_eq!(said, fixture.unpacked(), "{name}");
        if said.is_some() {
            let cleared = archive_with(&blocks);
            assert!(cleared.open().clear().unwrap() && !cleared.holds("firstpassword"), "{name}");
        }
        fixture.write(OTHER);
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER), "{name}");
    }
}

// Promise: the map of a sparse file goes on where GNU tar says so: a flag that it takes for a yes, and others for a no, is refused.
#[test]
fn odd_maps_of_sparse_files() {
    for (flag, is_good) in [(0, true), (2, false), (b'1', false)] {
        let sparse = changed(changed(member(b'S', ELSEWHERE, b""), 257, b"ustar  \0"), 482, &[flag]);
        assert_eq!(archive_with(&sparse).open().look().is_ok(), is_good, "{flag}");
    }
}
