//! Images for tests.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::target::Kind;

/// Creates a file with this content.
pub(in crate::target) fn put(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

/// Returns the SHA-1 of a file, computed by sha1sum.
pub(in crate::target) fn sum_of(path: &Path) -> String {
    let output = Command::new("sha1sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout[..40].to_vec()).unwrap()
}

/// Makes an ext4 image of the directory `root` in `dir`, with additional options of mke2fs.
pub(in crate::target) fn mke2fs(dir: &Path, image: &Path, size: &str, options: &[&str]) {
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-d", "root"])
        .args(options)
        .arg(image)
        .arg(size)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Makes an image of a tree with `/etc`, of one kind, with its checksum file beside it.
pub(in crate::target) fn image(kind: Kind) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("system.img");
    fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    let raw = if kind == Kind::Sparse { dir.path().join("raw") } else { path.clone() };
    mke2fs(dir.path(), &raw, "8M", &[]);
    if kind == Kind::Sparse {
        let blocks = u32::try_from(raw.metadata().unwrap().len() / 4096).unwrap();
        let words = [0xed26_ff3a, 1, 0x000c_001c, 4096, blocks, 1, 0, 0xcac1, blocks, 12 + blocks * 4096];
        let head: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        put(&path, &[head, fs::read(&raw).unwrap()].concat());
    }
    sum(&path);
    (dir, path)
}

/// Writes the correct checksum file beside an image.
pub(in crate::target) fn sum(path: &Path) {
    put(&path.with_file_name("system.img.sha1sum"), format!("{}\n", sum_of(path)).as_bytes());
}

/// Returns whether the checksum file beside an image is correct.
pub(in crate::target) fn summed(path: &Path) -> bool {
    fs::read_to_string(path.with_file_name("system.img.sha1sum")).unwrap() == format!("{}\n", sum_of(path))
}
