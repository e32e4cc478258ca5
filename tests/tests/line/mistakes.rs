//! Operator errors on a production line and their effects: no device gets another's identity, and running the same
//! serial again repairs it.

use crate::factory::Factory;
use crate::flows::{FIRST, FLOWS, Flow, LOOP, NVME, ROOTFS, SD};

/// Runs a test on a host with its images, for each flow that can be tested here.
fn each_flow(one: impl Fn(&Flow, &Factory) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for flow in FLOWS.iter().filter(|flow| flow.is_possible()) {
        prepared(flow).and_then(|factory| one(flow, &factory)).map_err(|error| error.context(flow.name))?;
    }
    Ok(())
}

fn prepared(flow: &Flow) -> anyhow::Result<Factory> {
    let factory = Factory::new(flow.bsp)?;
    factory.type_in(&flow.step("once")?)?.ended_with(0)?;
    Ok(factory)
}

// Promise: without `clear` the next device is not flashed with the identity of the last one: `device` refuses until
// `clear`.
#[test]
fn clear_left_out() -> anyhow::Result<()> {
    each_flow(|flow, factory| {
        factory.type_in(&flow.without_clear()?)?.ended_with(0)?;
        let refused = factory.type_in(&flow.step("loop")?)?.ended_with(73)?;
        assert!(refused.stderr.contains("holds the device.conf of AZJN-0042; clear it"), "{}", refused.stderr);
        assert_eq!((factory.boards(), factory.station.api.users().len()), (1, 1));
        factory.is_unit(1, FIRST, flow.partitions)?;
        factory.type_in(&flow.only("azaion-provision clear")?)?.ended_with(0)?;
        factory.is_clear()?;
        factory.type_in(&flow.loop_of(&LOOP[..1])?)?.ended_with(0)?;
        factory.is_unit(2, LOOP[0], flow.partitions)?;
        factory.is_clear()
    })
}

// Promise: a flash that fails halfway stops the loop; the same serial again continues with the same account and
// password.
#[test]
fn a_flash_that_fails() -> anyhow::Result<()> {
    each_flow(|flow, factory| {
        factory.cut_flash(2)?;
        factory.type_in(&flow.step("loop")?)?.ended_with(1)?;
        assert_eq!((factory.boards(), factory.station.api.users().len()), (1, 2));
        assert!(!factory.identities()?.is_empty(), "{}", flow.name);
        factory.type_in(&flow.loop_of(&LOOP[1..])?)?.ended_with(0)?;
        for (number, serial) in (1..).zip(LOOP) {
            factory.is_unit(number, serial, flow.partitions)?;
        }
        let first_try = [flow.recorded(LOOP[0], "created"), vec![format!("{} created", LOOP[1])]].concat();
        let again = [flow.recorded(LOOP[1], "reused"), flow.recorded(LOOP[2], "created")].concat();
        assert_eq!(factory.record()?, [first_try, again].concat());
        factory.is_clear()
    })
}

// Promise: a host that cannot reach the API flashes nothing, and running the same serial again is enough.
#[test]
fn no_api() -> anyhow::Result<()> {
    each_flow(|flow, factory| {
        let elsewhere = format!("AZAION_API_URL=https://127.0.0.1:1\n{}", flow.step("loop")?);
        let elsewhere = elsewhere.replace("device \"$serial\"", "device \"$serial\" --deadline 1");
        factory.type_in(&elsewhere)?.ended_with(69)?;
        assert_eq!(factory.boards(), 0);
        factory.is_clear()?;
        factory.type_in(&flow.loop_of(&LOOP[..1])?)?.ended_with(0)?;
        factory.is_unit(1, LOOP[0], flow.partitions)
    })
}

// Promise: images may be generated again between two devices.
#[test]
fn generated_again_between_devices() -> anyhow::Result<()> {
    each_flow(|flow, factory| {
        factory.type_in(&flow.loop_of(&LOOP[..1])?)?.ended_with(0)?;
        factory.type_in(&flow.step("once")?)?.ended_with(0)?;
        factory.type_in(&flow.loop_of(&LOOP[1..2])?)?.ended_with(0)?;
        factory.is_unit(1, LOOP[0], flow.partitions)?;
        factory.is_unit(2, LOOP[1], flow.partitions)?;
        factory.is_clear()
    })
}

