//! Images and checksums that were changed by hand, or are of another kind than this flow needs.

use azaion_tests::bsp::Bsp;
use azaion_tests::programs::Run;

use crate::factory::Factory;
use crate::flows::{FIRST, Flow, LOOP, NVME, NVME_R36_2};

/// Commands that add a file to an image, for each kind of archive.
const CHANGES: [(Flow, &str); 2] = [
    (NVME_R36_2, "tar --numeric-owner --owner=0 --group=0 -rf system.img by-hand"),
    (
        NVME,
        "zstd -qd system.img -o changed; tar --numeric-owner --owner=0 --group=0 -rf changed by-hand
         zstd -qf --rm -T0 changed -o system.img",
    ),
];
/// With R39.2, which needs no more options for a drive.
const GENERATE: &str = "./tools/kernel_flash/l4t_initrd_flash.sh --no-flash";
const SUM: &str = "sha1sum system.img | cut -d ' ' -f 1 >system.img.sha1sum";

/// A host after its first device of the initrd flow.
struct Line {
    flow: Flow,
    factory: Factory,
}

impl Line {
    fn new(flow: Flow) -> anyhow::Result<Self> {
        let factory = Factory::new(flow.bsp)?;
        factory.type_in(&flow.step("once")?)?.ended_with(0)?;
        // A copy to restore later.
        factory.type_in("cp -a tools/kernel_flash/images/external generated")?.ended_with(0)?;
        factory.type_in(&flow.step("unit")?)?.ended_with(0)?;
        Ok(Self { flow, factory })
    }

    fn by_hand(&self, commands: &str) -> anyhow::Result<()> {
        self.factory.type_in(&format!("cd tools/kernel_flash/images/external; {commands}"))?.ended_with(0).map(drop)
    }

    fn next(&self) -> anyhow::Result<Run> {
        self.factory.type_in(&self.flow.loop_of(&LOOP[..1])?)
    }

    fn goes_on(&self) -> anyhow::Result<()> {
        self.next()?.ended_with(0)?;
        self.factory.is_unit(1, FIRST, self.flow.partitions)?;
        self.factory.is_unit(2, LOOP[0], self.flow.partitions)?;
        self.factory.is_clear()
    }
}

// Promise: an image that was changed by hand and does not match its checksum accepts no device; after it is generated
// again, it does.
#[test]
fn changed_without_the_sum() -> anyhow::Result<()> {
    for (flow, change) in CHANGES {
        let line = Line::new(flow)?;
        line.by_hand(&format!("echo by hand >by-hand; {change}"))?;
        let refused = line.next()?.ended_with(66)?;
        assert!(refused.stderr.contains("does not match the .sha1sum"), "{}", refused.stderr);
        assert_eq!((line.factory.boards(), line.factory.station.api.users().len()), (1, 1));
        line.factory.type_in(&flow.step("once")?)?.ended_with(0)?;
        line.goes_on()?;
    }
    Ok(())
}

// Promise: an image that was changed by hand, with an updated checksum, accepts devices and keeps the change.
#[test]
fn changed_with_the_sum() -> anyhow::Result<()> {
    for (flow, change) in CHANGES {
        let line = Line::new(flow)?;
        line.by_hand(&format!("echo by hand >by-hand; {change}; {SUM}"))?;
        line.goes_on()?;
        assert!(line.factory.board(2, "APP")?.join("by-hand").exists());
    }
    Ok(())
}

// Promise: a damaged checksum is corrected, because the checksum state proves that the image is unchanged.
#[test]
fn a_spoilt_sum() -> anyhow::Result<()> {
    for (flow, _) in CHANGES {
        let line = Line::new(flow)?;
        line.by_hand("printf '%040d\\n' 0 >system.img.sha1sum")?;
        line.goes_on()?;
    }
    Ok(())
}

