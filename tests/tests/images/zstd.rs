//! Compressed archives of every variant, from the first device to the last, checked by zstd, GNU tar, file and sha1sum.

mod disk;

use std::path::Path;

use crate::archive::rich;
use crate::bench::{User, for_each, is_root};
use crate::life::{DIGITS, EMPTY_FILE, Life, ODD_FOLDER, OF_ANOTHER, OPEN, PROVISIONED, Row};
use crate::oracle::{run, text};
use crate::recipe::{PLAIN, Tree, put};

/// As the scripts that generate images pack it.
const USUAL: &[&str] = &["--xattrs", "--xattrs-include=*", "."];

const fn row(name: &'static str, pack: &'static [&'static str], change: Tree, compress: &'static str) -> Row {
    Row { name, pack, change, form: DIGITS, compress: Some(compress) }
}

/// As GNU tar calls it: through a pipe, so without a content size in the header, and with a checksum.
const PIPE: &str = "zstd -q -T0 <archive >system.img";
const SIZED: &str = "zstd -q archive -o system.img";
const FRAMES: &str = "split -b 100K --filter='zstd -q' archive >system.img";
/// Members packed later have other access times than those packed before.
const BY_TAR: &str = "tar --numeric-owner --xattrs '--xattrs-include=*' -cpf system.img -C ../tree -I 'zstd -T0' . && \
                      zstd -dqf system.img -o archive";
const SIZED_FRAMES: &str = "split -b 100K archive p. && zstd -q --rm p.* && cat p.* >system.img && rm p.*";
/// Smaller than the blocks of the archive.
const SMALL_FRAMES: &str = "s=$(($(stat -c %s archive) - 12000)); { head -c $s archive | zstd -q; \
                            tail -c 12000 archive | split -b 100 --filter='zstd -q'; } >system.img";
const EMPTY_FRAMES: &str = "e() { : | zstd -q; }; { e; head -c 512K archive | zstd -q; e; \
                            tail -c +524289 archive | zstd -q; e; } >system.img";
const SKIPPABLE_FRAMES: &str = r#"x() { printf "\x5$1\x2a\x4d\x18\x03\0\0\0abc"; }; { x 0; head -c 512K archive | zstd -q; x f;
                                  tail -c +524289 archive | zstd -q; x 3; x 0; } >system.img"#;
/// For an archive without padding.
const END_IN_A_FRAME: &str = "s=$(($(stat -c %s archive) - 1024)); { head -c $s archive | zstd -q; \
                              tail -c 1024 archive | zstd -q; } >system.img";
const WITHOUT_ITS_SECOND_ZERO_BLOCK: &str = "s=$(($(stat -c %s archive) - 512)); { head -c $s archive | zstd -q; \
                                             tail -c 512 archive | zstd -q; } >system.img";

/// GNU tar accepts an archive without an end marker.
const NO_END: &str = "head -c -1024 archive | zstd -q >system.img";
const NO_END_IN_FRAMES: &str = "{ head -c -1024 archive | split -b 100K --filter='zstd -q'; : | zstd -q; } >system.img";

/// The last member ends at a boundary of a 128 KiB block.
const ALIGNED: Tree = |tree| filled(tree, 128 << 10, 0);
/// It ends so that the most zeros follow our members, up to a record of 10240 bytes.
const LONGEST_END: Tree = |tree| filled(tree, 10_240, 4608);

/// A file that makes the last member end `rest` bytes after a multiple of `unit`, if packed as [`USUAL`].
fn filled(tree: &Path, unit: usize, rest: usize) -> anyhow::Result<()> {
    let filler = tree.join("usr/filler");
    put(&filler, [b'x'; 512], 0o644)?;
    let size = run("sh", &["-c", "tar -C \"$1\" --xattrs '--xattrs-include=*' -b1 -cf - . | wc -c", "sh", text(tree)])?;
    let end: usize = size.trim().parse::<usize>()? - 1024;
    put(&filler, vec![b'x'; 512 + rest + end.next_multiple_of(unit) - end], 0o644)
}

/// Incompressible content, which blocks store uncompressed.
const RANDOM: Tree = |tree| random(&tree.join("usr/zz"));

fn random(file: &Path) -> anyhow::Result<()> {
    run("dd", &["if=/dev/urandom", &format!("of={}", text(file)), "bs=100K", "count=4", "status=none"]).map(drop)
}

