//! The checksum beside images of the other kinds, which `--sparse` of the initrd flow puts into `images/`.

use std::fs;

use crate::archive::{self, sum_file};
use crate::bench::{Bench, EMAIL, OTHER, OTHER_EMAIL, SERIAL, Snapshot, User, for_each, is_root};
use crate::oracle::{has_bytes, run, text};
use crate::recipe::{self, Kind, PLAIN, Tree, small_file};

const ROWS: [(Kind, Tree, User); 9] = [
    (Kind::Ext4, PLAIN, User::Caller),
    (Kind::Ext4, small_file, User::Caller),
    (Kind::Ext4, PLAIN, User::Nobody),
    (Kind::Sparse, PLAIN, User::Caller),
    (Kind::Sparse, small_file, User::Caller),
    (Kind::Sparse, PLAIN, User::Nobody),
    (Kind::Ext4Zst, PLAIN, User::Caller),
    (Kind::Ext4Zst, small_file, User::Caller),
    (Kind::Ext4Zst, PLAIN, User::Nobody),
];

fn image(kind: Kind, change: Tree, user: User) -> anyhow::Result<Bench> {
    let bench = Bench::with(user)?;
    kind.make(&bench, &bench.image(), change)?;
    archive::put_sum(&bench.image())?;
    bench.give_image()?;
    Ok(bench)
}

/// Checks with sha1sum that the checksum is correct, and that its form is unchanged.
fn is_summed(bench: &Bench) -> anyhow::Result<()> {
    let sum = fs::read_to_string(sum_file(&bench.image()))?;
    if bench.name() == "system.img" {
        anyhow::ensure!(sum.len() == 53 && sum.ends_with("  system.img\n"), "{sum}");
        run("env", &["-C", text(&bench.path("images")), "sha1sum", "-c", "--strict", "--quiet", "system.img.sha1sum"])?;
    } else {
        anyhow::ensure!(sum == archive::sum_of(&bench.image())? + "\n", "{sum}");
    }
    bench.has_no_leftovers()
}

fn life(bench: &Bench) -> anyhow::Result<()> {
    let files = [bench.image(), sum_file(&bench.image()), bench.state()];
    bench.device(SERIAL, &[])?.ended_with(0)?;
    is_summed(bench)?;
    bench.holds(SERIAL, EMAIL)?;
    let before = files.iter().map(|file| Snapshot::of(file)).collect::<anyhow::Result<Vec<_>>>()?;
    bench.device(SERIAL, &[])?.ended_with(0)?;
    bench.device(OTHER, &[])?.ended_with(73)?;
    bench.verb("inspect")?.ended_with(0)?;
    before.iter().zip(&files).try_for_each(|(before, file)| before.is_still(file))?;
    bench.device(OTHER, &["--replace"])?.ended_with(0)?;
    is_summed(bench)?;
    bench.holds(OTHER, OTHER_EMAIL)?;
    bench.verb("clear")?.ended_with(0)?;
    is_summed(bench)?;
    anyhow::ensure!(!has_bytes(&bench.image(), "AZAION_DEVICE_PASSWORD")?, "a password is still there");
    bench.device("AZJN-0044", &["--verify"])?.ended_with(0)?;
    is_summed(bench)?;
    bench.holds("AZJN-0044", "azaion-jetson-0044@azaion.com")
}

// Promise: a checksum beside a raw or a sparse image is correct after every run, in its original form.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn beside_other_kinds() {
    for_each(
        ROWS.iter().filter(|(_, _, user)| is_root() || *user == User::Caller),
        |(kind, change, user)| {
            format!("{kind:?}, {user:?}, a file: {}", std::ptr::fn_addr_eq(*change, small_file as Tree))
        },
        |(kind, change, user)| life(&image(*kind, *change, *user)?),
    );
}

/// Changes some bytes of a large file in an image.
fn change(bench: &Bench, kind: Kind, is_later: bool) -> anyhow::Result<()> {
    let bytes = fs::read(bench.image())?;
    let at = if kind.is_compressed() {
        bytes.len() / 2
    } else {
        let skip = if is_later { 300_000 } else { 200_000 };
        let place = (0..100_000_u32).flat_map(u32::to_le_bytes).skip(skip).take(64).collect::<Vec<_>>();
        bytes.windows(64).position(|window| window == place).expect("the file is there")
    };
    recipe::patch(&bench.image(), at as u64, b"another")
}

// Promise: an image that others have changed since its checksum was computed is refused, whether it held a device or
// not; only its credentials can be removed.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn an_image_that_others_have_changed() {
    for_each(
        &Kind::ALL,
        |kind| format!("{kind:?}"),
        |kind| {
            let bench = image(*kind, PLAIN, User::Caller)?;
            for is_later in [false, true] {
                if is_later {
                    if kind.is_compressed() {
                        // The changed image can't be decompressed.
                        kind.make(&bench, &bench.image().with_file_name("system.img"), PLAIN)?;
                    }
                    archive::put_sum(&bench.image())?;
                    bench.device(SERIAL, &[])?.ended_with(0)?;
                }
                change(&bench, *kind, is_later)?;
                let before = Snapshot::of(&bench.image())?;
                for options in [&[][..], &["--replace"]] {
                    let run = bench.device(OTHER, options)?.ended_with(66)?;
                    anyhow::ensure!(run.stderr.contains("generate the images again"), "{}", run.stderr);
                }
                before.is_still(&bench.image())?;
            }
            // An image that can't be provisioned any more can still be cleared; its checksum stays wrong, so that the
            // mismatch stays detectable at flashing.
            let sum = fs::read(sum_file(&bench.image()))?;
            let run = bench.verb("clear")?.ended_with(0)?;
            anyhow::ensure!(run.stderr.contains("does not match the .sha1sum"), "{}", run.stderr);
            let bytes = fs::read(bench.image())?;
            anyhow::ensure!(
                !bytes.windows(22).any(|window| window == b"AZAION_DEVICE_PASSWORD"),
                "the password is there"
            );
            anyhow::ensure!(fs::read(sum_file(&bench.image()))? == sum, "the checksum was written");
            bench.device(OTHER, &[])?.ended_with(66)?;
            Ok(())
        },
    );
}

// Promise: a checksum file that this run may not write is reported before anything has changed.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_sum_of_somebody_else() {
    for_each(
        &Kind::ALL,
        |kind| format!("{kind:?}"),
        |kind| {
            let bench = image(*kind, PLAIN, User::Nobody)?;
            std::os::unix::fs::chown(sum_file(&bench.image()), Some(0), Some(0))?;
            let before = Snapshot::of(&bench.image())?;
            let run = bench.device(SERIAL, &[])?;
            anyhow::ensure!([74, 77].contains(&run.code.unwrap_or(-1)), "{}", run.words());
            before.is_still(&bench.image())?;
            anyhow::ensure!(bench.station.api.users().is_empty(), "a user was created");
            bench.has_no_leftovers()?;
            // The credentials may not be removed either.
            bench.give_image()?;
            bench.device(SERIAL, &[])?.ended_with(0)?;
            std::os::unix::fs::chown(sum_file(&bench.image()), Some(0), Some(0))?;
            let before = Snapshot::of(&bench.image())?;
            let code = bench.verb("clear")?.code;
            anyhow::ensure!([74, 77].contains(&code.unwrap_or(-1)), "clear: {code:?}");
            before.is_still(&bench.image())?;
            bench.has_no_leftovers()
        },
    );
}
