//! A `device.conf` made by others that cannot be parsed: only `clear` and `--replace` change it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use azaion_tests::dev_api::Options;
use azaion_tests::station::Station;

use crate::archive::{put_sum, sum_file};
use crate::bench::{Bench, EMAIL, SERIAL, Snapshot, for_each};
use crate::oracle::{has_bytes, is_whole};
use crate::recipe::{self, Kind, Tree};

const SECRET: &str = "Aq3hush0hush";

fn put(tree: &Path, parts: &[&[u8]]) -> anyhow::Result<()> {
    let lines = format!("AZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={SECRET}\n");
    let content: Vec<u8> = parts
        .iter()
        .flat_map(|part| if *part == b"CONF" { lines.as_bytes().to_vec() } else { part.to_vec() })
        .collect();
    recipe::put(&tree.join("etc/azaion/device.conf"), content, 0o600)
}

const ROWS: [(&str, Tree); 9] = [
    ("CRLF", |tree| put(tree, &[b"# a comment\r\n", b"CONF"])),
    ("a byte order mark", |tree| put(tree, &[b"\xef\xbb\xbf", b"CONF"])),
    ("a NUL", |tree| put(tree, &[b"CONF", b"\0"])),
    ("a program", |tree| put(tree, &[b"\x7fELF\x02\x01\x01\0", b"CONF"])),
    ("not UTF-8", |tree| put(tree, &[b"# \xff\xfe\n", b"CONF"])),
    ("UTF-16", |tree| put(tree, &[b"\xff\xfeA\0=\0\n\0", b"CONF"])),
    ("no assignment", |tree| put(tree, &[b"hush\n", b"CONF"])),
    ("too large", |tree| put(tree, &[&[b'#'; 4096], b"\n", b"CONF"])),
    ("far too large", |tree| put(tree, &[&[b'\n'; 300_000], b"CONF"])),
];

fn of_kind(kind: Kind) {
    for_each(
        &ROWS,
        |(name, _)| format!("{name} in {}", kind.name()),
        |(_, tree)| {
            for takes_out in [false, true] {
                let bench = Bench::new()?;
                kind.make(&bench, &bench.image(), *tree)?;
                put_sum(&bench.image())?;
                let before = Snapshot::of(&bench.image())?;
                for run in [bench.device(SERIAL, &[])?, bench.verb("inspect")?] {
                    let run = run.ended_with(65)?;
                    anyhow::ensure!(
                        !run.stderr.contains(SECRET) && run.stderr.contains("device.conf"),
                        "{}",
                        run.stderr
                    );
                }
                before.is_still(&bench.image())?;
                anyhow::ensure!(bench.device(SERIAL, &[])?.stderr.contains("clear it or use --replace"), "the advice");
                if takes_out {
                    let report = bench.verb("clear")?.ended_with(0)?.json_lines()?.remove(0);
                    anyhow::ensure!(report["cleared"] == true && bench.inspect()?["empty"] == true, "{report}");
                    is_whole(&bench.image())?;
                    bench.has_no_leftovers()?;
                } else {
                    bench.device(SERIAL, &["--replace"])?.ended_with(0)?;
                }
                anyhow::ensure!(!has_bytes(&bench.image(), SECRET)?, "the password is still there");
                bench.device(SERIAL, &[])?.ended_with(0)?;
                bench.holds(SERIAL, EMAIL)?;
                fs::remove_file(sum_file(&bench.image()))?;
            }
            Ok(())
        },
    );
}

// Promise: the same in a directory, where a process that has the file open sees its bytes removed.
#[test]
fn in_a_directory() {
    for_each(
        &ROWS,
        |(name, _)| (*name).to_owned(),
        |(_, tree)| {
            let station = Station::new(Options::default())?;
            let rootfs = station.rootfs().display().to_string();
            let conf = station.inside("etc/azaion/device.conf");
            for takes_out in [false, true] {
                tree(&station.rootfs())?;
                let before = Snapshot::of(&conf)?;
                station.device(&[])?.ended_with(65)?;
                station.provision_offline(&["inspect", &rootfs])?.ended_with(65)?;
                before.is_still(&conf)?;
                let mut open = File::open(&conf)?;
                if takes_out {
                    station.provision_offline(&["clear", &rootfs])?.ended_with(0)?;
                    let mut bytes = Vec::new();
                    open.read_to_end(&mut bytes)?;
                    anyhow::ensure!(!conf.exists() && bytes.iter().all(|&byte| byte == b'\n'), "the password is there");
                } else {
                    station.device(&["--replace"])?.ended_with(0)?;
                    anyhow::ensure!(station.conf("AZAION_DEVICE_EMAIL").as_deref() == Some(EMAIL), "another device");
                }
            }
            Ok(())
        },
    );
}

// Promise: whatever is in the file, `device` and `inspect` leave it unchanged and report it, `clear` and `--replace`
// remove every byte of it, and the next device gets the image, for each kind of image.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn in_ext4() {
    of_kind(Kind::Ext4);
}

#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn in_sparse() {
    of_kind(Kind::Sparse);
}

#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn in_compressed_ext4() {
    of_kind(Kind::Ext4Zst);
}

#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn in_tar() {
    of_kind(Kind::Tar);
}

#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn in_compressed_tar() {
    of_kind(Kind::TarZst);
}
