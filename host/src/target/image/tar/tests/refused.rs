//! Archives that are refused: those of something else than a root file system, and those that programs may read differently.

use azaion_agent::api::fault::chain;

use super::*;

fn refused(fixture: &Fixture, advice: &str) {
    let before = fixture.bytes();
    let error = open(&fixture.image()).and_then(|target| {
        target.may_write(Owner::Root)?;
        target.remove_leftovers()?;
        target.read_conf()?;
        target.write(&SecretString::from(CONF), Owner::Root)
    });
    let error = error.expect_err(advice);
    assert_eq!(error.exit(), Exit::Target, "{advice}: {error:?}");
    assert!(chain(&error).contains(advice), "{advice}: {error:?}");
    assert!(fixture.bytes() == before, "{advice}");
    assert!(!fixture.state().exists(), "{advice}");
}

// Promise: unsuitable trees are refused with 66 and stay unchanged; the message expected what to do instead.
#[test]
fn unsuitable_trees() {
    type Make = fn(&Fixture);
    let cases: [(&str, Make); 7] = [
        ("symlink in place", |f| symlink("/run", f.root("etc/azaion")).unwrap()),
        ("not a directory", |f| put(&f.root("etc/azaion"), b"")),
        ("symlink at", |f| {
            fs::create_dir(f.root("etc/azaion")).unwrap();
            symlink("x", f.root("etc/azaion/device.conf")).unwrap();
        }),
        ("hard link", |f| {
            fs::create_dir(f.root("etc/azaion")).unwrap();
            put(&f.root("etc/azaion/device.conf"), CONF.as_bytes());
            fs::hard_link(f.root("etc/azaion/device.conf"), f.root("etc/other")).unwrap();
        }),
        ("not a regular file", |f| fs::create_dir_all(f.root("etc/azaion/device.conf")).unwrap()),
        ("more than 1 MiB", |f| {
            fs::create_dir(f.root("etc/azaion")).unwrap();
            put(&f.root("etc/azaion/device.conf"), &vec![b'#'; (1 << 20) + 1]);
        }),
        ("symlink in place", |f| {
            fs::rename(f.root("etc"), f.root("usr/etc")).unwrap();
            symlink("usr/etc", f.root("etc")).unwrap();
        }),
    ];
    for (advice, make) in cases {
        for format in ["--format=gnu", "--format=posix"] {
            let fixture = Fixture::tree();
            make(&fixture);
            fixture.pack(&[format, "."]);
            refused(&fixture, advice);
        }
    }
}

// Promise: archives of something else are refused, each with its own message.
#[test]
fn other_archives() {
    let fixture = Fixture::new(&["usr"]);
    refused(&fixture, "no /etc");
    let fixture = Fixture::tree();
    fs::create_dir(fixture.root("boot")).unwrap();
    fixture.pack(&["./boot"]);
    refused(&fixture, "only /boot");
    fixture.pack(&["--format=v7", "."]);
    refused(&fixture, "no root file system");
    fixture.pack(&["--format=posix", "--pax-option=globexthdr.name=g,uid=5", "."]);
    refused(&fixture, "global header");
    fixture.pack(&["--transform=s,usr/bin/tool,../tool,", "-P", "."]);
    refused(&fixture, "`..`");
    fixture.pack(&["--format=gnu", "--listed-incremental=snapshot", "."]);
    refused(&fixture, "unsupported type");
}

// Promise: a truncated archive is refused and stays unchanged, unless GNU tar unpacks it and no member is truncated; so is one with
// something behind its end.
#[test]
fn truncated_and_extended() {
    let fixture = Fixture::new(&["--format=gnu", "-b1", "."]);
    let whole = fixture.bytes();
    let (mut good, end) = (0, end_of(&fixture));
    for length in (end - 2048..=end + 1024).step_by(128) {
        put(&fixture.image(), &whole[..length]);
        fixture.write_checksum();
        let listed = Command::new("tar").args(["-tf", NAME]).current_dir(&fixture.dir).output().unwrap();
        if listed.status.success() && whole[length / 512 * 512..length].iter().all(|&byte| byte == 0) {
            good += 1;
            fixture.write(CONF);
            assert_eq!(fixture.unpacked().as_deref(), Some(CONF), "{length}");
            fixture.verify_checksum();
            fs::remove_file(fixture.state()).unwrap();
        } else {
            refused(&fixture, "damaged");
        }
    }
    assert!((9..20).contains(&good), "{good}");
    put(&fixture.image(), &[whole.as_slice(), b"x"].concat());
    fixture.write_checksum();
    refused(&fixture, "damaged");
    put(&fixture.image(), &whole);
    // A terabyte of zeros is not read to the end.
    File::options().write(true).open(fixture.image()).unwrap().set_len(1 << 40).unwrap();
    assert!(fixture.open().read_conf().unwrap_err().to_string().contains("too much follows"));
}

