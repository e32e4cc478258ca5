//! Images from elsewhere with a slot whose block may also belong to another file.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use azaion_tests::programs::start;
use azaion_tests::station::command;

use super::{Bench, EMAIL, SERIAL};
use crate::bench::{OTHER, OTHER_EMAIL, Snapshot, User, for_each, is_root};
use crate::oracle::{block, raw_copy, run, text};
use crate::recipe::{self, Kind, PLAIN, mkfs, put, to_sparse};

/// Returns the record of the check, if present.
fn record(image: &Path) -> anyhow::Result<String> {
    let script = "import os, sys
try:
    print(os.getxattr(sys.argv[1], 'user.azaion.checked').decode(), end='')
except OSError:
    pass
";
    run("python3", &["-c", script, text(image)])
}

fn forget(image: &Path) -> anyhow::Result<()> {
    run("python3", &["-c", "import os, sys; os.removexattr(sys.argv[1], 'user.azaion.checked')", text(image)]).map(drop)
}

/// Creates a raw image with a blank slot and this mode: world-readable, or readable by its owner only.
fn with_slot(mode: u32) -> anyhow::Result<Bench> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    bench.device(SERIAL, &[])?.ended_with(0)?;
    bench.verb("clear")?.ended_with(0)?;
    fs::set_permissions(bench.image(), std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    Ok(bench)
}

/// Makes a world-readable file share the slot's block.
fn share(raw: &Path) -> anyhow::Result<()> {
    recipe::debugfs(raw, &format!("sif /etc/passwd block[5] {}", block(raw)?))
}

/// Compresses a raw image as this program does, with the frame that stores the slot's offset; `from` is that block.
fn compress(bench: &Bench, from: u64) -> anyhow::Result<()> {
    let image = bench.image();
    let bytes = fs::read(&image)?;
    let (at, parts) = (usize::try_from(from * 4096)?, bench.path("parts"));
    let pack = |name: &str, bytes: &[u8]| -> anyhow::Result<Vec<u8>> {
        let part = parts.join(name);
        put(&part, bytes, 0o600)?;
        run("zstd", &["-qf", text(&part)])?;
        Ok(fs::read(part.with_extension("zst"))?)
    };
    let mut all = pack("before", &bytes[..at])?;
    let header = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0x10, 0, 0, 0x01, 0x80, 0];
    all.extend(header);
    let place = all.len();
    all.extend(&bytes[at..at + 4096]);
    all.extend(pack("behind", &bytes[at + 4096..])?);
    let text = format!("azaion-provision: the slot is at byte {place:020}\n");
    all.extend([0x184D_2A5A_u32.to_le_bytes(), u32::try_from(text.len())?.to_le_bytes()].concat());
    all.extend(text.as_bytes());
    fs::remove_file(&image)?;
    put(&image.with_extension("img.zst"), all, 0o644)
}

/// Packs it as this kind of image.
fn pack(bench: &Bench, kind: Kind) -> anyhow::Result<()> {
    match kind {
        Kind::Sparse => to_sparse(&bench.image()),
        Kind::Ext4Zst => compress(bench, block(&bench.image())?),
        _ => Ok(()),
    }
}

const WITH_FILE_SYSTEM: [(Kind, u32); 4] =
    [(Kind::Ext4, 0o644), (Kind::Ext4, 0o600), (Kind::Sparse, 0o644), (Kind::Ext4Zst, 0o644)];

fn with_each(one: impl Fn(Kind, &Bench) -> anyhow::Result<()>) {
    for_each(
        &WITH_FILE_SYSTEM,
        |(kind, mode)| format!("{} {mode:o}", kind.name()),
        |(kind, mode)| one(*kind, &with_slot(*mode)?),
    );
}

