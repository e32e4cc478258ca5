//! Each flow of the page from its first line to the last unit.

use std::fs;

use azaion_tests::pages::contains_in_order;

use crate::docs::{LINE, recorded};
use crate::factory::{Factory, is_root};

/// The serials that the page has: one on its own, and those of the loop.
pub(crate) const FIRST: &str = "AZJN-0042";
pub(crate) const LOOP: [&str; 3] = ["AZJN-0043", "AZJN-0044", "AZJN-0045"];

/// A flow of the page, or one that follows from what it says beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    /// The partitions that a board has then.
    pub(crate) partitions: &'static [&'static str],
    /// The targets that are cleared after each unit.
    pub(crate) targets: usize,
    /// What is replaced in the commands.
    changes: &'static [(&'static str, &'static str)],
}

pub(crate) const SD: Flow = Flow { name: "sd", partitions: &["APP"], targets: 1, changes: &[] };
pub(crate) const NVME: Flow = Flow { name: "nvme", ..SD };
const AB: Flow = Flow { name: "ab", partitions: &["APP", "APP_b"], targets: 2, changes: &[] };
pub(crate) const ROOTFS: Flow = Flow { name: "rootfs", targets: 3, ..SD };
pub(crate) const FLOWS: [Flow; 4] = [SD, NVME, AB, ROOTFS];

/// The page: "With `--sparse` after `--no-flash` the image is a sparse one instead".
const SPARSE: Flow = Flow { changes: &[("--no-flash", "--no-flash --sparse"), ("(tar)", "(sparse)")], ..NVME };
/// The page: "`flash.sh` with `ROOTFS_AB=1` has the two as …".
const AB_BY_FLASH_SH: Flow = Flow {
    name: "sd",
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
    /// Whether it can be tried: what goes into a folder belongs to root.
    pub(crate) fn is_possible(&self) -> bool {
        self.name != ROOTFS.name || is_root()
    }

    /// The commands of a step.
    pub(crate) fn step(&self, step: &str) -> anyhow::Result<String> {
        Ok(self.changed(LINE.commands(&format!("line={} {step}", self.name))?))
    }

    /// The loop, for these serials.
    pub(crate) fn loop_of(&self, serials: &[&str]) -> anyhow::Result<String> {
        let all = self.step("loop")?;
        let of = |serials: &[&str]| format!("for serial in {}; do", serials.join(" "));
        anyhow::ensure!(all.contains(&of(&LOOP)), "the loop has other serials: {all}");
        Ok(all.replace(&of(&LOOP), &of(serials)))
    }

    /// One unit, without taking its identity out again.
    pub(crate) fn without_clear(&self) -> anyhow::Result<String> {
        let unit = self.step("unit")?;
        Ok(unit.split("azaion-provision clear").next().unwrap().to_owned())
    }

    /// The commands of one unit that start with this, alone.
    pub(crate) fn only(&self, start: &str) -> anyhow::Result<String> {
        let unit = self.step("unit")?.replace("\\\n", "");
        Ok(unit.lines().filter(|line| line.contains(start)).collect::<Vec<_>>().join("\n"))
    }

    fn changed(&self, text: String) -> String {
        self.changes.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }

    /// What the loop's record says of a unit.
    pub(crate) fn recorded(&self, serial: &str, outcome: &str) -> Vec<String> {
        let cleared = vec![format!("{serial} cleared true"); self.targets];
        [vec![format!("{serial} {outcome}")], cleared].concat()
    }

    /// Does a step as the page has it, says what the page says, and has nothing to warn of.
    fn does(&self, factory: &Factory, step: &str) -> anyhow::Result<()> {
        let run = factory.type_in(&self.step(step)?)?.ended_with(0)?;
        assert!(!run.stderr.contains("azaion") && !run.stderr.contains("warning"), "{step}: {}", run.stderr);
        contains_in_order(&run.stdout, &self.changed(LINE.printed(&format!("line={} {step}", self.name))?));
        Ok(())
    }

    /// All of the page.
    fn whole(&self) -> anyhow::Result<()> {
        if !self.is_possible() {
            return Ok(());
        }
        let factory = Factory::new()?;
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
        contains_in_order(&fs::read_to_string(factory.path("units.jsonl"))?, &self.changed(recorded(self.name)?));
        assert_eq!(factory.record()?, LOOP.map(|serial| self.recorded(serial, "created")).concat());
        assert_eq!(factory.station.api.users().len(), 4);
        self.leaves_no_files(&factory)
    }

    /// Nothing of ours but what the contract names is beside the images.
    fn leaves_no_files(&self, factory: &Factory) -> anyhow::Result<()> {
        for folder in ["", "bootloader", "rootfs/etc/azaion", "tools/kernel_flash/images/external"] {
            let Ok(entries) = fs::read_dir(factory.path(folder)) else { continue };
            for entry in entries {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let is_state = name.starts_with(".system.img") && name.ends_with(".azaion-sha1");
                assert!(!name.starts_with('.') || is_state, "{folder}/{name} was left over");
                assert!(folder != "rootfs/etc/azaion" || name != "device.conf", "{}", self.name);
            }
        }
        Ok(())
    }
}

// Promise: on an SD card each unit is flashed with its own identity by `flash.sh -r`, and none is left at the station.
#[test]
fn sd_card() -> anyhow::Result<()> {
    SD.whole()
}

// Promise: so it is on NVMe, through `--no-flash` once and `--flash-only` for each, with an archive and its sum.
#[test]
fn nvme() -> anyhow::Result<()> {
    NVME.whole()
}

// Promise: so it is with a sparse image in the initrd flow.
#[test]
fn nvme_sparse() -> anyhow::Result<()> {
    SPARSE.whole()
}

// Promise: A and B have the same identity, in the initrd flow.
#[test]
fn a_and_b() -> anyhow::Result<()> {
    AB.whole()
}

// Promise: A and B have the same identity, by `flash.sh -r`.
#[test]
fn a_and_b_by_flash_sh() -> anyhow::Result<()> {
    AB_BY_FLASH_SH.whole()
}

// Promise: what is made of a folder with an identity in it is cleared with the folder.
#[test]
fn the_folder_itself() -> anyhow::Result<()> {
    ROOTFS.whole()
}
