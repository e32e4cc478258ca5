//! `azaion-agent --root DIR`: nothing outside the tree is read or written, whatever symlinks are in it.

use std::fs::{self, create_dir_all};
use std::os::unix::fs::symlink;
use std::path::Path;

use azaion_tests::dev_api::Options;
use azaion_tests::station::Station;

/// Returns the number of names below a directory.
fn count(folder: &Path) -> anyhow::Result<usize> {
    fs::read_dir(folder)?.try_fold(0, |sum, entry| {
        let path = entry?.path();
        Ok(sum + 1 + if path.is_dir() && !path.is_symlink() { count(&path)? } else { 0 })
    })
}

// Promise: one of our directories that is a symlink out of the tree, absolute or upwards, is resolved inside the tree,
// whether the target exists there or not.
#[test]
fn symlinks_lead_to_the_tree_itself() -> anyhow::Result<()> {
    for folder in ["run", "run/azaion", "var", "var/lib", "var/lib/azaion"] {
        for (is_upwards, is_inside) in [(false, false), (true, false), (false, true), (true, true)] {
            let station = Station::new(Options::default())?;
            station.device(&[])?.ended_with(0)?;
            station.put_policy("")?;
            station.api.forget_requests();
            let outside = station.path("outside");
            create_dir_all(outside.join("azaion"))?;
            create_dir_all(outside.join("lib/azaion"))?;
            let before = count(&outside)?;
            let place = station.inside(folder);
            create_dir_all(place.parent().unwrap())?;
            let up = if is_upwards { "../".repeat(30) } else { String::new() };
            symlink(format!("{up}{}", outside.display()), &place)?;
            // The directory of that name inside the tree.
            let inside = station.rootfs().join(outside.strip_prefix("/")?);
            if is_inside {
                create_dir_all(&inside)?;
            }
            let run = station.agent(&["boot"])?.ended_with(0)?;
            assert_eq!(count(&outside)?, before, "{folder}: {}", run.stderr);
            assert!(count(&inside)? > 0, "{folder}");
            // Data written there is read from there.
            station.agent(&["token"])?.ended_with(0)?;
            station.agent(&["status"])?.ended_with(0)?;
            assert_eq!((count(&outside)?, station.api.calls("POST", "/login")), (before, 1), "{folder}");
        }
    }
    Ok(())
}

// Promise: policy, CA and credentials of the machine that the agent runs on are not read through a symlink.
#[test]
fn files_outside_are_not_read() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    for name in ["agent.toml", "ca.pem"] {
        let (place, outside) = (station.inside("etc/azaion").join(name), station.path(name));
        fs::rename(&place, &outside)?;
        symlink(&outside, &place)?;
        let run = station.agent(&["boot"])?.ended_with(78)?;
        assert!(run.stderr.contains("No such file"), "{name}: {}", run.stderr);
        fs::remove_file(&place)?;
        fs::rename(&outside, &place)?;
    }
    // With /etc/azaion as a whole outside the tree there is no device.conf.
    fs::rename(station.inside("etc/azaion"), station.path("azaion"))?;
    symlink(station.path("azaion"), station.inside("etc/azaion"))?;
    let run = station.agent(&["boot"])?.ended_with(78)?;
    assert!(run.stderr.contains("is missing"), "{}", run.stderr);
    fs::remove_file(station.inside("etc/azaion"))?;
    fs::rename(station.path("azaion"), station.inside("etc/azaion"))?;
    station.agent(&["boot"])?.ended_with(0)?;
    Ok(())
}
