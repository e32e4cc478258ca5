//! Each flow of the page from its first line to the last device, for the releases that it exists in.

use std::fs;

use azaion_tests::bsp::Bsp;
use azaion_tests::pages::contains_in_order;

use crate::docs::{LINE, recorded};
use crate::factory::{Factory, is_root};

/// The serials on the page: a single one, and those of the loop.
pub(crate) const FIRST: &str = "AZJN-0042";
pub(crate) const LOOP: [&str; 3] = ["AZJN-0043", "AZJN-0044", "AZJN-0045"];

/// A flow of the page, or a variant that its text describes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    pub(crate) bsp: Bsp,
    /// The partitions of a board in this flow.
    pub(crate) partitions: &'static [&'static str],
    /// The number of targets that are cleared after each device.
    pub(crate) targets: usize,
    /// The block with the step "once", if it is another flow's.
    once: Option<&'static str>,
    /// Replacements in the commands.
    changes: &'static [(&'static str, &'static str)],
}

pub(crate) const SD: Flow =
    Flow { name: "sd", bsp: Bsp::R36_5, partitions: &["APP"], targets: 1, once: None, changes: &[] };
pub(crate) const NVME: Flow = Flow { name: "nvme", bsp: Bsp::R39_2, ..SD };
const AB: Flow = Flow { name: "ab", partitions: &["APP", "APP_b"], targets: 2, ..NVME };
pub(crate) const ROOTFS: Flow = Flow { name: "rootfs", targets: 4, ..NVME };
pub(crate) const FLOWS: [Flow; 4] = [NVME, AB, SD, ROOTFS];
/// The page: "Other releases".
const NVME_R36_5: Flow = Flow { bsp: Bsp::R36_5, once: Some(R36), changes: &[R36_FLASH], ..NVME };
pub(crate) const NVME_R36_2: Flow = Flow { bsp: Bsp::R36_2, changes: &[R36_FLASH, ("tar.zst", "tar")], ..NVME_R36_5 };
const AB_R36_5: Flow = Flow { bsp: Bsp::R36_5, changes: &[R36_FLASH], ..AB };

pub(crate) const R36: &str = "r36 once";
const R36_FLASH: (&str, &str) = ("--flash-only", "--flash-only --showlogs --network usb0");
/// The page: "With `--sparse`".
const SPARSE: Flow = Flow {
    changes: &[
        ("--no-flash", "--no-flash --sparse"),
        ("external/system.img", "external/system.img.zst"),
        ("tar.zst", "ext4.zst"),
    ],
    ..NVME
};
const SPARSE_R36_2: Flow =
    Flow { changes: &[R36_FLASH, ("--no-flash", "--no-flash --sparse"), ("tar.zst", "sparse")], ..NVME_R36_2 };
/// The page: "With `-k APP`".
const APP_ALONE: Flow = Flow {
    changes: &[("--no-flash", "--no-flash -k APP"), ("--flash-only", "--flash-only -k APP"), ("tar.zst", "sparse")],
    ..NVME
};
/// The page: "`flash.sh` with `ROOTFS_AB=1` builds …".
const AB_BY_FLASH_SH: Flow = Flow {
    name: "sd",
    bsp: Bsp::R36_5,
    changes: &[
        ("./flash.sh", "ROOTFS_AB=1 ./flash.sh"),
        ("--rootfs bootloader/system.img", "--rootfs bootloader/system.img --rootfs bootloader/system.img_b"),
        ("0600 bootloader/system.img", "0600 bootloader/system.img bootloader/system.img_b"),
        ("clear bootloader/system.img", "clear bootloader/system.img bootloader/system.img_b"),
        ("\"$serial\" bootloader/system.img", "\"$serial\" bootloader/system.img bootloader/system.img_b"),
        ("in bootloader/system.img (sparse)", "in bootloader/system.img (sparse) and bootloader/system.img_b (sparse)"),
        ("\"bootloader/system.img\"}]", "\"bootloader/system.img\"},…]"),
    ],
    ..AB
};

impl Flow {
    /// Returns whether it can be tested: files written into a directory belong to root.
    pub(crate) fn is_possible(&self) -> bool {
        self.name != ROOTFS.name || is_root()
    }

    /// Returns the commands of a step.
    pub(crate) fn step(&self, step: &str) -> anyhow::Result<String> {
        Ok(self.changed(LINE.commands(&self.block(step))?))
    }

    /// Returns the name of the block for a step, without its language.
    fn block(&self, step: &str) -> String {
        let own = format!("{} {step}", self.name);
        format!("line={}", self.once.filter(|_| step == "once").unwrap_or(&own))
    }

    /// Returns the loop for these serials.
    pub(crate) fn loop_of(&self, serials: &[&str]) -> anyhow::Result<String> {
        let all = self.step("loop")?;
        let of = |serials: &[&str]| format!("for serial in {}; do", serials.join(" "));
        anyhow::ensure!(all.contains(&of(&LOOP)), "the loop has other serials: {all}");
        Ok(all.replace(&of(&LOOP), &of(serials)))
    }

