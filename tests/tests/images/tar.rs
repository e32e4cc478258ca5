//! Archives of every supported kind, from the first device to the last, checked by GNU tar and sha1sum.

use crate::archive::rich;
use crate::bench::{User, for_each};
use crate::life::{DIGITS, EMPTY_FILE, Form, Life, ODD_FOLDER, OF_ANOTHER, OPEN, PROVISIONED, Row};
use crate::recipe::{PLAIN, Tree};

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
    row("gnu, a directory with another owner", &["--format=gnu", "."], ODD_FOLDER, ONLY_DIGITS),
    row("pax, a directory with another owner", &["--xattrs", "."], ODD_FOLDER, WITH_A_PATH),
    row("ustar, a directory with another owner", &["--format=ustar", "boot", "etc", "usr"], ODD_FOLDER, USUAL),
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

// Promise: every usual archive accepts a device's file, as unpacked by GNU tar, its checksum is updated, and nothing
// else changes.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn from_the_first_device_to_the_last() {
    lives(User::Caller);
}

// Promise: archives need no root privileges.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn without_any_privilege() {
    if crate::bench::is_root() {
        lives(User::Nobody);
    }
}
