//! Tests of compressed images, with zstd, GNU tar and e2fsprogs as the reference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::SecretString;
use tempfile::TempDir;

use super::super::fixture::{self, sum, summed};
use crate::target::Kind;
use crate::target::Owner;
use crate::target::open;

const CONF: &str =
    "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=firstpassword\nAZAION_API_URL=https://a.example\n";
const OTHER: &str =
    "AZAION_DEVICE_EMAIL=o@azaion.com\nAZAION_DEVICE_PASSWORD=otherpassword\nAZAION_API_URL=https://a.example\n";
const LINE: &str = "AZAION_DEVICE_PASSWORD=";

fn sh(dir: &Path, script: &str) -> String {
    let done = Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(dir).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{script}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Packs a tree in a directory of its own into `archive`; the commands `compress` compress that into `system.img`.
fn archive(tree: &str, compress: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    sh(dir.path(), "mkdir -p root/etc root/usr root/boot; echo host >root/etc/hostname; seq 200000 >root/usr/numbers");
    sh(dir.path(), tree);
    sh(dir.path(), "tar --numeric-owner --xattrs '--xattrs-include=*' -cf archive -C root .");
    sh(dir.path(), compress);
    let path = dir.path().join("system.img");
    sum(&path);
    (dir, path)
}

fn write(path: &Path, conf: &str) {
    let target = open(path).unwrap();
    target.remove_leftovers().unwrap();
    target.write(&SecretString::from(conf), Owner::Root).unwrap();
}

/// Unpacks an image as the flasher does, and checks that nothing is written to standard error.
fn unpacked(path: &Path) -> TempDir {
    let into = tempfile::tempdir().unwrap();
    sh(
        into.path(),
        &format!(
            "zstd -tq {0}; file -b {0} | grep -q Zstandard; tar --numeric-owner --xattrs '--xattrs-include=*' -x -I 'zstd -T0' -pf {0} -C .",
            path.display()
        ),
    );
    into
}

fn conf_in(path: &Path) -> String {
    fs::read_to_string(unpacked(path).path().join("etc/azaion/device.conf")).unwrap()
}

/// Writes one device, another, and clears; checks what the flasher unpacks, the checksums, and the growth of the image.
fn check_all_writes(dir: &Path, path: &Path) {
    let before = path.metadata().unwrap().len();
    write(path, CONF);
    assert!(conf_in(path).contains("firstpassword"));
    let first = fs::read(path).unwrap();
    assert!(first.len() as u64 <= before + (64 << 10), "grown from {before} to {}", first.len());
    assert!(summed(path));
    write(path, OTHER);
    assert!(conf_in(path).contains("otherpassword"));
    let second = fs::read(path).unwrap();
    let differing: Vec<usize> = (0..first.len()).filter(|&offset| first[offset] != second[offset]).collect();
    assert!(first.len() == second.len() && differing.last().unwrap() - differing[0] < 4096);
    assert!(summed(path));
    let target = open(path).unwrap();
    assert!(String::from_utf8_lossy(&target.read_conf().unwrap().unwrap().bytes).contains("otherpassword"));
    assert!(target.clear().unwrap() && !target.clear().unwrap() && target.read_conf().unwrap().is_none());
    drop(target);
    assert!(summed(path) && !conf_in(path).contains(LINE));
    let content = sh(dir, "zstd -dcq system.img | strings");
    assert!(!content.contains(LINE) && !String::from_utf8_lossy(&fs::read(path).unwrap()).contains(LINE));
    let unpacked = unpacked(path);
    sh(dir, &format!("diff -r --exclude=azaion root {}", unpacked.path().display()));
}

/// Ways to compress an archive.
const MAKES: [(&str, &str); 16] = [
    ("as tar does", "zstd -q -T0 <archive >system.img"),
    ("of a known size", "zstd -q archive -o system.img"),
    ("of a known small size", "zstd -q --ultra -22 archive -o system.img"),
    ("without a checksum", "zstd -q --no-check <archive >system.img"),
    ("of a known size, without a checksum", "zstd -q --no-check archive -o system.img"),
    ("level -1", "zstd -q --fast=1 <archive >system.img"),
    ("level 1", "zstd -q -1 <archive >system.img"),
    ("level 19", "zstd -q -19 <archive >system.img"),
    ("a long window", "zstd -q --long=27 <archive >system.img"),
    ("several frames", "split -b 500K archive p. && for p in p.*; do zstd -qc $p; done >system.img"),
    (
        "a last frame of zeros",
        "s=$(stat -c %s archive); { head -c $((s - 1024)) archive | zstd -q; head -c 1024 /dev/zero | zstd -q; } >system.img",
    ),
    (
        "small frames at the end",
        "s=$(stat -c %s archive); { head -c $((s - 12000)) archive | zstd -q; tail -c 12000 archive | split -b 100 --filter='zstd -q'; } >system.img",
    ),
    (
        "skippable frames",
        r"x() { printf '\x5f\x2a\x4d\x18\x03\0\0\0abc'; }; { x; zstd -q <archive; x; x; } >system.img",
    ),
    ("empty frames", "{ : | zstd -q; zstd -q <archive; : | zstd -q; } >system.img"),
    ("pzstd", "pzstd -q -p 2 -1 archive -o system.img"),
    (
        "blocks of 128 KiB that are not compressed",
        "head -c 400000 /dev/urandom >root/zz; tar -cf archive -C root .; zstd -q <archive >system.img",
    ),
];

// Promise: an archive can be provisioned however it was compressed, the flasher unpacks it, and nothing else changes.
#[test]
fn archives_of_every_compressor() {
    for (name, compress) in MAKES {
        println!("{name}");
        let (dir, path) = archive("", compress);
        check_all_writes(dir.path(), &path);
        if name == "pzstd" {
            sh(dir.path(), "pzstd -dcq system.img | tar -t >/dev/null");
        }
    }
}

// Promise: the slot is found again, wherever in a record the last member ends.
#[test]
fn every_alignment_of_the_end() {
    for blocks in 0..20 {
        let (dir, path) =
            archive(&format!("head -c {} /dev/zero >root/usr/zeros", blocks * 512), "zstd -q <archive >system.img");
        write(&path, CONF);
        assert!(conf_in(&path).contains("firstpassword"), "{blocks}");
        assert!(open(&path).unwrap().read_conf().unwrap().is_some(), "{blocks}");
        assert_eq!(sh(dir.path(), "zstd -dcq system.img | wc -c").trim().parse::<u64>().unwrap() % 10_240, 0);
    }
}

// Promise: packed credentials are found, replaced and erased, also where they are compressed.
#[test]
fn packed_credentials() {
    for compress in [
        "zstd -q <archive >system.img",
        "zstd -q archive -o system.img",
        "split -b 100K archive p. && for p in p.*; do zstd -qc $p; done >system.img",
    ] {
        let pack = format!(
            "mkdir -p root/etc/azaion; printf '{}' >root/etc/azaion/device.conf; chmod 600 root/etc/azaion/device.conf",
            CONF.replace('\n', "\\n")
        );
        let (_dir, path) = archive(&pack, compress);
        let target = open(&path).unwrap();
        assert!(String::from_utf8_lossy(&target.read_conf().unwrap().unwrap().bytes).contains("firstpassword"));
        drop(target);
        write(&path, OTHER);
        assert!(summed(&path) && conf_in(&path).contains("otherpassword"));
        let (dir, path) = archive(&pack, compress);
        assert!(open(&path).unwrap().clear().unwrap());
        assert!(summed(&path) && !conf_in(&path).contains(LINE));
        assert!(!sh(dir.path(), "zstd -dcq system.img | strings").contains(LINE));
        let unpacked = unpacked(&path);
        sh(dir.path(), &format!("diff -r --exclude=azaion root {}", unpacked.path().display()));
    }
}

// Promise: a compressed disk image can be provisioned: only the slot differs between devices.
#[test]
fn compressed_disk_images() {
    let (dir, _) = fixture::image(Kind::Ext4);
    let path = dir.path().join("system.img.zst");
    sh(
        dir.path(),
        "truncate -s 64M system.img; /usr/sbin/resize2fs system.img 64M 2>/dev/null >/dev/null; zstd -q system.img -o system.img.zst; sha1sum system.img.zst | cut -c-40 >system.img.zst.sha1sum",
    );
    let has_right_checksum = || {
        sh(dir.path(), "sha1sum system.img.zst | cut -c-40")
            == fs::read_to_string(dir.path().join("system.img.zst.sha1sum")).unwrap()
    };
    write(&path, CONF);
    assert!(has_right_checksum());
    let first = fs::read(&path).unwrap();
    sh(dir.path(), "zstd -tq system.img.zst; zstd -dcq system.img.zst >one");
    write(&path, OTHER);
    assert!(has_right_checksum());
    let second = fs::read(&path).unwrap();
    assert_eq!(first.len(), second.len());
    sh(dir.path(), "zstd -dcq system.img.zst >two; /usr/sbin/e2fsck -fn two >/dev/null 2>&1");
    let (one, two) = (fs::read(dir.path().join("one")).unwrap(), fs::read(dir.path().join("two")).unwrap());
    let differing: Vec<usize> = (0..one.len()).filter(|&offset| one[offset] != two[offset]).collect();
    assert!(one.len() == 64 << 20 && differing.last().unwrap() / 4096 == differing[0] / 4096);
    assert!(
        sh(dir.path(), "/usr/sbin/debugfs -R 'cat /etc/azaion/device.conf' two 2>/dev/null").contains("otherpassword")
    );
    let target = open(&path).unwrap();
    assert!(target.clear().unwrap() && target.read_conf().unwrap().is_none());
    assert!(has_right_checksum() && !sh(dir.path(), "zstd -dcq system.img.zst | strings").contains(LINE));
}
