//! Benchmarks writing a device into compressed images: the first device against decompressing and copying the image,
//! later ones against a directory, and against the procedure without this tool.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use azaion_tests::dev_api::{Hashing, Options};
use azaion_tests::programs::{self, output};
use azaion_tests::station::{Station, command};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::images::{timed, write};
use crate::measure::{Bound, Row, in_few_turns, in_turns, peak, time};

/// Size of the archive's content; a real one is four times as large.
const CONTENT: usize = 1600 << 20;
/// Number of rounds for measurements that take seconds.
const FEW: usize = 3;
/// Maximum peak memory in MiB for the first device at a zstd window of 2 MiB.
const MEMORY: f64 = 48.0;

/// The procedure without this tool: decompress the archive, append a member, compress all of it again.
const REPACK: &str = "zstd -qdc system.img >plain.tar && tar --append -f plain.tar -C root ./etc/azaion && \
                      zstd -q -T0 -f plain.tar -o repacked";

/// Compressed images of one root file system.
pub(crate) struct Compressed {
    directory: TempDir,
    station: Station,
    rounds: usize,
}

impl Compressed {
    pub(crate) fn new(rounds: usize) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(programs::target_dir())?;
        let station = Station::new(Options { hashing: Hashing::Cheap, limits: false, ..Options::default() })?;
        let images = Self { directory, station, rounds };
        eprintln!("creating compressed images of {} MiB", CONTENT >> 20);
        images.make_tree()?;
        // As the flash scripts create them (jetson.md of R36.5 and R39.2: `tar -I 'zstd -T0'`, and zstd of a raw file).
        images.sh("tar --numeric-owner --xattrs '--xattrs-include=*' -I 'zstd -T0' -cf large.img -C root .")?;
        images
            .sh("tar --numeric-owner --xattrs '--xattrs-include=*' -I 'zstd -T0' -cf small.img -C root ./etc ./boot ./usr/1 ./usr/2 ./usr/3 ./usr/4")?;
        images.sh("mkdir -p root/etc/azaion && echo x >root/etc/azaion/device.conf")?;
        images.sh("truncate -s 4G raw && PATH=$PATH:/usr/sbin mkfs.ext4 -q -F -b 4096 -d root raw && zstd -q -T0 raw -o large.img.zst && rm raw")?;
        images.sh(
            "for i in large.img small.img large.img.zst; do sha1sum $i | cut -c-40 >$i.sha1sum; chmod 600 $i; done",
        )?;
        Ok(images)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn sh(&self, script: &str) -> anyhow::Result<String> {
        output(Command::new("sh").args(["-ec", script]).current_dir(self.directory.path()))
    }

    /// Writes words and numbers that compress to a third, as a root file system does.
    fn make_tree(&self) -> anyhow::Result<()> {
        self.sh("mkdir -p root/etc root/boot root/usr; echo host >root/etc/hostname; echo kernel >root/boot/Image")?;
        let mut number = 1_u64;
        let mut words = vec![0_u8; 1 << 20];
        for file in 0..CONTENT / words.len() {
            for word in words.chunks_mut(8) {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Sixteen letters.
                let [a, b, c, d, ..] = (number >> 24).to_be_bytes().map(|byte| b'a' + (byte & 15));
                word.copy_from_slice(&[b'\n', d, c, b' ', b'x', a, b, b'\t']);
            }
            File::create(self.path(&format!("root/usr/{file}")))?.write_all(&words)?;
        }
        Ok(())
    }

    /// Creates a fresh copy of an image with its checksum.
    fn fresh(&self, from: &str, to: &str) -> anyhow::Result<PathBuf> {
        self.sh(&format!("rm -f .{to}.*; cp {from} {to}; cp {from}.sha1sum {to}.sha1sum; sync"))?;
        Ok(self.path(to))
    }

    /// Measures all rows.
    pub(crate) fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = vec![
            self.first(
                "large.img",
                "system.img",
                "zstd -qdc large.img >/dev/null && cp large.img copy",
                "first device of a tar.zst / zstd -dc and a copy",
                Bound::Ratio(1.5),
            )?,
            self.memory()?,
        ];
        rows.extend(self.later()?);
        rows.push(self.first(
            "large.img.zst",
            "system.img.zst",
            "zstd -qdc large.img.zst | zstd -q -T0 >copy",
            "first device of an ext4.zst / zstd -dc | zstd -T0",
            Bound::Ratio(2.0),
        )?);
        Ok(rows)
    }

    fn first(&self, from: &str, to: &str, beside: &str, what: &'static str, bound: Bound) -> anyhow::Result<Row> {
        let (ours, theirs) = in_few_turns(
            &mut (),
            FEW,
            |()| {
                let image = self.fresh(from, to)?;
                timed(|| write(&image, 1))
            },
            |()| {
                self.sh("rm -f copy; sync")?;
                timed(|| self.sh(beside).map(drop))
            },
        )?;
        Ok(Row { what, ours, theirs, bound, ..Row::EMPTY })
    }

    /// Returns the complete command on an image or a directory.
    fn device(&self, serial: &str, rootfs: &Path) -> Command {
        let program = programs::target_dir().join("station/azaion-provision");
        let mut command = command(&program, &["device", serial, "--replace", "--owner"]);
        command.arg(if geteuid().is_root() { "root" } else { "current" });
        command.arg("--rootfs").arg(rootfs).args(self.station.api_arguments());
        command
    }

    fn memory(&self) -> anyhow::Result<Row> {
        let image = self.fresh("large.img", "system.img")?;
        let ours = peak(&self.device("AZJN-M1", &image))?;
        Ok(Row { what: "memory of that", ours, theirs: MEMORY, unit: "MiB", bound: Bound::Ratio(1.0) })
    }

    fn later(&self) -> anyhow::Result<Vec<Row>> {
        let large = self.path("system.img");
        let small = self.fresh("small.img", "small-copy.img")?;
        write(&small, 1)?;
        let directory = self.path("tree");
        fs::create_dir_all(directory.join("etc"))?;
        let row = |what, (ours, theirs), bound| Row { what, ours, theirs, bound, ..Row::EMPTY };
        let on_directory = in_turns(
            self.rounds,
            |round| time(self.device(&format!("AZJN-Z{round}"), &large)),
            |round| time(self.device(&format!("AZJN-Y{round}"), &directory)),
        )?;
        let flat =
            in_turns(self.rounds, |round| timed(|| write(&large, round)), |round| timed(|| write(&small, round)))?;
        let repack =
            in_few_turns(&mut (), FEW, |()| timed(|| write(&large, 7)), |()| timed(|| self.sh(REPACK).map(drop)))?;
        Ok(vec![
            row("device on a tar.zst / on a directory", on_directory, Bound::More(3.0)),
            row("later device, large tar.zst / small tar.zst", flat, Bound::Ratio(1.2)),
            row("later device / decompress, append, compress", repack, Bound::Ratio(1.0 / 500.0)),
        ])
    }
}
