//! `--dry-run`: reports what would be done, and changes nothing.

use std::fs;
use std::path::Path;

use azaion_tests::dev_api::Options;

use super::{CONF, Line, outcomes, said, serials, text};

const RANGE: &str = "AZJN-0001..AZJN-0005";

/// Returns the state of everything below a directory: kinds, modes, owners, times and contents.
fn state(folder: &Path) -> anyhow::Result<String> {
    let script = "cd \"$1\" && find . -printf '%p %y %m %U:%G %n %s %T@ %C@\\n' | sort && find . -type f -exec sha256sum {} + | sort";
    said("sh", &["-c", script, "sh", &text(folder)])
}

/// Creates a host with a finished device, a started one, one with another's file, and two missing ones.
fn line() -> anyhow::Result<Line> {
    let line = Line::new(Options::default())?;
    line.batch("AZJN-0001..AZJN-0001", &[])?.ended_with(0)?;
    for (folder, serial) in [("AZJN-0002", "AZJN-0002"), ("AZJN-0003", "AZJN-0098")] {
        let conf = format!(
            "AZAION_DEVICE_SERIAL={serial}\nAZAION_DEVICE_EMAIL={}\nAZAION_DEVICE_PASSWORD=EarlierPassword00000000000000001\n\
             AZAION_API_URL={}\n",
            super::email(serial),
            line.station.api.url()
        );
        line.station.put(&format!("units/{folder}/{CONF}"), conf, 0o600)?;
    }
    line.station.api.forget_requests();
    Ok(line)
}

// Promise: a dry run changes no byte, mode or time of any target or of the template, makes no call, needs no admin
// password, and reports for each device what would be done; its exit code is that of the device that would fail.
#[test]
fn nothing_is_touched() -> anyhow::Result<()> {
    let line = line()?;
    fs::remove_file(line.station.path("admin-password"))?;
    let before = state(&line.station.path(""))?;
    let run = line.batch(RANGE, &["--dry-run", "--json"])?.ended_with(73)?;
    assert_eq!(state(&line.station.path(""))?, before);
    assert_eq!(line.station.api.requests().len(), 0);
    let expected = ["done", "would_resume", "failed", "would_create", "would_create"];
    let expected: Vec<_> = serials(1, 5).into_iter().zip(expected.map(str::to_owned)).collect();
    assert_eq!(outcomes(&run)?, expected);
    let run = line.batch(RANGE, &["--dry-run"])?.ended_with(73)?;
    for part in ["AZJN-0001: done (", "AZJN-0002: would_resume (", "AZJN-0005: would_create (", "AZJN-0098"] {
        assert!(run.stdout.contains(part), "{part} is not in {}", run.stdout);
    }
    assert_eq!(state(&line.station.path(""))?, before);
    Ok(())
}

// Promise: the same with images and a template that has no slot yet.
#[test]
fn images_are_not_touched() -> anyhow::Result<()> {
    let line = Line::new(Options::default())?;
    let images = line.station.path("images");
    fs::create_dir(&images)?;
    let base = text(&images.join("base.img"));
    let tree = text(&line.station.rootfs());
    said("mkfs.ext4", &["-q", "-F", "-b", "4096", "-d", &tree, &base, "16M"])?;
    said("cp", &[&base, &text(&images.join("AZJN-0001.img"))])?;
    let before = state(&images)?;
    let template = text(&images.join("{serial}.img"));
    let run = line.run(&[RANGE, "--rootfs", &template, "--base", &base, "--dry-run"])?.ended_with(0)?;
    assert!(run.stdout.contains("5 devices: 5 would_create"), "{}", run.stdout);
    assert_eq!((state(&images)?, line.station.api.requests().len()), (before, 0));
    // The real run does what was reported.
    line.run(&[RANGE, "--rootfs", &template, "--base", &base])?.ended_with(0)?;
    let run = line.run(&[RANGE, "--rootfs", &template, "--base", &base, "--dry-run"])?.ended_with(0)?;
    assert!(run.stdout.contains("5 devices: 5 done"), "{}", run.stdout);
    Ok(())
}