// Promise: the checksum of a header reveals a wrong byte in it.
#[test]
fn bad_checksums() {
    let fixture = Fixture::new(&["--format=ustar", "."]);
    let whole = fixture.bytes();
    for at in [0, 100, 124, 148, 156, 345] {
        let mut bytes = whole.clone();
        bytes[512 + at] ^= 1;
        put(&fixture.image(), &bytes);
        fixture.write_checksum();
        refused(&fixture, "damaged");
    }
}

// Promise: the walk ends without a panic, whatever the bytes are.
#[test]
fn hostile_bytes() {
    let fixture = with_conf(&["--format=posix", "."]);
    let whole = fixture.bytes();
    let file = tempfile::tempfile().unwrap();
    let mut random = 1_u64;
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = usize::try_from(random >> 33).unwrap() % bytes.len();
            bytes[place] = u8::try_from(random >> 20 & 0xff).unwrap();
            // With a right checksum, the walk reads the other fields, too.
            let start = place / 512 * 512;
            let mut header = ::tar::Header::from_byte_slice(&bytes[start..start + 512]).clone();
            header.set_cksum();
            bytes[start..start + 512].copy_from_slice(header.as_bytes());
        }
        file.write_all_at(&bytes, 0).unwrap();
        let _ = walk(&mut Plain::new(&file).unwrap());
    }
}

// Promise: sizes beyond all limits are refused, also in binary.
#[test]
fn impossible_sizes() {
    let fixture = Fixture::new(&["--format=gnu", "."]);
    let whole = fixture.bytes();
    for size in
        [&[0xff; 12], b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x80\0\0\x01\0\0\0\0\0\0\0\0", b"77777777777\0"]
    {
        let mut bytes = whole.clone();
        let at = bytes.windows(14).position(|window| window == b"./etc/hostname").unwrap();
        bytes[at + 124..at + 136].copy_from_slice(size);
        let mut header = ::tar::Header::from_byte_slice(&bytes[at..at + 512]).clone();
        header.set_cksum();
        bytes[at..at + 512].copy_from_slice(header.as_bytes());
        put(&fixture.image(), &bytes);
        fixture.write_checksum();
        refused(&fixture, "damaged");
    }
}

// Promise: an archive whose checksum is wrong, or whose checksum file could not be updated, is not changed.
#[test]
fn wrong_checksums() {
    let put_checksum =
        |fixture: &Fixture, text: &str| put(&fixture.dir.path().join("system.img.sha1sum"), text.as_bytes());
    let fixture = Fixture::new(&["."]);
    put_checksum(&fixture, &format!("{}  system.img\n", "0".repeat(40)));
    refused(&fixture, "does not match");
    for text in ["", "no sum\n", &"a".repeat(41)] {
        put_checksum(&fixture, text);
        refused(&fixture, "holds no SHA-1");
    }
    put_checksum(&fixture, &format!("{0} x\n{0} y\n", "0".repeat(40)));
    refused(&fixture, "none of them for this image");
    fs::remove_file(fixture.dir.path().join("system.img.sha1sum")).unwrap();
    symlink("elsewhere", fixture.dir.path().join("system.img.sha1sum")).unwrap();
    refused(&fixture, "symlink");
    assert_eq!(fixture.open().may_write(Owner::Root).unwrap_err().exit(), Exit::Target);
}

// Promise: each limit is the largest accepted value: of zeros behind the end, of the number of device.conf members, and of their size.
#[test]
fn limits() {
    let fixture = Fixture::new(&["."]);
    let end = end_of(&fixture) as u64;
    for (zeros, expected) in
        [(0, None), (1023, None), (1024, None), (64 << 20, None), ((64 << 20) + 1, Some("too much follows"))]
    {
        File::options().write(true).open(fixture.image()).unwrap().set_len(end + zeros).unwrap();
        let message = fixture.open().read_conf().err().map(|error| error.to_string());
        assert!(
            message
                .as_deref()
                .map_or(expected.is_none(), |message| expected.is_some_and(|expected| message.contains(expected))),
            "{message:?}"
        );
    }
    let fixture = Fixture::tree();
    for (confs, size, is_good) in [(16, 4096, true), (17, 1, false), (1, 1 << 20, true), (1, (1 << 20) + 1, false)] {
        let mut archive = ::tar::Builder::new(File::create(fixture.image()).unwrap());
        archive.append_dir("etc", fixture.root("etc")).unwrap();
        for _ in 0..confs {
            let mut header = ::tar::Header::new_ustar();
            header.set_mode(0o600);
            header.set_size(size);
            header.set_mtime(1 << 30);
            let text = vec![b'#'; usize::try_from(size).unwrap()];
            archive.append_data(&mut header, "etc/azaion/device.conf", text.as_slice()).unwrap();
        }
        archive.finish().unwrap();
        assert_eq!(fixture.open().read_conf().is_ok(), is_good, "{confs} of {size}");
    }
}