// Promise: an image whose slot shares a block with another file is refused, unchanged.
#[test]
fn a_shared_block() {
    with_each(|kind, bench| {
        share(&bench.image())?;
        pack(bench, kind)?;
        bench.station.api.forget_requests();
        let (before, recorded) = (Snapshot::of(&bench.image())?, record(&bench.image())?);
        for _ in 0..2 {
            let run = bench.device(OTHER, &[])?.ended_with(66)?;
            ensure!(run.stderr.contains("e2fsck finds faults"), "{}", run.stderr);
            before.is_still(&bench.image())?;
        }
        ensure!(bench.station.api.requests().is_empty(), "the API was asked");
        ensure!(record(&bench.image())? == recorded, "it is recorded as checked");
        ensure!(bench.beside()?.len() == 1, "{:?}", bench.beside()?);
        Ok(())
    });
}

// Promise: an image from elsewhere with an exclusive slot is checked, once, and then accepts devices.
#[test]
fn a_slot_from_elsewhere() {
    with_each(|kind, bench| {
        pack(bench, kind)?;
        // A copy of it has no record.
        let _ = forget(&bench.image());
        bench.device(SERIAL, &[])?.ended_with(0)?;
        bench.holds(SERIAL, EMAIL)?;
        ensure!(!record(&bench.image())?.is_empty(), "it is not recorded as checked");
        without_e2fsck(bench, OTHER)?;
        bench.holds(OTHER, OTHER_EMAIL)?;
        bench.verb("clear")?.ended_with(0)?;
        without_e2fsck(bench, SERIAL)
    });
}

/// Provisions a device without e2fsck on the host.
fn without_e2fsck(bench: &Bench, serial: &str) -> anyhow::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let program = bench.device_command(serial, &["--replace"])?;
    let script = "mount -t tmpfs none /usr/sbin; exec \"$@\"";
    let mut command = command(Path::new("unshare"), &["--mount", "sh", "-euc", script, "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    bench.wait(start(&mut command)?)?.ended_with(0).map(drop)
}

// Promise: a compressed image whose slot is a block of another file is refused.
#[test]
fn another_block() -> anyhow::Result<()> {
    let bench = with_slot(0o644)?;
    compress(&bench, block(&bench.image())? - 1)?;
    let before = Snapshot::of(&bench.image())?;
    let run = bench.device(OTHER, &[])?.ended_with(66)?;
    ensure!(run.stderr.contains("is not the block of its etc/azaion/device.conf"), "{}", run.stderr);
    before.is_still(&bench.image())
}

// Promise: `clear` does not write into a block of another file that is not a slot's, for any kind of image.
#[test]
fn clear_looks_first() {
    for_each(
        &[Kind::Ext4, Kind::Sparse, Kind::Ext4Zst],
        |kind| kind.name().to_owned(),
        |kind| {
            for (is_shared, code) in [(true, 66), (false, 0)] {
                let bench = Bench::with(User::Caller)?;
                mkfs(&bench, &bench.image(), "", recipe::small_file)?;
                if is_shared {
                    share(&bench.image())?;
                }
                pack(&bench, *kind)?;
                let before = Snapshot::of(&bench.image())?;
                bench.verb("clear")?.ended_with(code)?;
                if is_shared {
                    bench.device(SERIAL, &["--replace"])?.ended_with(code)?;
                    before.is_still(&bench.image())?;
                } else {
                    let raw = raw_copy(&bench.image())?;
                    let said = crate::oracle::content(raw.path())?;
                    ensure!(!said.contains("PASSWORD"), "{said}");
                }
            }
            Ok(())
        },
    );
}

// Promise: a record that was copied with the image is not accepted for the copy.
#[test]
fn a_copied_record() -> anyhow::Result<()> {
    let bench = with_slot(0o644)?;
    let image = bench.image();
    let record_of_image = record(&image)?;
    let copy = image.with_extension("copy");
    run("cp", &["-a", text(&image), text(&copy)])?;
    fs::rename(&copy, &image)?;
    let copied = record(&image)?;
    ensure!(copied.is_empty() || copied == record_of_image);
    bench.device(OTHER, &[])?.ended_with(0)?;
    let now = record(&image)?;
    let ino = now.split_whitespace().nth(1).context("the inode")?;
    ensure!(now != record_of_image && !record_of_image.contains(ino), "{now}");
    Ok(())
}
