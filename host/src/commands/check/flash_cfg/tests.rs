use std::fs::{File, create_dir_all, set_permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn put(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

/// Parses a text; returns the assignments as `NAME=value@line`, or `NAME?@line` if the value is unknown.
fn parsed(text: &str) -> String {
    let show = |(name, Assignment { line, value }): (&str, Assignment)| match value {
        Some(value) => format!("{name}={value}@{line}"),
        None => format!("{name}?@{line}"),
    };
    parse(text).into_iter().map(show).collect::<Vec<_>>().join(" ")
}

// Promise: plain assignments are parsed, the last one wins, and anything that bash could expand or execute is unknown.
#[test]
fn only_plain_assignments_are_parsed() {
    for (text, expected) in [
        ("", ""),
        ("\n  \n# APP=a\n \t# APP=b", ""),
        ("APP=system.img", "APP=system.img@1"),
        ("APP=a\nAPP=b\n", "APP=b@2"),
        (" \texport  APP=a \t# why\n", "APP=a@1"),
        ("APP=\"a b\"\nAPP_ext='c $d'\n", "APP=a b@1 APP_ext=c $d@2"),
        ("APP=a\"b\"'c'd", "APP=abcd@1"),
        ("APP=\nAPP_ext= # none", "APP=@1 APP_ext=@2"),
        ("X='two\nlines'\nAPP=a", "APP=a@3 X=two\nlines@1"),
        ("exported=1\nexport=2", "export=2@2 exported=1@1"),
        ("APP=a=b", "APP=a=b@1"),
        // Not parsed.
        ("APP=$X", "APP?@1 X?@1"),
        ("APP=\"$X\"", "APP?@1 X?@1"),
        ("APP=\"`x`\"", "APP?@1 x?@1"),
        ("APP=\"a\\b\"", "APP?@1 a?@1 b?@1"),
        ("APP=a\\\nb", "APP?@1 a?@1 b?@2"),
        ("APP=~/a", "APP?@1 a?@1"),
        ("APP=a b", "APP?@1 a?@1 b?@1"),
        ("APP=a;APP=b", "APP?@1 a?@1 b?@1"),
        ("APP=a\r\n", "APP?@1 a?@1"),
        ("APP=a#b", "APP?@1 a?@1 b?@1"),
        ("APP=\"a\"#b", "APP?@1 a?@1 b?@1"),
        ("APP=\"a", "APP?@1 a?@1"),
        ("APP='a\nAPP=b", "APP=b@2 a?@1"),
        ("APP='\u{fffd}'", "APP?@1"),
        ("APP='\u{1b}[31m'", "31m?@1 APP?@1"),
        ("APP+=a", "APP?@1 a?@1"),
        ("APP[1]=a", "1?@1 APP?@1 a?@1"),
        ("APP =a", "APP?@1 a?@1"),
        ("=a", "a?@1"),
        ("1A=a", "1A?@1 a?@1"),
        ("export APP", "APP?@1 export?@1"),
        ("\u{feff}APP=a", "APP?@1 a?@1"),
        // Known before and after.
        ("APP=a\n[ -e x ] && APP=b\nAPP_ext=c", "APP?@2 APP_ext=c@3 b?@2 e?@2 x?@2"),
        ("APP=$X\nAPP=a", "APP=a@2 X?@1"),
    ] {
        assert_eq!(parsed(text), expected, "{text:?}");
    }
}

/// Returns whether all statements of a text can be parsed.
fn is_parsed(mut text: &str) -> bool {
    while let Some((_, after)) = statement(text).filter(|_| !text.is_empty()) {
        text = after;
    }
    text.is_empty()
}

/// Returns the values of these variables after bash has sourced the text.
fn sourced(text: &str, names: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    put(&directory.path().join(NAME), text.as_bytes());
    let script = format!(". ./{NAME}; for name; do printf '%s\\0' \"${{!name-unset}}\"; done");
    let output = Command::new("/bin/bash")
        .args(["--norc", "--noprofile", "-c", &script, "bash"])
        .args(names)
        // A line that bash executes finds no programs.
        .env_clear()
        .envs([("PATH", "/nonexistent"), ("LC_ALL", "C")])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let values = String::from_utf8(output.stdout).unwrap();
    values.split_terminator('\0').map(str::to_owned).collect()
}

/// Generates lines of a `flash.cfg`: mostly plain, some with characters that are special to bash.
fn any_text() -> impl Strategy<Value = String> {
    let name = "APP(_ext|_b|_ext_b)?|[A-Z][a-z_0-9]{0,3}";
    let value = "[a-z0-9./_-]{0,8}|\"[a-z #!*é]{0,6}\"|'[a-z $\"#\\\\\n]{0,6}'|[a-z'\"#$ \\\\;~*{},!&|<>()`=\t\n]{0,8}";
    let line = (" {0,2}(export )?", name, value, "|[ \t]{1,2}|[ \t]{0,2}#[a-z' \"$]{0,8}")
        .prop_map(|(before, name, value, after)| format!("{before}{name}={value}{after}\n"));
    let other = "#[ -~]{0,10}\n|[ \t]{0,3}\n".prop_map(|text| text);
    prop::collection::vec(prop_oneof![5 => line, 1 => other], 1..6).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // Promise: if all of a text can be parsed, bash assigns the same values.
    #[test]
    fn bash_assigns_the_same(text in any_text()) {
        if !is_parsed(&text) {
            return Ok(());
        }
        let assignments = parse(&text);
        let names: Vec<_> = assignments.keys().copied().collect();
        let values: Vec<_> = assignments.values().filter_map(|assignment| assignment.value.clone()).collect();
        prop_assert_eq!(sourced(&text, &names), values);
    }

    // Promise: the parser reaches the end of any text.
    #[test]
    fn any_text_is_parsed(text in any::<String>()) {
        let lines = text.matches('\n').count() + 1;
        prop_assert!(parse(&text).values().all(|assignment| (1..=lines).contains(&assignment.line)));
    }
}

/// Writes `flash.cfg` files below `images`, and returns the warning about an image there.
fn warning_for(images: &TempDir, files: &[(&str, &str)], image: &str) -> Option<String> {
    for (directory, text) in files {
        let directory = images.path().join(directory);
        create_dir_all(&directory).unwrap();
        put(&directory.join(NAME), text.as_bytes());
    }
    let image = images.path().join(image);
    create_dir_all(image.parent().unwrap()).unwrap();
    super::warning(&image)
}

// Promise: there is a warning if and only if the effective variable of the image's device names another file.
#[test]
fn warnings_for_each_layout() {
    const IMAGE: &str = "external/system.img";
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let rows: [Row<'_>; 22] = [
        (&[], IMAGE, ""),
        (&[("external", "external_device=nvme0n1p1\nCHIPID=0x23\n")], IMAGE, ""),
        (&[("external", "APP_ext=system.img\n")], IMAGE, ""),
        (&[("external", "APP_ext=./system.img\n")], IMAGE, ""),
        (
            &[("external", "APP_ext=system.img.raw")],
            IMAGE,
            "external/flash.cfg: APP_ext is \"system.img.raw\" (line 1)",
        ),
        (&[("external", "APP_ext=system.img\nAPP_ext=other.img")], IMAGE, "APP_ext is \"other.img\" (line 2)"),
        (&[("external", "APP_ext=system.img\nAPP_ext=other.img")], "external/other.img", ""),
        (&[("external", "APP_ext=")], IMAGE, "APP_ext is empty (line 1)"),
        (&[("external", "APP_ext=$NAME")], IMAGE, "line 1 is not a plain assignment of APP_ext"),
        (&[("external", "NAME=$OTHER\nAPP_ext=system.img")], IMAGE, ""),
        // Internal before external.
        (&[("internal", "APP_ext=a.img"), ("external", "APP_ext=system.img")], IMAGE, ""),
        (
            &[("internal", "APP_ext=a.img"), ("external", "")],
            IMAGE,
            "external/../internal/flash.cfg: APP_ext is \"a.img\"",
        ),
        (&[("internal", "APP=system.img"), ("external", "APP_ext=a.img")], IMAGE, "APP_ext is \"a.img\""),
        (&[("internal", "APP=a.img"), ("external", "APP_ext=system.img")], IMAGE, ""),
        (&[("internal", "APP=a.img"), ("external", "APP_ext=b.img")], "internal/system.img", "APP is \"a.img\""),
        (&[("internal", "APP=a.img\nAPP_ext=b.img")], "internal/b.img", "APP is \"a.img\""),
        // A/B.
        (&[("external", "APP_ext=system.img\nAPP_b_ext=b.img")], "external/b.img", ""),
        (&[("external", "APP_ext=system.img\nAPP_b_ext=b.img")], "external/c.img", "APP_ext is \"system.img\""),
        (&[("external", "APP_ext=system.img")], "external/system.img_b", ""),
        // A directory chosen by the user.
        (&[("own", "APP_ext=a.img")], "own/system.img", "APP_ext is \"a.img\""),
        (&[("own", "APP=a.img")], "own/system.img", "APP is \"a.img\""),
        (&[("own", "APP=system.img\nAPP_ext=a.img")], "own/system.img", ""),
    ];
    for (files, image, expected) in rows {
        let images = tempfile::tempdir().unwrap();
        let warning = warning_for(&images, files, image);
        let is_right =
            warning.as_ref().map_or(expected.is_empty(), |text| !expected.is_empty() && text.contains(expected));
        assert!(is_right, "{files:?} {image}: {warning:?}");
    }
}

// Promise: a file that is too large, not a regular file or not readable is reported, and never blocks.
#[test]
fn files_that_cannot_be_read() {
    type Make = fn(&Path);
    let rows: [(Make, &str); 5] = [
        (|file| put(file, &vec![b'\n'; LARGEST]), ""),
        (|file| put(file, &vec![b'\n'; LARGEST + 1]), "larger than 64 KiB"),
        (|file| mkfifo(file, Mode::S_IRWXU).unwrap(), "not a regular file"),
        (|file| create_dir_all(file).unwrap(), "not a regular file"),
        (|file| symlink("elsewhere", file).unwrap(), "symbolic link"),
    ];
    for (make, expected) in rows {
        let images = tempfile::tempdir().unwrap();
        let file = images.path().join(NAME);
        make(&file);
        let warning = warning_for(&images, &[], "system.img").unwrap_or_default();
        assert!(warning.contains(expected) && warning.is_empty() == expected.is_empty(), "{expected}: {warning}");
        if !expected.is_empty() {
            assert!(warning.starts_with(&format!("cannot read {}", file.display())), "{warning}");
        }
    }
    let images = tempfile::tempdir().unwrap();
    put(&images.path().join(NAME), b"APP=a.img");
    set_permissions(images.path().join(NAME), PermissionsExt::from_mode(0o000)).unwrap();
    let warning = warning_for(&images, &[], "system.img").unwrap();
    // Root can read it anyway.
    assert!(warning.contains("Permission denied") || nix::unistd::geteuid().is_root(), "{warning}");
}