const MAKES: [Row; 34] = [
    row("by tar itself", USUAL, rich, BY_TAR),
    row("through a pipe", USUAL, rich, PIPE),
    row("of a known size", USUAL, rich, SIZED),
    row("without a checksum", USUAL, PLAIN, "zstd -q --no-check <archive >system.img"),
    row("of a known size, without a checksum", USUAL, PLAIN, "zstd -q --no-check archive -o system.img"),
    row("level -1", USUAL, PLAIN, "zstd -q --fast=1 <archive >system.img"),
    row("level 1", USUAL, PLAIN, "zstd -q -1 <archive >system.img"),
    row("level 19", USUAL, PLAIN, "zstd -q -19 <archive >system.img"),
    row("level 22", USUAL, PLAIN, "zstd -q --ultra -22 <archive >system.img"),
    row("level 22, of a known size", USUAL, PLAIN, "zstd -q --ultra -22 archive -o system.img"),
    row("a window of 128 MiB", USUAL, PLAIN, "zstd -q --long=27 <archive >system.img"),
    row("several frames", USUAL, rich, FRAMES),
    row("several frames of known sizes", USUAL, PLAIN, SIZED_FRAMES),
    row("small frames at the end", USUAL, PLAIN, SMALL_FRAMES),
    row("empty frames", USUAL, PLAIN, EMPTY_FRAMES),
    row("skippable frames", USUAL, rich, SKIPPABLE_FRAMES),
    row("pzstd", USUAL, rich, "pzstd -q -p 2 -1 archive -o system.img"),
    row("not to be compressed", USUAL, RANDOM, PIPE),
    row("the end marker in a frame of its own", &["--xattrs", "-b1", "."], PLAIN, END_IN_A_FRAME),
    row("half of the end marker in one", &["--xattrs", "-b1", "."], PLAIN, WITHOUT_ITS_SECOND_ZERO_BLOCK),
    row("the end marker in a block of its own", USUAL, ALIGNED, PIPE),
    row("the end marker in a block of its own, of a known size", USUAL, ALIGNED, SIZED),
    row("the longest end", USUAL, LONGEST_END, PIPE),
    row("names without ./", &["--xattrs", "boot", "etc", "usr"], rich, PIPE),
    row("gnu, sparse files", &["--format=gnu", "-S", "."], rich, PIPE),
    row("pax, sparse files", &["--xattrs", "-S", "."], rich, PIPE),
    row("ustar", &["--format=ustar", "usr", "boot", "etc"], rich, SIZED),
    row("no padding", &["--xattrs", "-b1", "."], PLAIN, PIPE),
    row("much padding", &["--xattrs", "-b200", "."], PLAIN, PIPE),
    row("records of 2 MiB", &["--xattrs", "-b4096", "."], PLAIN, PIPE),
    row("no end marker", &["--xattrs", "-b1", "."], PLAIN, NO_END),
    row("no end marker, the last block whole", &["--xattrs", "-b1", "."], ALIGNED, NO_END),
    row("no end marker, several frames", &["--xattrs", "-b1", "."], rich, NO_END_IN_FRAMES),
    row("half an end marker", &["--xattrs", "-b1", "."], PLAIN, "head -c -512 archive | zstd -q >system.img"),
];

/// Files packed at the path of the device's file.
const PACKED: [Row; 9] = [
    row("a directory with another owner", USUAL, ODD_FOLDER, PIPE),
    row("an empty file", USUAL, EMPTY_FILE, PIPE),
    row("provisioned", USUAL, PROVISIONED, PIPE),
    row("provisioned, of a known size", USUAL, PROVISIONED, SIZED),
    row("provisioned, several frames", USUAL, PROVISIONED, FRAMES),
    row("provisioned, open to all", USUAL, OPEN, "zstd -q --no-check <archive >system.img"),
    row("provisioned for another", USUAL, OF_ANOTHER, PIPE),
    row("provisioned for another, level 19", USUAL, OF_ANOTHER, "zstd -q -19 archive -o system.img"),
    row("provisioned for another, skippable frames", &["--format=gnu", "."], OF_ANOTHER, SKIPPABLE_FRAMES),
];

fn lives<'r>(rows: impl IntoIterator<Item = &'r Row>, user: User) {
    for_each(rows, |row| row.name.to_owned(), |row| Life::new(row, user)?.whole());
}

// Promise: a compressed archive of every variant accepts devices, as unpacked by the flasher: it grows by little, each
// later device changes one block of it, its checksum is updated, and all its members are unchanged.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn from_the_first_device_to_the_last() {
    lives(&MAKES, User::Caller);
}

// Promise: credentials that were packed and compressed with the rest are found, kept for their own device only, and
// removed.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn with_something_packed() {
    lives(&PACKED, User::Caller);
}

// Promise: packed credentials of another device are replaced in one run, and no byte of them remains, compressed or
// not.
#[test]
fn with_another_device_packed() {
    for_each(
        PACKED.iter().filter(|row| row.name.starts_with("provisioned for another")),
        |row| row.name.to_owned(),
        |row| Life::new(row, User::Caller)?.replaced(),
    );
}

// Promise: compressed archives need no root privileges.
#[test]
fn without_any_privilege() {
    if is_root() {
        lives(MAKES.iter().step_by(3).chain(PACKED.iter().step_by(3)), User::Nobody);
    }
}
