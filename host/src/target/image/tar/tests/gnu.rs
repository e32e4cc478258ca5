//! Comparison of this walk with GNU tar on the same unusual archives.

use super::*;

/// A generator of pseudorandom numbers.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Returns a header and the content of a member, padded to whole blocks.
pub(super) fn member(kind: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.as_old_mut().name.iter_mut().zip(name).for_each(|(field, &byte)| *field = byte);
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

/// Returns a member with the text of `CONF` under this name.
fn file(name: &[u8]) -> Vec<u8> {
    member(b'0', name, CONF.as_bytes())
}

/// Returns a member with these bytes at `offset` in its header, and a right checksum.
fn changed(mut member: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    member[offset..offset + bytes.len()].copy_from_slice(bytes);
    let mut header = ::tar::Header::from_byte_slice(&member[..512]).clone();
    header.set_cksum();
    member[..512].copy_from_slice(header.as_bytes());
    member
}

pub(super) fn pax(records: &[Vec<u8>]) -> Vec<u8> {
    member(b'x', b"PaxHeaders/x", &records.concat())
}

pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let text = [b" ", key, b"=", value, b"\n"].concat();
    let length =
        (1..9).map(|digits| digits + text.len()).find(|length| length.to_string().len() + text.len() == *length);
    [length.unwrap().to_string().as_bytes(), &text].concat()
}

/// Returns a pax record of a `path` whose length field is `length` of the right length.
fn path_with_length(length: impl Fn(usize) -> String) -> Vec<u8> {
    let text = b" path=usr/other\n";
    let digits = length(text.len() + 2);
    [length(text.len() + digits.len()).as_bytes(), text].concat()
}

const OURS: &[u8] = b"etc/azaion/device.conf";
const ELSEWHERE: &[u8] = b"usr/other";

/// Returns an archive with these blocks behind its other members.
fn archive_with(blocks: &[u8]) -> Fixture {
    let fixture = Fixture::tree();
    let start = [member(b'5', b"etc/", b""), member(b'0', b"etc/hostname", b"jetson\n")].concat();
    let mut bytes = [&start, blocks].concat();
    bytes.resize((bytes.len() + 1024).next_multiple_of(10_240), 0);
    put(&fixture.image(), &bytes);
    fixture.write_checksum();
    fixture
}

// Promise: an ambiguous name is refused; any other name, this walk reads as GNU tar does.
#[test]
fn ambiguous_names() {
    let path = |value: &[u8]| pax(&[record(b"path", value)]);
    let long = |kind, name: &[u8]| member(kind, b"././@LongLink", name);
    let with_nul = [OURS, b"\0x"].concat();
    let ours_ended = [OURS, b"\0"].concat();
    let elsewhere_ended = [ELSEWHERE, b"\0"].concat();
    // GNU tar reads the whole block as the name, up to a NUL.
    let padded_name = [&long(b'L', ELSEWHERE)[..512], &[b'x'; 300], &[0; 212]].concat();
    let longer_name = [&long(b'L', b"e")[..512], OURS, &[0; 490]].concat();
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
        ("a long name that goes on in its padding", [padded_name, file(OURS)].concat(), false),
        ("a long name that is longer than its size", [longer_name, file(ELSEWHERE)].concat(), true),
        ("a blank before a key", [pax(&[record(b" path", OURS)]), file(ELSEWHERE)].concat(), false),
        ("a tab before a key", [pax(&[record(b"\tpath", OURS)]), file(ELSEWHERE)].concat(), false),
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
    for (name, blocks, is_accepted) in cases {
        let fixture = archive_with(&blocks);
        let said = fixture.open().read_conf();
        if !is_accepted {
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
            assert!(cleared.open().clear().unwrap() && !cleared.contains("firstpassword"), "{name}");
        }
        fixture.write(OTHER);
        assert_eq!(fixture.unpacked().as_deref(), Some(OTHER), "{name}");
    }
}

/// An offset in a header, and the bytes there.
type Field<'f> = (usize, &'f [u8]);

/// Returns a sparse file in GNU tar's own format whose header has these bytes, with blocks behind it.
fn sparse(fields: &[Field<'_>], blocks: &[u8]) -> Vec<u8> {
    let header = changed(member(b'S', ELSEWHERE, b""), 257, b"ustar  \0");
    let header = fields.iter().fold(header, |header, (at, bytes)| changed(header, *at, bytes));
    [&header, blocks].concat()
}

// Promise: a map of a sparse file that ends before its flag says so, or that requires more content than there is, is refused,
// because GNU tar reads it differently.
#[test]
fn malformed_maps_of_sparse_files() {
    let slot = |offset: u64, bytes: u64| format!("{offset:011o}\0{bytes:011o}\0").into_bytes();
    let (one, full) = (slot(0, 512), slot(0, 0).repeat(4));
    let [size, real_size, continues]: [Field<'_>; 3] = [(124, b"00000001000\0"), (483, b"00000001000\0"), (482, &[1])];
    let content = [b'x'; 512];
    // A map block that hides a member from a program that skips it.
    let hidden = file(OURS);
    let long = [slot(0, 0).repeat(21), vec![0; 8]].concat();
    for (name, blocks, is_good) in [
        ("no map", sparse(&[], b""), true),
        ("a map", sparse(&[(386, &one), size, real_size], &content), true),
        ("a long map", sparse(&[(386, &full), real_size, continues], &long), true),
        ("a flag behind an empty slot", sparse(&[continues], &hidden), false),
        ("a flag behind a slot and an empty one", sparse(&[(386, &one), size, real_size, continues], &hidden), false),
        ("any other flag behind an empty slot", sparse(&[(482, b"0")], &hidden), false),
        ("more than the content", sparse(&[(386, &one), real_size], &content), false),
        ("more than the file", sparse(&[(386, &one), size], &content), false),
        ("a wrong number", sparse(&[(386, b"-0000000000 00000000000\0"), real_size], b""), false),
    ] {
        let fixture = archive_with(&blocks);
        assert_eq!(
            fixture.open().read_conf().map(drop).map_err(|_| ()),
            if is_good { Ok(()) } else { Err(()) },
            "{name}"
        );
        if is_good {
            fixture.write(OTHER);
            assert_eq!(fixture.unpacked().as_deref(), Some(OTHER), "{name}");
        }
    }
}
