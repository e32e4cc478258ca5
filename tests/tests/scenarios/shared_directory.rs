//! `/run/azaion` is shared: another program may remove it at any moment, and may have its own files there.

use std::fs::{self, remove_dir_all};

use anyhow::Context;
use azaion_tests::dev_api::Options;
use azaion_tests::station::Station;

const RUN: &str = "run/azaion";

fn provisioned() -> anyhow::Result<Station> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("deadline_s = 5\n")?;
    Ok(station)
}

// Promise: a run during which the directory is removed, at whichever call, ends with 75 and leaves no files elsewhere;
// the next one creates the directory again, and the device is ready.
#[test]
fn it_vanishes_during_a_call() -> anyhow::Result<()> {
    for (method, path) in [("POST", "/login"), ("GET", "/.well-known/jwks.json")] {
        for is_made_again in [false, true] {
            let station = provisioned()?;
            let run = station.inside(RUN);
            let remove = move || {
                remove_dir_all(&run).expect("another program may do this");
                if is_made_again {
                    fs::create_dir(&run).expect("another program may do this");
                }
            };
            station.api.on_request(method, path, Box::new(remove));
            let ended = station.agent(&["boot"])?.ended_with(75).context(path)?;
            assert!(ended.stderr.contains("creates it again"), "{path}: {}", ended.stderr);
            assert_eq!(fs::read_dir(station.inside("run"))?.count(), usize::from(is_made_again), "{path}");
            station.agent(&["boot"])?.ended_with(0).context(path)?;
            assert_eq!(station.json("run/azaion/ready.json").context("ready.json")?["ready"], true);
        }
    }
    Ok(())
}

// Promise: a directory that was removed between two runs is created again; files and directories of other programs in
// it, also with names like the agent's, are unchanged.
#[test]
fn others_have_files_there() -> anyhow::Result<()> {
    let station = provisioned()?;
    let theirs = ["in-flight.d/.x", ".in-flight.swp", ".ready.json.bak", "token.json.d/token.json", "agent.lock.old"];
    for name in theirs {
        station.put(&format!("rootfs/{RUN}/{name}"), name, 0o644)?;
    }
    for _ in 0..2 {
        station.agent(&["boot"])?.ended_with(0)?;
        fs::remove_file(station.inside("run/azaion/token.json"))?;
    }
    for name in theirs {
        assert_eq!(fs::read_to_string(station.inside(RUN).join(name))?, name);
    }
    remove_dir_all(station.inside(RUN))?;
    station.agent(&["token"])?.ended_with(0)?;
    Ok(())
}