// Promise: images generated again after `device` produce a device without identity, which `clear` and the device
// report; the same serial again repairs it.
#[test]
fn generated_again_before_the_flash() -> anyhow::Result<()> {
    for flow in [SD, NVME] {
        let factory = prepared(&flow)?;
        factory.type_in(&flow.only("azaion-provision device")?)?.ended_with(0)?;
        factory.type_in(&flow.step("once")?)?.ended_with(0)?;
        factory.type_in(&flow.only("flash.sh")?)?.ended_with(0)?;
        factory.start_up(1, "APP")?.ended_with(78)?;
        let cleared = factory.type_in(&flow.only("azaion-provision clear")?)?.ended_with(0)?;
        assert!(cleared.stdout.contains("no device.conf found"), "{}", cleared.stdout);
        let again = factory.type_in(&flow.step("unit")?)?.ended_with(0)?;
        assert!(again.stdout.contains("azaion-jetson-0042@azaion.com updated"), "{}", again.stdout);
        factory.is_unit(2, FIRST, flow.partitions)?;
        factory.is_clear()?;
    }
    Ok(())
}

// Promise: without `device` a flashed device has no identity, not the last one's, and reports it.
#[test]
fn device_left_out() -> anyhow::Result<()> {
    each_flow(|flow, factory| {
        factory.type_in(&flow.step("unit")?)?.ended_with(0)?;
        factory.type_in(&flow.only("flash.sh")?)?.ended_with(0)?;
        factory.is_unit(1, FIRST, flow.partitions)?;
        for partition in flow.partitions {
            factory.start_up(2, partition)?.ended_with(78)?;
        }
        factory.is_clear()
    })
}

// Promise: before there are images nothing is flashed, and no account is created.
#[test]
fn images_not_generated() -> anyhow::Result<()> {
    for flow in [SD, NVME] {
        let factory = Factory::new(flow.bsp)?;
        factory.type_in(&flow.step("unit")?)?.ended_with(66)?;
        factory.type_in(&flow.only("flash.sh")?)?.ended_with(1)?;
        assert_eq!((factory.boards(), factory.station.api.users().len()), (0, 0));
    }
    Ok(())
}

// Promise: if only the directory is cleared, the images generated from it are found and cleared later, too.
#[test]
fn only_the_directory_cleared() -> anyhow::Result<()> {
    if !ROOTFS.is_possible() {
        return Ok(());
    }
    let factory = prepared(&ROOTFS)?;
    factory.type_in(&ROOTFS.without_clear()?)?.ended_with(0)?;
    factory.type_in("azaion-provision clear rootfs")?.ended_with(0)?;
    assert!(factory.is_clear().is_err(), "the images should still contain it");
    let images = "bootloader/system.img bootloader/system.img.raw tools/kernel_flash/images/external/system.img";
    let inside = factory.type_in(&format!("azaion-provision inspect {images} --json"))?.ended_with(0)?.json_lines()?;
    assert!(inside.iter().all(|image| image["serial"] == FIRST) && inside.len() == 3, "{inside:?}");
    // They do not block the loop: they are generated again for the next device.
    factory.type_in(&ROOTFS.loop_of(&LOOP[..1])?)?.ended_with(0)?;
    factory.is_unit(1, FIRST, ROOTFS.partitions)?;
    factory.is_unit(2, LOOP[0], ROOTFS.partitions)?;
    factory.is_clear()
}

// Promise: the page is right about `-r`: l4t_initrd_flash.sh consumes the next word, `--flash-only`, and generates the
// images again. The device has no identity, which it and `clear` report.
#[test]
fn dash_r_in_the_initrd_flow() -> anyhow::Result<()> {
    let factory = prepared(&NVME)?;
    factory.type_in(&NVME.only("azaion-provision device")?)?.ended_with(0)?;
    factory.type_in(&NVME.only("flash.sh")?.replace("--flash-only", "-r --flash-only"))?.ended_with(0)?;
    factory.start_up(1, "APP")?.ended_with(78)?;
    let cleared = factory.type_in(&NVME.only("azaion-provision clear")?)?.ended_with(0)?;
    assert!(cleared.stdout.contains("no device.conf found"), "{}", cleared.stdout);
    Ok(())
}
