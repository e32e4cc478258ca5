//! Unusual and hostile images: either refused, unchanged, with a message that says what to do; or accepted like others.

mod archives;
mod content;
mod features;
mod malformed;
mod places;
mod sparse_files;
mod zstd;

use std::fs;

use azaion_tests::programs::Run;

use crate::archive::sum_file;
use crate::bench::{Bench, EMAIL, SERIAL, Snapshot, User, for_each, is_root};
use crate::recipe::{self, PLAIN, Tree, mkfs, patch, to_sparse};

/// How an unusual image is made from a usual one.
enum Make {
    /// Options of mke2fs.
    Mkfs(&'static str),
    /// Another tree.
    Tree(Tree),
    /// Requests of debugfs, for an image with a file of one block in place of the device's.
    Debugfs(&'static str),
    /// Bytes at an offset of an image.
    Patch(u64, &'static [u8]),
    /// Not an image: these bytes, and zeros.
    Bytes(u64, &'static [u8]),
    /// Any other function.
    By(fn(&Bench) -> anyhow::Result<()>),
    /// Changes to a sparse image.
    Sparse(fn(&Bench) -> anyhow::Result<()>),
    /// Any other function, which needs root.
    ByRoot(fn(&Bench) -> anyhow::Result<()>),
}

/// An image, the exit code of `device` for it, and a part of its message.
struct Row {
    name: &'static str,
    make: Make,
    code: i32,
    says: &'static str,
}

const fn refused(name: &'static str, make: Make, says: &'static str) -> Row {
    Row { name, make, code: 66, says }
}

/// A `device.conf` that cannot be parsed.
const fn malformed(name: &'static str, make: Make) -> Row {
    Row { name, make, code: 65, says: "device.conf" }
}

const fn good(name: &'static str, make: Make) -> Row {
    Row { name, make, code: 0, says: "" }
}

/// One block of text in place of the device's file.
const ONE_BLOCK: Tree = |tree| recipe::put(&tree.join("etc/azaion/device.conf"), [b'#'; 4096], 0o600);

impl Row {
    fn make(&self, bench: &Bench) -> anyhow::Result<()> {
        let image = bench.image();
        match self.make {
            Make::Mkfs(options) => mkfs(bench, &image, options, PLAIN),
            Make::Tree(change) => mkfs(bench, &image, "", change),
            Make::Debugfs(requests) => {
                mkfs(bench, &image, "", ONE_BLOCK)?;
                recipe::debugfs(&image, requests)
            }
            Make::Patch(offset, bytes) => {
                mkfs(bench, &image, "", PLAIN)?;
                patch(&image, offset, bytes)
            }
            Make::Bytes(offset, bytes) => {
                recipe::put(&image, "", 0o644)?;
                recipe::resize(&image, 1 << 20)?;
                patch(&image, offset, bytes)
            }
            Make::By(make) | Make::ByRoot(make) => make(bench),
            Make::Sparse(change) => {
                mkfs(bench, &image, "", PLAIN)?;
                to_sparse(&image)?;
                change(bench)
            }
        }
    }

    /// Checks exit code, message and effect of `device`.
    fn try_device(&self, bench: &Bench) -> anyhow::Result<()> {
        let before = Snapshot::of(&bench.image())?;
        let sum = sum_beside(bench)?;
        let beside = bench.beside()?;
        let run = bench.device(SERIAL, &[])?.ended_with(self.code)?;
        anyhow::ensure!(run.stderr.contains(self.says), "did not print {:?}: {}", self.says, run.stderr);
        if self.code == 0 {
            return bench.holds(SERIAL, EMAIL);
        }
        assert_eq!(bench.beside()?, beside);
        anyhow::ensure!(bench.station.api.users().is_empty(), "a user was created");
        before.is_still(&bench.image())?;
        assert_eq!(sum_beside(bench)?, sum);
        self.try_verbs(bench, &before, sum.as_ref())
    }

    /// Checks that the other verbs, whether they succeed or not, change nothing that `device` would refuse.
    fn try_verbs(&self, bench: &Bench, before: &Snapshot, sum: Option<&Snapshot>) -> anyhow::Result<()> {
        for verb in ["inspect", "clear"] {
            let run: Run = bench.verb(verb)?;
            let code = run.code.unwrap_or(-1);
            // An image that was not unmounted cleanly is still read, and its content may not be a device.conf.
            let is_read = verb == "inspect" && code == 65 && run.stderr.contains("not unmounted cleanly");
            anyhow::ensure!(is_read || [0, self.code].contains(&code), "{}", run.words());
            // A file of one block that is not a device's may be removed.
            if verb == "inspect" || code != 0 || run.json_lines()?[0]["cleared"] == false {
                before.is_still(&bench.image())?;
                assert_eq!(sum_beside(bench)?.as_ref(), sum);
            }
        }
        Ok(())
    }
}

/// Returns the checksum file, if it is a regular file.
fn sum_beside(bench: &Bench) -> anyhow::Result<Option<Snapshot>> {
    let file = sum_file(&bench.image());
    let is_file = file.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| Snapshot::of(&file)).transpose()
}

fn try_all(rows: &[Row]) {
    let rows = rows.iter().filter(|row| is_root() || !matches!(row.make, Make::ByRoot(_)));
    for_each(
        rows,
        |row| row.name.to_owned(),
        |row| {
            let bench = Bench::with(User::Caller)?;
            row.make(&bench)?;
            row.try_device(&bench)
        },
    );
}

/// Truncates the image's content to `size` bytes.
fn cut(bench: &Bench, size: impl FnOnce(u64) -> u64) -> anyhow::Result<()> {
    let length = fs::metadata(bench.image())?.len();
    recipe::resize(&bench.image(), size(length))
}
