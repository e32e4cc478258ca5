//! Tests of archives, with GNU tar and sha1sum as the reference.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

use azaion_agent::common::exit::Exit;
use secrecy::SecretString;
use tempfile::TempDir;

use super::*;
use crate::target::image::fixture::put;
use crate::target::image::slot;
use crate::target::{Owner, Target, open};

mod faults;
mod gnu;
mod oracle;
mod packed;
mod refused;

const NAME: &str = "system.img";
const CONF: &str = "AZAION_DEVICE_EMAIL=azaion-jetson-1@azaion.com\nAZAION_DEVICE_PASSWORD=firstpassword\nAZAION_API_URL=https://a.example\n";
const OTHER: &str = "AZAION_DEVICE_EMAIL=azaion-jetson-22@azaion.com\nAZAION_DEVICE_PASSWORD=second\nAZAION_API_URL=https://a.example\n";

/// A directory with a tree, its archive, and the checksum file of the archive.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new(arguments: &[&str]) -> Self {
        let fixture = Self::tree();
        fixture.pack(arguments);
        fixture
    }

    fn tree() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        put(&root.join("etc/hostname"), b"jetson\n");
        put(&root.join("usr/bin/tool"), &[7; 10_000]);
        fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/tool2")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        Self { dir }
    }

    fn root(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }

    fn pack(&self, arguments: &[&str]) {
        // Extended attributes imply the pax format.
        let has_format = arguments.iter().any(|argument| argument.starts_with("--format"));
        let mut all = vec!["--numeric-owner", "-cpf", NAME, "-C", "root"];
        all.extend((!has_format).then_some("--xattrs"));
        all.extend(arguments);
        self.run("tar", &all);
        self.write_checksum();
    }

    fn write_checksum(&self) {
        let output = self.run("sha1sum", &[NAME]);
        put(&self.dir.path().join("system.img.sha1sum"), &output.stdout);
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let output = Command::new(program).args(arguments).current_dir(&self.dir).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        output
    }

    fn open(&self) -> Box<dyn Target> {
        open(&self.image()).unwrap()
    }

    /// Writes a `device.conf` in the steps of a whole run.
    fn write(&self, conf: &str) {
        let target = self.open();
        target.may_write(Owner::Root).unwrap();
        target.remove_leftovers().unwrap();
        target.read_conf().unwrap();
        target.write(&SecretString::from(conf), Owner::Root).unwrap();
        let found = target.read_conf().unwrap().unwrap();
        assert_eq!(found.bytes.as_slice(), conf.as_bytes());
        assert!(target.is_in_order(&found, Owner::Root).unwrap());
    }

    fn read_conf(&self) -> Option<String> {
        self.open().read_conf().unwrap().map(|found| String::from_utf8(found.bytes.to_vec()).unwrap())
    }

    /// Unpacks the archive, and returns the text of `device.conf` without comments and blank lines.
    fn unpacked(&self) -> Option<String> {
        let out = self.dir.path().join("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        let output = self.run("tar", &["--numeric-owner", "--xattrs", "-xpf", NAME, "-C", "out"]);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(fs::read(out.join("etc/hostname")).unwrap(), b"jetson\n");
        let file = out.join("etc/azaion/device.conf");
        let text = fs::read_to_string(&file).ok()?;
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(out.join("etc/azaion").metadata().unwrap().mode() & 0o7777, 0o755);
        let is_setting = |line: &&str| !line.starts_with('#') && !line.trim().is_empty();
        Some(text.split_inclusive('\n').filter(is_setting).collect())
    }

    fn verify_checksum(&self) {
        self.run("sha1sum", &["-c", "--strict", "system.img.sha1sum"]);
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.image()).unwrap()
    }

    fn contains(&self, text: &str) -> bool {
        self.bytes().windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join(".system.img.azaion-sha1")
    }
}

