//! Images and sums that somebody has changed by hand, or that are of another kind than this flow needs.

use azaion_tests::programs::Run;

use crate::factory::Factory;
use crate::flows::{FIRST, LOOP, NVME};

const CHANGE: &str = "echo by hand >by-hand; tar --numeric-owner --owner=0 --group=0 -rf system.img by-hand";
const SUM: &str = "sha1sum system.img >system.img.sha1sum";

/// A station after its first unit of the initrd flow.
struct Line {
    factory: Factory,
}

impl Line {
    fn new() -> anyhow::Result<Self> {
        let factory = Factory::new()?;
        factory.type_in(&NVME.step("once")?)?.ended_with(0)?;
        // For who goes back to it later.
        factory.type_in("cp -a tools/kernel_flash/images/external made")?.ended_with(0)?;
        factory.type_in(&NVME.step("unit")?)?.ended_with(0)?;
        Ok(Self { factory })
    }

    fn by_hand(&self, commands: &str) -> anyhow::Result<()> {
        self.factory.type_in(&format!("cd tools/kernel_flash/images/external; {commands}"))?.ended_with(0).map(drop)
    }

    fn next(&self) -> anyhow::Result<Run> {
        self.factory.type_in(&NVME.loop_of(&LOOP[..1])?)
    }

    fn goes_on(&self) -> anyhow::Result<()> {
        self.next()?.ended_with(0)?;
        self.factory.is_unit(1, FIRST, NVME.partitions)?;
        self.factory.is_unit(2, LOOP[0], NVME.partitions)?;
        self.factory.is_clear()
    }
}

// Promise: an image that was changed by hand and does not match its sum takes no device; made again, it does.
#[test]
fn changed_without_the_sum() -> anyhow::Result<()> {
    let line = Line::new()?;
    line.by_hand(CHANGE)?;
    let refused = line.next()?.ended_with(66)?;
    assert!(refused.stderr.contains("does not match the .sha1sum"), "{}", refused.stderr);
    assert_eq!((line.factory.boards(), line.factory.station.api.users().len()), (1, 1));
    line.factory.type_in(&NVME.step("once")?)?.ended_with(0)?;
    line.goes_on()
}

// Promise: an image that was changed by hand, with its sum, goes on, and keeps the change.
#[test]
fn changed_with_the_sum() -> anyhow::Result<()> {
    let line = Line::new()?;
    line.by_hand(&format!("{CHANGE}; {SUM}"))?;
    line.goes_on()?;
    assert!(line.factory.board(2, "APP/by-hand").exists());
    Ok(())
}

// Promise: a sum that somebody has spoilt is put right, for the image is known to be the one that was made.
#[test]
fn a_spoilt_sum() -> anyhow::Result<()> {
    let line = Line::new()?;
    line.by_hand("echo \"$(printf %040d 0)  system.img\" >system.img.sha1sum")?;
    line.goes_on()
}

// Promise: images put back from a copy go on, whatever was kept of those that were there.
#[test]
fn put_back_from_a_copy() -> anyhow::Result<()> {
    let line = Line::new()?;
    line.factory.type_in("cp -a made/. tools/kernel_flash/images/external/")?.ended_with(0)?;
    line.goes_on()
}

// Promise: without its sum an image is not flashed; made by hand, the sum serves.
#[test]
fn the_sum_taken_away() -> anyhow::Result<()> {
    let line = Line::new()?;
    line.by_hand("rm system.img.sha1sum")?;
    line.next()?.ended_with(1)?;
    assert_eq!(line.factory.boards(), 1);
    line.by_hand(SUM)?;
    line.goes_on()
}

// Promise: an image that holds only /boot, for units with their root file system elsewhere, takes no device.
#[test]
fn only_boot() -> anyhow::Result<()> {
    let factory = Factory::new()?;
    factory.type_in("./flash.sh --no-flash jetson-orin-nano-devkit nvme0n1p1")?.ended_with(0)?;
    let refused =
        factory.type_in("azaion-provision device AZJN-0042 --rootfs bootloader/system.img")?.ended_with(66)?;
    assert!(refused.stderr.contains("boot"), "{}", refused.stderr);
    assert!(factory.station.api.users().is_empty());
    Ok(())
}