// Promise: images restored from a copy accept devices, whatever state was stored for the replaced ones.
#[test]
fn restored_from_a_copy() -> anyhow::Result<()> {
    for (flow, _) in CHANGES {
        let line = Line::new(flow)?;
        line.factory.type_in("cp -a generated/. tools/kernel_flash/images/external/")?.ended_with(0)?;
        line.goes_on()?;
    }
    Ok(())
}

// Promise: an image without its checksum is not flashed; a checksum created by hand is accepted.
#[test]
fn the_sum_removed() -> anyhow::Result<()> {
    let line = Line::new(NVME)?;
    line.by_hand("rm system.img.sha1sum")?;
    line.next()?.ended_with(1)?;
    assert_eq!(line.factory.boards(), 1);
    line.by_hand(SUM)?;
    line.goes_on()
}

// Promise: an image with a name by which the flasher takes it for another kind accepts no device, and the message says
// why.
#[test]
fn renamed() -> anyhow::Result<()> {
    let compressed_tar = ("", "system.img", "system.img.zst", "is a compressed tar archive, but the flasher takes");
    let disk_image =
        ("--sparse", "system.img.zst", "system.img", "is a compressed disk image, but the flasher unpacks");
    for (options, from, to, why) in [compressed_tar, disk_image] {
        let factory = Factory::new(Bsp::R39_2)?;
        factory.type_in(&format!("{GENERATE} {options} jetson-orin-nano-devkit internal"))?.ended_with(0)?;
        let image = format!("tools/kernel_flash/images/external/{to}");
        factory.type_in(&format!("mv tools/kernel_flash/images/external/{from} {image}"))?.ended_with(0)?;
        let refused =
            factory.type_in(&format!("azaion-provision device AZJN-0042 --rootfs {image}"))?.ended_with(66)?;
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(factory.station.api.users().is_empty());
    }
    Ok(())
}

// Promise: with `-k APP` a second line of flash.cfg names another image than `--sparse` alone; `check` warns about the
// one that is not flashed, and not about the other.
#[test]
fn not_the_image_that_is_flashed() -> anyhow::Result<()> {
    let factory = Factory::new(Bsp::R39_2)?;
    factory.type_in(&format!("{GENERATE} --sparse -k APP jetson-orin-nano-devkit internal"))?.ended_with(0)?;
    for (name, is_warned_of) in [("system.img.zst", true), ("system.img", false)] {
        let check = format!("azaion-provision check --rootfs tools/kernel_flash/images/external/{name}");
        let checked = factory.type_in(&check)?.ended_with(0)?;
        let warning = checked.stdout.lines().find(|line| line.starts_with("warning  flash-config"));
        assert_eq!(warning.is_some(), is_warned_of, "{name}: {}", checked.stdout);
    }
    Ok(())
}

// Promise: the page is right about an image that was decompressed in place: the flasher of JetPack 7 writes the tar to
// the drive unchanged, and the device does not boot.
#[test]
fn decompressed_in_place() -> anyhow::Result<()> {
    let factory = Factory::new(Bsp::R39_2)?;
    factory.type_in(&NVME.step("once")?)?.ended_with(0)?;
    let by_hand = format!("zstd -qd system.img -o tar; mv tar system.img; {SUM}");
    factory.type_in(&format!("cd tools/kernel_flash/images/external; {by_hand}"))?.ended_with(0)?;
    factory.type_in(&NVME.only("flash.sh")?)?.ended_with(0)?;
    assert!(!factory.is_bootable(1, "APP")?);
    Ok(())
}

// Promise: an image with only /boot, for devices with their root file system elsewhere, accepts no device.
#[test]
fn only_boot() -> anyhow::Result<()> {
    let factory = Factory::new(Bsp::R36_5)?;
    factory.type_in("./flash.sh --no-flash jetson-orin-nano-devkit nvme0n1p1")?.ended_with(0)?;
    let refused =
        factory.type_in("azaion-provision device AZJN-0042 --rootfs bootloader/system.img")?.ended_with(66)?;
    assert!(refused.stderr.contains("boot"), "{}", refused.stderr);
    assert!(factory.station.api.users().is_empty());
    Ok(())
}