fn with_conf(arguments: &[&str]) -> Fixture {
    let fixture = Fixture::tree();
    fs::create_dir(fixture.root("etc/azaion")).unwrap();
    put(&fixture.root("etc/azaion/agent.toml"), b"");
    put(&fixture.root("etc/azaion/device.conf"), CONF.as_bytes());
    fs::set_permissions(fixture.root("etc/azaion/device.conf"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    fixture.pack(arguments);
    fixture
}

fn end_of(fixture: &Fixture) -> usize {
    let file = File::open(fixture.image()).unwrap();
    usize::try_from(walk(&mut Plain::new(&file).unwrap()).unwrap().end).unwrap()
}

// Promise: GNU tar unpacks archives of each of its formats with our file, and the checksum is right.
#[test]
fn gnu_tar_unpacks_what_is_written() {
    for format in ["gnu", "oldgnu", "posix", "ustar"] {
        for names in [&["."][..], &["bin", "etc", "usr"]] {
            let fixture = Fixture::tree();
            let long = if format == "ustar" { "l".repeat(90) } else { "l".repeat(200) };
            fs::create_dir_all(fixture.root(&format!("usr/{long}/{long}"))).unwrap();
            put(&fixture.root(&format!("usr/{long}/{long}/file")), b"x");
            symlink("t".repeat(if format == "ustar" { 90 } else { 300 }), fixture.root("usr/link")).unwrap();
            if format != "ustar" {
                let sparse = File::create(fixture.root("usr/sparse")).unwrap();
                for piece in 0..40 {
                    sparse.write_all_at(b"data", piece * 100_000).unwrap();
                }
            }
            let sparse: &[&str] = if format == "ustar" { &[] } else { &["--sparse"] };
            let format = format!("--format={format}");
            fixture.pack(&[sparse, &[format.as_str()], names].concat());
            for conf in [CONF, OTHER] {
                fixture.write(conf);
                assert_eq!(fixture.unpacked().as_deref(), Some(conf), "{format} {names:?}");
                fixture.verify_checksum();
            }
            let list = String::from_utf8(fixture.run("tar", &["-tvf", NAME]).stdout).unwrap();
            let dot = if names == ["."] { "./" } else { "" };
            let members: Vec<_> = list.lines().rev().take(2).collect();
            assert!(members[0].starts_with("-rw------- 0/0"), "{list}");
            assert!(members[0].ends_with(&format!(" {dot}etc/azaion/device.conf")), "{list}");
            assert!(members[1].starts_with("drwxr-xr-x 0/0"), "{list}");
            assert!(members[1].ends_with(&format!(" {dot}etc/azaion/")), "{list}");
        }
    }
}

// Promise: extended attributes, whose values may contain any byte, do not confuse the walk over the headers.
#[test]
fn attributes_are_skipped() {
    let fixture = Fixture::tree();
    let mut archive = ::tar::Builder::new(File::create(fixture.image()).unwrap());
    archive.append_dir("etc", fixture.root("etc")).unwrap();
    let value: &[u8] = b"a\n12 path=etc/azaion\n\0\xff\n";
    archive.append_pax_extensions([("SCHILY.xattr.user.odd", value), ("mtime", b"1.5")]).unwrap();
    archive.append_path_with_name(fixture.root("etc/hostname"), "etc/hostname").unwrap();
    archive.finish().unwrap();
    fixture.write_checksum();
    fixture.write(CONF);
    assert_eq!(fixture.unpacked().as_deref(), Some(CONF));
    fixture.verify_checksum();
}

// Promise: from the second device on, the size stays, and only the block of text differs.
#[test]
fn only_the_block_differs_between_devices() {
    let fixture = Fixture::new(&["."]);
    let original = fixture.bytes();
    fixture.write(CONF);
    let first = fixture.bytes();
    assert_eq!(first.len() % 10_240, 0);
    fixture.write(OTHER);
    let second = fixture.bytes();
    assert_eq!(first.len(), second.len());
    let end = walk(&mut Plain::new(&File::open(fixture.image()).unwrap()).unwrap()).unwrap().end;
    let block = usize::try_from(end).unwrap() - slot::SIZE;
    let differing: Vec<usize> = (0..first.len()).filter(|&at| first[at] != second[at]).collect();
    assert!(differing.iter().all(|at| (block..block + slot::SIZE).contains(at)), "{differing:?}");
    assert_eq!(original[..block - 1024], second[..block - 1024]);
    assert!(!fixture.contains("firstpassword"));
}

// Promise: an archive with enough padding keeps its size; any other gets a multiple of the usual record size.
#[test]
fn an_archive_never_shrinks() {
    for (blocking, same) in [("--blocking-factor=200", true), ("--blocking-factor=1", false)] {
        let fixture = Fixture::new(&[blocking, "."]);
        let before = fixture.bytes().len();
        fixture.write(CONF);
        assert_eq!(fixture.bytes().len() == before, same, "{blocking}");
        assert_eq!(fixture.bytes().len() % 10_240, 0);
        assert_eq!(fixture.unpacked().as_deref(), Some(CONF));
        fixture.verify_checksum();
    }
}

// Promise: an archive grows to a multiple of the usual record size if the appendix does not fit, and never shrinks.
#[test]
fn lengths_of_appendices() {
    for (prefix, size, length) in [
        (0, 0, Some(10_240)),
        (0, 6143, Some(10_240)),
        (0, 6144, Some(6144)),
        (4096, 10_240, Some(6144)),
        (4608, 10_240, Some(15_872)),
        (4608, 102_400, Some(97_792)),
        ((1 << 51) - 512, 0, Some(8_704)),
        (1 << 51, 0, None),
        (u64::MAX - 6144, 0, None),
        (u64::MAX - 6143, 0, None),
    ] {
        assert_eq!(appendix::length(prefix, size), length, "{prefix} {size}");
    }
}

// Promise: an appendix is recognized by everything except its block: the headers, the offset in them, and the zeros that end the
// archive.
#[test]
fn appendices_are_recognized() {
    let block = slot::block_of(CONF.as_bytes()).unwrap();
    for offset in [None, Some(0), Some(10_240), Some((1 << 51) - 512)] {
        for (is_dotted, length) in [(true, 6144), (false, 6144), (true, 10_240)] {
            let appendix = appendix::make(&block, is_dotted, offset, length);
            assert_eq!((appendix.len() as u64, appendix::parse(&appendix, offset)), (length, Some(block.as_slice())));
            for other in [None, Some(512), Some(1 << 30)].into_iter().filter(|&other| other != offset) {
                assert_eq!(appendix::parse(&appendix, other), None);
            }
            let last = appendix.len() - 1;
            for (index, is_known) in
                [(0, false), (511, false), (1023, false), (1024, true), (5119, true), (5120, false), (last, false)]
            {
                let mut other = appendix.to_vec();
                other[index] ^= 1;
                assert_eq!(appendix::parse(&other, offset).is_some(), is_known, "{index}");
            }
            for short in [0, 1023, 1024, 5119, 5120, 6143] {
                assert_eq!(appendix::parse(&appendix[..short], offset), None, "{short}");
            }
        }
    }
}

// Promise: clearing erases the bytes of the password; the unpacked file then counts as no device.conf; an archive without one does
// not change.
#[test]
fn clearing_erases_the_bytes() {
    let fixture = Fixture::new(&["."]);
    let before = fixture.bytes();
    assert!(!fixture.open().clear().unwrap());
    assert_eq!(fixture.bytes(), before);
    assert!(!fixture.state().exists());
    fixture.write(CONF);
    assert!(fixture.open().clear().unwrap());
    assert!(!fixture.open().clear().unwrap());
    assert!(!fixture.contains("firstpassword"));
    assert_eq!((fixture.read_conf(), fixture.unpacked().as_deref()), (None, Some("")));
    fixture.verify_checksum();
    fixture.write(OTHER);
    assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
}

// Promise: a restore brings back the earlier device.conf, or none.
#[test]
fn restores_the_earlier_conf() {
    let fixture = Fixture::new(&["."]);
    fixture.write(CONF);
    let target = fixture.open();
    let before = target.read_conf().unwrap();
    target.write(&SecretString::from(OTHER), Owner::Root).unwrap();
    target.restore(before.as_ref()).unwrap();
    drop(target);
    assert_eq!(fixture.unpacked().as_deref(), Some(CONF));
    fixture.verify_checksum();
    fixture.open().restore(None).unwrap();
    assert_eq!(fixture.read_conf(), None);
    assert!(!fixture.contains("firstpassword"));
    fixture.verify_checksum();
}

/// Returns the number of bytes that this thread has read.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

// Promise: the image is read for its first device only.
#[test]
fn the_image_is_not_read_again() {
    let fixture = Fixture::tree();
    put(&fixture.root("usr/large"), &vec![3; 16 << 20]);
    fixture.pack(&["."]);
    let mut read = Vec::new();
    for conf in [CONF, OTHER, CONF] {
        let before = bytes_read();
        fixture.write(conf);
        read.push(bytes_read() - before);
    }
    let before = bytes_read();
    assert!(fixture.open().clear().unwrap());
    read.push(bytes_read() - before);
    // Twice: for the copy, and for the checksum of the copy.
    assert!(read[0] < 2 * (17 << 20), "{read:?}");
    assert!(read[1..].iter().all(|&bytes| bytes < 1 << 18), "{read:?}");
    fixture.verify_checksum();
}

// Promise: the first write creates another file, so that a process that has the original open can't read the password; later writes
// are in place.
#[test]
fn nobody_has_the_file_with_a_password_open() {
    let fixture = Fixture::new(&["."]);
    let before = fixture.bytes();
    let opened = File::open(fixture.image()).unwrap();
    let inode = || fixture.image().metadata().unwrap().ino();
    let first = inode();
    fixture.write(CONF);
    let second = inode();
    fixture.write(OTHER);
    assert_eq!((first == second, second == inode()), (false, true));
    let mut read = vec![0; before.len()];
    opened.read_exact_at(&mut read, 0).unwrap();
    assert!(read == before && opened.metadata().unwrap().len() == before.len() as u64);
}

// Promise: a provisioned archive that is packed as the last file of an archive is not mistaken for the end of the outer archive.
#[test]
fn an_archive_in_an_archive() {
    let inner = Fixture::new(&["."]);
    inner.write(OTHER);
    let fixture = Fixture::tree();
    // Without its padding.
    let end = inner.bytes().iter().rposition(|&byte| byte != 0).unwrap();
    put(&fixture.root("usr/inner"), &inner.bytes()[..=end]);
    for names in [&["bin", "etc", "usr/bin", "usr/inner"][..], &["usr/inner", "etc"]] {
        fixture.pack(names);
        assert_eq!(fixture.read_conf(), None);
        let mut before = fixture.bytes();
        fixture.write(CONF);
        assert_eq!(fixture.unpacked().as_deref(), Some(CONF));
        before.truncate(before.iter().rposition(|&byte| byte != 0).unwrap());
        assert!(fixture.bytes().starts_with(&before));
    }
}

// Promise: without a checksum file beside the archive, none is created.
#[test]
fn no_checksum_file_is_created() {
    let fixture = Fixture::new(&["."]);
    fs::remove_file(fixture.dir.path().join("system.img.sha1sum")).unwrap();
    fixture.write(CONF);
    fixture.write(OTHER);
    assert_eq!(fixture.unpacked().as_deref(), Some(OTHER));
    assert!(!fixture.dir.path().join("system.img.sha1sum").exists());
}
