//! Directories and names that are replaced during a run.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use azaion_tests::dev_api::Fault;
use azaion_tests::station::Station;
use serde_json::Value;

use crate::attacker::{Attacker, give, make_image, races, station, template_of, text, victim};

const UNITS: usize = 4;

/// Repeats a run during an attack; root's own directory must not change.
fn while_attacked(
    station: &Station,
    attack: &str,
    arguments: &[&str],
    mut run: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let before = victim(station)?;
    let attacker = Attacker::start(attack, arguments)?;
    let mut done = Ok(());
    for round in 0..races() {
        done = run().and_then(|()| {
            ensure!(victim(station)? == before, "round {round}: root's own directory has changed");
            Ok(())
        });
        if done.is_err() {
            break;
        }
    }
    let result = attacker.stop()?;
    done?;
    ensure!(
        result.get("rounds").and_then(Value::as_u64) > Some(races() as u64 / 2),
        "the attacker did not run often enough: {result}"
    );
    Ok(())
}

// Promise: a user who renames a directory on the path to an image and puts a symlink there cannot make the copy with
// the slot appear at the symlink's target, nor have files there replaced or their owner changed; also without strict
// modes.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_renamed_directory_of_an_image() -> anyhow::Result<()> {
    let station = station()?;
    let (image, original) = (station.path("shared/images/system.img"), station.path("original.img"));
    make_image(&station, &original)?;
    // The admin's login lies between the first check and the write.
    station.api.inject("POST", "/login", Fault::Delay(Duration::from_millis(10)), usize::MAX);
    let images = text(&station.path("shared/images"));
    while_attacked(&station, "turn", &[&images, &text(&station.path("victim"))], || {
        fs::create_dir_all(station.path("fresh"))?;
        fs::copy(&original, station.path("fresh/system.img"))?;
        give(&station.path("fresh/system.img"))?;
        // These fail while the attacker has renamed the directory; a later round then replaces it.
        let _ = fs::remove_dir_all(station.path("shared/images"));
        let _ = fs::rename(station.path("fresh"), station.path("shared/images"));
        station.provision(&["device", "AZJN-0042", "--rootfs", &text(&image), "--no-strict-modes"])?;
        Ok(())
    })
}

// Promise: a user who renames the directory of a batch's copies after it was opened cannot make a tree or an image
// appear elsewhere.
#[test]
#[cfg_attr(not(all(root, long)), ignore = "needs root and ./tests/run --all")]
fn a_renamed_directory_of_copies() -> anyhow::Result<()> {
    for is_image in [false, true] {
        let station = station()?;
        for number in 0..200 {
            station.put(&format!("rootfs/usr/{number}"), [0; 4096], 0o644)?;
        }
        let base = template_of(&station, is_image)?;
        let units = text(&station.path("shared/units"));
        let template = format!("{units}/{{serial}}");
        fs::create_dir(&units)?;
        let arguments = [units.as_str(), &text(&station.path("victim")), ".AZJN-0001.copying"];
        while_attacked(&station, "turn_when", &arguments, || {
            batch(&station, 1, &template, &text(&base))?;
            // Wait until the attacker has renamed it back.
            while !fs::symlink_metadata(&units).is_ok_and(|metadata| metadata.is_dir()) {}
            Ok(())
        })?;
    }
    Ok(())
}

// Promise: a symlink in place of a temporary file or directory is never followed, whenever it is created.
#[test]
#[cfg_attr(not(all(root, long)), ignore = "needs root and ./tests/run --all")]
fn a_symlink_in_place_of_a_temporary_file() -> anyhow::Result<()> {
    for (is_image, elsewhere) in
        [(false, "victim"), (true, "victim/system.img"), (false, "victim/none"), (true, "victim/none")]
    {
        let station = station()?;
        let base = template_of(&station, is_image)?;
        let units = station.path("shared/units");
        fs::create_dir(&units)?;
        give(&units)?;
        let template = format!("{}/{{serial}}", text(&units));
        let elsewhere = text(&station.path(elsewhere));
        let names = (1..=UNITS).flat_map(|number| {
            [".new", ".copying"].map(|ending| text(&units.join(format!(".AZJN-{number:04}{ending}"))))
        });
        let arguments: Vec<String> = std::iter::once(elsewhere).chain(names).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        while_attacked(&station, "plant", &arguments, || batch(&station, UNITS, &template, &text(&base)))?;
    }
    Ok(())
}

/// Runs a batch of a few devices, copied from a template and removed afterwards.
fn batch(station: &Station, units: usize, template: &str, base: &str) -> anyhow::Result<()> {
    let list = format!("AZJN-0001..AZJN-{units:04}");
    station.provision(&["batch", &list, "--rootfs", template, "--base", base, "--no-strict-modes"])?;
    for number in 1..=units {
        for parent in ["shared/units", "shared/units.aside"] {
            let target = station.path(parent).join(format!("AZJN-{number:04}"));
            let _ = fs::remove_dir_all(&target);
            let _ = fs::remove_file(&target);
        }
    }
    Ok(())
}
