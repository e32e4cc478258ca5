//! File descriptors that were opened before a password was written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::ensure;
use azaion_tests::programs::output;
use azaion_tests::station::{Station, command};

use crate::attacker::{Attacker, make_image, races, station, text};

const UNITS: usize = 10;

fn sh(script: &str, arguments: &[&str]) -> anyhow::Result<String> {
    output(&mut command(Path::new("sh"), &[&["-c", script, "sh"], arguments].concat()))
}

// Promise: no other user can open a copy that a batch makes of an image, at any moment.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn copies_of_an_image() -> anyhow::Result<()> {
    let station = station()?;
    let base = station.path("base.img");
    make_image(&station, &base)?;
    fs::set_permissions(&base, fs::Permissions::from_mode(0o644))?;
    fs::create_dir(station.path("units"))?;
    let units = text(&station.path("units"));
    let patterns = ["*", ".*", "*/*", ".*/*", "*/.*"].map(|pattern| format!("{units}/{pattern}"));
    let attacker = Attacker::start("grab", &patterns.each_ref().map(String::as_str))?;
    for _ in 0..races().div_ceil(UNITS) {
        let list = format!("AZJN-0001..AZJN-{UNITS:04}");
        let template = format!("{units}/{{serial}}");
        station.provision(&["batch", &list, "--rootfs", &template, "--base", &text(&base)])?.ended_with(0)?;
        for number in 1..=UNITS {
            fs::remove_file(station.path("units").join(format!("AZJN-{number:04}")))?;
        }
    }
    let result = attacker.stop()?;
    ensure!(result["tries"].as_u64() > Some(0) && result["opened"] == 0 && result["passwords"] == 0, "{result}");
    Ok(())
}

type Make = fn(&Station, &str) -> anyhow::Result<()>;

// Promise: another user who opened an image while it was world-readable cannot read the password of a device that is
// written into it after chmod 0600.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_image_that_was_open_to_all() -> anyhow::Result<()> {
    let kinds: [(&str, Make); 4] = [
        ("system.img", |station, image| make_image(station, Path::new(image))),
        ("tar.img", |station, image| sh("tar -C \"$1\" -cf \"$2\" .", &[&text(&station.rootfs()), image]).map(drop)),
        ("tar.zst.img", |station, image| {
            sh("tar -C \"$1\" -cf - . | zstd -q >\"$2\"", &[&text(&station.rootfs()), image]).map(drop)
        }),
        ("system.img.zst", |station, image| {
            make_image(station, &station.path("raw"))?;
            sh("zstd -q \"$1\" -o \"$2\"", &[&text(&station.path("raw")), image]).map(drop)
        }),
    ];
    for (name, make) in kinds {
        let station = station()?;
        let image = text(&station.path(name));
        make(&station, &image)?;
        fs::set_permissions(&image, fs::Permissions::from_mode(0o644))?;
        let attacker = Attacker::start("grab", &[&image])?;
        // Wait until the file is open.
        while !sh("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -cF -- \"-> $1\" || true", &[&image])?
            .trim()
            .parse()
            .is_ok_and(|n: u32| n > 0)
        {}
        fs::set_permissions(&image, fs::Permissions::from_mode(0o600))?;
        station.provision(&["device", "AZJN-0042", "--rootfs", &image])?.ended_with(0)?;
        let result = attacker.stop()?;
        ensure!(result["opened"] == 1 && result["passwords"] == 0, "{name}: {result}");
    }
    Ok(())
}

// Promise: a default access control list of the directory gives nobody else read access to the copy with the slot.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_access_control_list_of_the_directory() -> anyhow::Result<()> {
    let station = station()?;
    let images = station.path("images");
    fs::create_dir(&images)?;
    let image = images.join("system.img");
    make_image(&station, &image)?;
    fs::set_permissions(&image, fs::Permissions::from_mode(0o640))?;
    // u::rwx u:nobody:rwx g::r-x m::rwx o::---
    let give = "import os, struct, sys\n\
                e = [(1, 7, 0xffffffff), (2, 7, 65534), (4, 5, 0xffffffff), (16, 7, 0xffffffff), (32, 0, 0xffffffff)]\n\
                acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in e)\n\
                os.setxattr(sys.argv[1], 'system.posix_acl_default', acl)";
    output(&mut command(Path::new("python3"), &["-c", give, &text(&images)]))?;
    fs::create_dir(images.join("units"))?;
    fs::set_permissions(images.join("units"), fs::Permissions::from_mode(0o755))?;
    let base = station.path("base.img");
    make_image(&station, &base)?;
    let units = text(&images.join("units"));
    let patterns = [format!("{}/*", text(&images)), format!("{units}/*")];
    let attacker = Attacker::start("grab", &patterns.each_ref().map(String::as_str))?;
    station.provision(&["device", "AZJN-0042", "--rootfs", &text(&image), "--no-strict-modes"])?.ended_with(0)?;
    let template = format!("{units}/{{serial}}");
    let options = ["--base", &text(&base), "--no-strict-modes"];
    station
        .provision(&[&["batch", "AZJN-0001..AZJN-0002", "--rootfs", &template], &options[..]].concat())?
        .ended_with(0)?;
    for _ in 0..3 {
        sh("ls -l \"$1\" >/dev/null", &[&units])?;
    }
    let result = attacker.stop()?;
    ensure!(result["passwords"] == 0, "{result}");
    Ok(())
}
