//! The path lookups of a run as the kernel sees them: which names, and how often.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use azaion_tests::programs::start;
use azaion_tests::station::{Station, command};

use crate::attacker::{make_image, template_of, text};

/// Unique names of the directories on the path to a target.
const WAY: [&str; 3] = ["first-component", "second-component", "third-component"];

/// Runs a verb under strace and returns the calls with a path.
fn calls(station: &Station, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let log = station.path("strace");
    let ours = station.provision_command(arguments)?;
    let mut traced = command(
        Path::new("strace"),
        &["-f", "-qq", "-s", "4096", "-e", "trace=%file,mkdirat,openat,openat2", "-o", &text(&log)],
    );
    traced.arg(ours.get_program()).args(ours.get_args()).args(station.api_arguments());
    station.wait(start(&mut traced)?)?.ended_with(0)?;
    Ok(fs::read_to_string(log)?.lines().filter(|line| !line.contains("execve(")).map(str::to_owned).collect())
}

// Promise: a run looks up each directory on the path to a target once, by its name in its parent directory; no call
// gets the complete path, or a part of several components.
#[test]
fn each_component_once() -> anyhow::Result<()> {
    let folder = WAY.join("/");
    for (verb, name) in [("device", "rootfs"), ("device", "system.img"), ("batch", "rootfs"), ("batch", "system.img")] {
        let station = Station::new(azaion_tests::dev_api::Options::default())?;
        let target = station.path(&folder).join(name);
        for inner in ["etc", "usr"] {
            fs::create_dir_all(target.parent().unwrap_or(&target).join("rootfs").join(inner))?;
        }
        make_image(&station, &station.path(&folder).join("system.img"))?;
        let serial = if verb == "batch" { "AZJN-0042..AZJN-0042" } else { "AZJN-0042" };
        let calls = calls(&station, &[verb, serial, "--rootfs", &text(&target), "--owner", "current"])?;
        for component in WAY {
            let with: Vec<&String> = calls.iter().filter(|call| call.contains(component)).collect();
            ensure!(
                with.len() == 1 && with.iter().all(|call| call.contains(&format!("\"{component}\""))),
                "{verb} {name}: {with:#?}"
            );
        }
        ensure!(!calls.iter().any(|call| call.contains(&folder)), "{verb} {name}");
    }
    Ok(())
}

// Promise: the same for copies of a template, where the directories on the path are created.
#[test]
fn each_component_of_a_copy_once() -> anyhow::Result<()> {
    for is_image in [false, true] {
        let station = Station::new(azaion_tests::dev_api::Options::default())?;
        let base = template_of(&station, is_image)?;
        let template = text(&station.path(&WAY.join("/")).join("{serial}"));
        let options = ["--base", &text(&base), "--owner", "current"];
        let calls =
            calls(&station, &[&["batch", "AZJN-0042..AZJN-0042", "--rootfs", &template], &options[..]].concat())?;
        for component in WAY {
            let name = format!("\"{component}\"");
            let with: Vec<&String> = calls.iter().filter(|call| call.contains(component)).collect();
            // Looked up, created, opened.
            ensure!(with.len() == 3 && with.iter().all(|call| call.contains(&name)), "{is_image}: {with:#?}");
        }
    }
    Ok(())
}
