//! Benchmarks writing a device into images against the minimum disk time, and against the procedures without this tool.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use azaion_provision::target::{self, Owner};
use azaion_tests::dev_api::{Hashing, Options};
use azaion_tests::programs::{self, output};
use azaion_tests::station::{Station, command};
use nix::unistd::geteuid;
use secrecy::SecretString;
use tempfile::TempDir;

use crate::measure::{Bound, Row, in_turns, time};

/// Number of files in the root file system: as many as in NVIDIA's, which has two gigabytes of them.
const FILES: usize = 100_000;
const FOLDERS: usize = 1_000;
const FILE_BYTES: usize = 20_480;
const BLOCK: usize = 4096;
const GIB: u64 = 1 << 30;
/// The checks and locks around the write must not be noticeable to a user.
const RAW: Bound = Bound::Goal(2.0, 0.3);
/// Two writes are synced here: the trailing members and the checksum.
const TAR: Bound = Bound::Goal(3.0, 0.6);

/// Images of one root file system, each with a prepared slot.
pub(crate) struct Images {
    folder: TempDir,
    rounds: usize,
}

impl Images {
    pub(crate) fn new(rounds: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(programs::target_dir())?;
        let images = Self { folder, rounds };
        eprintln!("creating images of {FILES} files; this takes a minute or two");
        images.make_tree()?;
        let (tree, raw) = (images.path("tree"), images.path("system.img.raw"));
        images.make_file_system(&raw, 4 * GIB, Some(&tree))?;
        output(Command::new("img2simg").arg(&raw).arg(images.path("system.img")))?;
        output(
            Command::new("tar")
                .args(["-C"])
                .arg(&tree)
                .args(["--numeric-owner", "-cf"])
                .arg(images.path("tar.img"))
                .arg("."),
        )?;
        fs::remove_dir_all(&tree)?;
        output(Command::new("sh").current_dir(images.path("")).args(["-c", "sha1sum tar.img >tar.img.sha1sum"]))?;
        images.make_file_system(&images.path("1-GiB.img"), GIB, None)?;
        images.make_file_system(&images.path("14-GiB.img"), 14 * GIB, None)?;
        // Dirty pages of gigabytes would delay each synced write.
        output(&mut Command::new("sync"))?;
        Ok(images)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "a hundred thousand files that nobody else looks at")]
    fn make_tree(&self) -> anyhow::Result<()> {
        let mut content = vec![0_u8; FILE_BYTES];
        for folder in 0..FOLDERS {
            let path = self.path("tree/usr").join(folder.to_string());
            fs::create_dir_all(&path)?;
            for file in 0..FILES / FOLDERS {
                // All blocks differ, and none repeats one word, so deduplication or compression can't make the image
                // smaller.
                for (block, bytes) in content.chunks_mut(BLOCK).enumerate() {
                    let number = ((folder << 32) + (file << 8) + block) as u64;
                    bytes.chunks_mut(8).zip(number..).for_each(|(word, i)| {
                        word.copy_from_slice(&i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
                    });
                }
                fs::write(path.join(file.to_string()), &content)?;
            }
        }
        Ok(fs::create_dir_all(self.path("tree/etc"))?)
    }

    fn make_file_system(&self, image: &Path, size: u64, tree: Option<&Path>) -> anyhow::Result<()> {
        File::create(image)?.set_len(size)?;
        let empty = self.path("empty");
        fs::create_dir_all(empty.join("etc"))?;
        output(
            command(Path::new("mkfs.ext4"), &["-q", "-F", "-b", "4096", "-d"]).arg(tree.unwrap_or(&empty)).arg(image),
        )
        .map(drop)
    }

    /// Measures all rows.
    pub(crate) fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = vec![
            self.slot("slot in a raw image / bare 4 KiB", "system.img.raw", RAW)?,
            self.slot("slot in a sparse image / bare 4 KiB", "system.img", Bound::Ratio(4.0))?,
            self.slot("tail of a tar, .sha1sum / bare 4 KiB", "tar.img", TAR)?,
            self.flat()?,
        ];
        rows.extend(self.commands()?);
        Ok(rows)
    }

    /// In this process: open, locate, validate, write, sync, read back; compared with writing and syncing one block.
    fn slot(&self, what: &'static str, image: &str, bound: Bound) -> anyhow::Result<Row> {
        let image = self.path(image);
        write(&image, 0)?;
        let bare = self.bare_file()?;
        let mut device = 0;
        let (ours, theirs) = in_turns(
            self.rounds,
            |_| {
                device += 1;
                timed(|| write(&image, device))
            },
            |round| {
                // After its timestamps have been queried, the next write updates them (Linux 6.13), as a write does in
                // any case a clock tick after the last one; the new timestamps have to be synced, too.
                bare.metadata()?;
                timed(|| bare_write(&bare, round))
            },
        )?;
        Ok(Row { what, ours, theirs, unit: "ms", bound })
    }

    /// A file of many blocks, all allocated.
    fn bare_file(&self) -> anyhow::Result<File> {
        let path = self.path("bare");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        for block in 0..256 {
            file.write_all_at(&[1; BLOCK], block * BLOCK as u64)?;
        }
        file.sync_all()?;
        Ok(file)
    }

    fn flat(&self) -> anyhow::Result<Row> {
        let [small, large] = ["1-GiB.img", "14-GiB.img"].map(|name| self.path(name));
        write(&small, 0)?;
        write(&large, 0)?;
        let (ours, theirs) =
            in_turns(self.rounds, |round| timed(|| write(&large, round)), |round| timed(|| write(&small, round)))?;
        Ok(Row { what: "slot in 14 GiB / in 1 GiB", ours, theirs, unit: "ms", bound: Bound::Ratio(1.2) })
    }

    /// Measures the complete command on an image, on a directory, and against a loop mount.
    fn commands(&self) -> anyhow::Result<Vec<Row>> {
        let station = Station::new(Options { hashing: Hashing::Cheap, limits: false, ..Options::default() })?;
        let program = programs::target_dir().join("station/azaion-provision");
        let device = |serial: String, rootfs: &Path| {
            let mut command = command(&program, &["device", &serial, "--replace", "--owner"]);
            command.arg(if geteuid().is_root() { "root" } else { "current" });
            command.arg("--rootfs").arg(rootfs).args(station.api_arguments());
            time(command)
        };
        let (image, directory) = (self.path("system.img.raw"), station.path("tree"));
        fs::create_dir_all(directory.join("etc"))?;
        let row = |what, (ours, theirs), bound| Row { what, ours, theirs, unit: "ms", bound };
        let on_directory = in_turns(
            self.rounds,
            |round| device(format!("AZJN-I{round}"), &image),
            |round| device(format!("AZJN-D{round}"), &directory),
        )?;
        let mut rows = vec![row("device on an image / on a directory", on_directory, Bound::More(3.0))];
        if geteuid().is_root() {
            let mount_point = self.path("mount-point");
            fs::create_dir_all(&mount_point)?;
            let mount = |_| {
                let mut command = command(Path::new("sh"), &["-c", MOUNT, "sh"]);
                command.arg(self.path("mounted.img")).arg(&mount_point).arg(self.path("conf"));
                time(command)
            };
            fs::copy(&image, self.path("mounted.img"))?;
            File::create(self.path("conf"))?;
            let slot = in_turns(self.rounds, |round| timed(|| write(&image, round)), mount)?;
            rows.push(row("slot / loop mount, install, umount, sync", slot, Bound::Ratio(1.0 / 3.0)));
            let whole = in_turns(self.rounds, |round| device(format!("AZJN-M{round}"), &image), mount)?;
            rows.push(row("device, API and all / loop mount and so on", whole, Bound::None));
        }
        Ok(rows)
    }
}

/// The procedure without this tool, as root.
const MOUNT: &str = "mount -o loop \"$1\" \"$2\" && install -D -m 0600 \"$3\" \"$2/etc/azaion/device.conf\" && \
                     umount \"$2\" && sync -f \"$1\"";

/// Writes a new device into the image, as the `device` command does.
pub(crate) fn write(image: &Path, device: usize) -> anyhow::Result<()> {
    let conf = format!(
        "AZAION_DEVICE_SERIAL=AZJN-{device:04}\nAZAION_DEVICE_EMAIL=azaion-jetson-{device:04}@azaion.com\n\
         AZAION_DEVICE_PASSWORD=abcdefghijklmnopqrstuvwxyz{device:06}\nAZAION_API_URL=https://admin.example\n"
    );
    Ok(target::open(image)?.write(&SecretString::from(conf), Owner::Root)?)
}

fn bare_write(file: &File, round: usize) -> anyhow::Result<()> {
    let block = [u8::try_from(round % 251)?; BLOCK];
    file.write_all_at(&block, (round as u64 % 256) * BLOCK as u64)?;
    Ok(file.sync_data()?)
}

/// Returns the milliseconds that a closure takes.
pub(crate) fn timed(what: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    what()?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}