    /// Returns the commands for one device, without the step `clear`.
    pub(crate) fn without_clear(&self) -> anyhow::Result<String> {
        let unit = self.step("unit")?;
        Ok(unit.split("azaion-provision clear").next().unwrap().to_owned())
    }

    /// Returns the commands for one device that contain these words.
    pub(crate) fn only(&self, words: &str) -> anyhow::Result<String> {
        let unit = self.step("unit")?.replace("\\\n", "");
        Ok(unit.lines().filter(|line| line.contains(words)).collect::<Vec<_>>().join("\n"))
    }

    fn changed(&self, text: String) -> String {
        self.changes.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }

    /// Returns the loop's record of a device.
    pub(crate) fn recorded(&self, serial: &str, outcome: &str) -> Vec<String> {
        let cleared = vec![format!("{serial} cleared true"); self.targets];
        [vec![format!("{serial} {outcome}")], cleared].concat()
    }

    /// Runs a step of the page: the output is as on the page, without warnings, also of `tar`.
    fn does(&self, factory: &Factory, step: &str) -> anyhow::Result<()> {
        let run = factory.type_in(&self.step(step)?)?.ended_with(0)?;
        for word in ["azaion", "warning", "tar: "] {
            assert!(!run.stderr.contains(word), "{step}: {}", run.stderr);
        }
        contains_in_order(&run.stdout, &self.changed(LINE.printed(&self.block(step))?));
        Ok(())
    }

    /// Runs all steps of the page.
    fn whole(&self) -> anyhow::Result<()> {
        if !self.is_possible() {
            return Ok(());
        }
        let factory = Factory::new(self.bsp)?;
        self.does(&factory, "once")?;
        self.does(&factory, "unit")?;
        factory.is_unit(1, FIRST, self.partitions)?;
        factory.is_clear()?;
        self.does(&factory, "loop")?;
        assert_eq!(factory.boards(), 4);
        for (number, serial) in (2..).zip(LOOP) {
            factory.is_unit(number, serial, self.partitions)?;
        }
        factory.is_clear()?;
        contains_in_order(&fs::read_to_string(factory.path("devices.jsonl"))?, &self.changed(recorded(self.name)?));
        assert_eq!(factory.record()?, LOOP.map(|serial| self.recorded(serial, "created")).concat());
        assert_eq!(factory.station.api.users().len(), 4);
        self.leaves_no_files(&factory)
    }

    /// Checks that only the files of ours that the contract names are beside the images.
    fn leaves_no_files(&self, factory: &Factory) -> anyhow::Result<()> {
        for directory in ["", "bootloader", "rootfs/etc/azaion", "tools/kernel_flash/images/external"] {
            let Ok(entries) = fs::read_dir(factory.path(directory)) else { continue };
            for entry in entries {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let is_state = name.starts_with(".system.img") && name.ends_with(".azaion-sha1");
                assert!(!name.starts_with('.') || is_state, "{directory}/{name} was left over");
                assert!(directory != "rootfs/etc/azaion" || name != "device.conf", "{}", self.name);
            }
        }
        Ok(())
    }
}

// Promise: on an SD card `flash.sh -r` flashes each device with its own identity, and none is left on the host.
#[test]
fn sd_card() -> anyhow::Result<()> {
    SD.whole()
}

// Promise: the same on NVMe, with `--no-flash` once and `--flash-only` for each device. JetPack 7: a compressed tar.
#[test]
fn nvme() -> anyhow::Result<()> {
    NVME.whole()
}

// Promise: the same with a compressed disk image.
#[test]
fn nvme_sparse() -> anyhow::Result<()> {
    SPARSE.whole()
}

// Promise: the same if only one partition is flashed, from an Android sparse image.
#[test]
fn nvme_app_alone() -> anyhow::Result<()> {
    APP_ALONE.whole()
}

// Promise: the same on JetPack 6.2, with the commands of the page for it.
#[test]
fn nvme_r36_5() -> anyhow::Result<()> {
    NVME_R36_5.whole()
}

// Promise: the same on JetPack 6.0: a plain tar, or an Android sparse image.
#[test]
fn nvme_r36_2() -> anyhow::Result<()> {
    NVME_R36_2.whole()
}

// Promise: the same with an Android sparse image.
#[test]
fn nvme_r36_2_sparse() -> anyhow::Result<()> {
    SPARSE_R36_2.whole()
}

// Promise: A and B have the same identity, in the initrd flow of JetPack 7.
#[test]
fn a_and_b() -> anyhow::Result<()> {
    AB.whole()
}

// Promise: the same in that of JetPack 6.2.
#[test]
fn a_and_b_r36_5() -> anyhow::Result<()> {
    AB_R36_5.whole()
}

// Promise: A and B have the same identity, by `flash.sh -r`.
#[test]
fn a_and_b_by_flash_sh() -> anyhow::Result<()> {
    AB_BY_FLASH_SH.whole()
}

// Promise: an image generated from a directory with an identity in it is cleared with the directory.
#[test]
fn the_directory_itself() -> anyhow::Result<()> {
    ROOTFS.whole()
}
