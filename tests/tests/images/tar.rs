//! Archives of every kind that can be provisioned, from the first device to the last, as GNU tar and sha1sum see them.

use std::path::Path;

use anyhow::ensure;

use crate::archive::{put_sum, rich, sum_is_right};
use crate::bench::{Bench, EMAIL, SERIAL, Snapshot, User, for_each};
use crate::life::{DIGITS, EMPTY_FILE, Form, Life, ODD_FOLDER, OF_ANOTHER, OPEN, PROVISIONED, Row};
use crate::oracle::has_bytes;
use crate::recipe::{Kind, PLAIN, Tree, put};

const USUAL: Form = Form { before: "", after: "  system.img\n", check_in: Some("images") };
const BINARY: Form = Form { before: "", after: " *system.img\n", check_in: Some("images") };
const WITH_A_PATH: Form = Form { before: "", after: "  images/system.img\n", check_in: Some(".") };
const BSD: Form = Form { before: "SHA1 (system.img) = ", after: "\n", check_in: Some("images") };
const ONLY_DIGITS: Form = Form { before: "", after: "", check_in: None };

const fn row(name: &'static str, pack: &'static [&'static str], change: Tree, form: Form) -> Row {
    Row { name, pack, change, form, compress: None }
}

const ROWS: [Row; 18] = [
    row("gnu", &["--format=gnu", "."], rich, USUAL),
    row("gnu, names without ./", &["--format=gnu", "boot", "etc", "usr"], rich, WITH_A_PATH),
    row("pax", &["--xattrs", "."], rich, USUAL),
    row("pax, names without ./", &["--xattrs", "etc", "usr", "boot"], rich, BINARY),
    row("ustar", &["--format=ustar", "."], rich, BSD),
    row("ustar, names without ./", &["--format=ustar", "usr", "boot", "etc"], rich, DIGITS),
    row("gnu, a folder of somebody else", &["--format=gnu", "."], ODD_FOLDER, ONLY_DIGITS),
    row("pax, a folder of somebody else", &["--xattrs", "."], ODD_FOLDER, WITH_A_PATH),
    row("ustar, a folder of somebody else", &["--format=ustar", "boot", "etc", "usr"], ODD_FOLDER, USUAL),
    row("gnu, provisioned", &["--format=gnu", "."], PROVISIONED, USUAL),
    row("pax, provisioned", &["--xattrs", "boot", "etc", "usr"], PROVISIONED, BSD),
    row("pax, provisioned, open to all", &["--xattrs", "."], OPEN, BINARY),
    row("ustar, provisioned for another", &["--format=ustar", "."], OF_ANOTHER, USUAL),
    row("pax, provisioned for another", &["--xattrs", "."], OF_ANOTHER, USUAL),
    row("an empty file", &["--format=gnu", "."], EMPTY_FILE, USUAL),
    row("no more than its end marks", &["--format=gnu", "-b1", "."], PLAIN, USUAL),
    row("much room behind its end", &["--format=gnu", "-b200", "."], PLAIN, USUAL),
    row("records of 2 MiB", &["--xattrs", "-b4096", "."], PLAIN, USUAL),
];

fn lives(user: User) {
    for_each(&ROWS, |row| row.name.to_owned(), |row| Life::new(row, user)?.whole());
}

// Promise: every usual archive takes a device's file, as GNU tar unpacks it, its sum follows, and nothing else changes.
#[test]
fn from_the_first_device_to_the_last() {
    lives(User::Caller);
}

// Promise: archives need no root at all.
#[test]
fn without_any_privilege() {
    if crate::bench::is_root() {
        lives(User::Nobody);
    }
}

const SECRET: &str = "hush-hush-hush";

/// A file that is no valid text, with a password in it.
fn conf(tree: &Path, before: &[u8], after: &[u8]) -> anyhow::Result<()> {
    let text = [before, b"AZAION_DEVICE_PASSWORD=", SECRET.as_bytes(), after].concat();
    put(&tree.join("etc/azaion/device.conf"), text, 0o600)
}

const MALFORMED: [(&str, Tree); 5] = [
    ("CRLF", |tree| conf(tree, b"AZAION_DEVICE_EMAIL=a@example.com\r\n", b"\r\n")),
    ("a BOM", |tree| conf(tree, b"\xef\xbb\xbf", b"\n")),
    ("a NUL", |tree| conf(tree, b"", b"\0\n")),
    ("UTF-16", |tree| conf(tree, b"\xff\xfeA\0=\0", b"\n\0")),
    ("a program", |tree| conf(tree, b"\x7fELF\x02\x01\0", &[0; 1000])),
];

/// An archive with such a file, and the image as it is.
fn malformed(kind: Kind, change: Tree) -> anyhow::Result<(Bench, Snapshot)> {
    let bench = Bench::with(User::Caller)?;
    kind.make(&bench, &bench.image(), change)?;
    put_sum(&bench.image())?;
    let before = Snapshot::of(&bench.image())?;
    Ok((bench, before))
}

fn has_no_secret(bench: &Bench) -> anyhow::Result<()> {
    ensure!(!has_bytes(&bench.image(), SECRET)?, "the password is still there");
    sum_is_right(&bench.image())
}

// Promise: a device.conf that is no valid text is an error, which names the file; `clear` takes it out, and `--replace` replaces
// it, and none of its bytes stays.
#[test]
fn malformed_confs() {
    let rows = [Kind::Tar, Kind::TarZst].into_iter().flat_map(|kind| MALFORMED.map(|(name, tree)| (kind, name, tree)));
    for_each(
        &rows.collect::<Vec<_>>(),
        |(kind, name, _)| format!("{}, {name}", kind.name()),
        |&(kind, _, tree)| {
            let (bench, before) = malformed(kind, tree)?;
            let run = bench.device(SERIAL, &[])?.ended_with(65)?;
            ensure!(run.stderr.contains("device.conf") && !run.stderr.contains(SECRET), "{}", run.stderr);
            before.is_still(&bench.image())?;
            let record = bench.verb("clear")?.ended_with(0)?.json_lines()?.remove(0);
            ensure!(record["cleared"] == true && bench.inspect()?["empty"] == true, "{record}");
            has_no_secret(&bench)?;
            let (bench, _) = malformed(kind, tree)?;
            bench.device(SERIAL, &["--replace"])?.ended_with(0)?;
            bench.holds(SERIAL, EMAIL)?;
            has_no_secret(&bench)
        },
    );
}
