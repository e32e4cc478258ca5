//! The owner's acceptance criteria, each for every generation of the API.

use std::fs;
use std::os::unix::fs::MetadataExt;

use azaion_agent::api::token::UserId;
use azaion_tests::dev_api::{Casing, ClaimNames, Generation, Options};
use azaion_tests::programs::arm64_agent;
use azaion_tests::station::{EMAIL, SERIAL, Station};
use jsonwebtoken::dangerous::insecure_decode;
use serde_json::{Map, Value};

const GENERATIONS: [(Generation, ClaimNames, Casing); 3] = [
    (Generation::G1, ClaimNames::Uri, Casing::Camel),
    (Generation::G2, ClaimNames::Short, Casing::Pascal),
    (Generation::G2b, ClaimNames::Uri, Casing::Snake),
];

fn each_generation(check: impl Fn(&Station, Generation) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for (generation, claims, casing) in GENERATIONS {
        let station = Station::new(Options { generation, claims, casing, limits: true, ..Options::default() })?;
        check(&station, generation).map_err(|error| error.context(format!("{generation:?}")))?;
    }
    Ok(())
}

// AC-1: a run for a new serial creates a user with the derived e-mail and the role CompanionPC.
#[test]
fn ac_1_a_run_leaves_a_user() -> anyhow::Result<()> {
    each_generation(|station, _| {
        let report = station.device(&[])?.ended_with(0)?.json_lines()?.remove(0);
        assert_eq!((&report["outcome"], &report["email"]), (&"created".into(), &EMAIL.into()));
        let users = station.api.users();
        assert_eq!(users.len(), 1);
        assert_eq!((users[0].email.as_str(), users[0].role.as_str(), users[0].enabled), (EMAIL, "CompanionPC", true));
        Ok(())
    })
}

// AC-2: afterwards the root file system holds device.conf with e-mail and password, 32 random characters, readable by
// root only.
#[test]
fn ac_2_the_root_file_system_holds_device_conf() -> anyhow::Result<()> {
    each_generation(|station, _| {
        station.device(&[])?.ended_with(0)?;
        let password = station.password().unwrap();
        assert!(password.len() == 32 && password.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert!(station.api.password_is(EMAIL, &password));
        assert_eq!(station.conf("AZAION_DEVICE_EMAIL").as_deref(), Some(EMAIL));
        assert_eq!(station.conf("AZAION_DEVICE_SERIAL").as_deref(), Some(SERIAL));
        assert_eq!(station.conf("AZAION_API_URL"), Some(station.api.url()));
        let file = fs::metadata(station.inside("etc/azaion/device.conf"))?;
        let folder = fs::metadata(station.inside("etc/azaion"))?;
        assert_eq!((file.mode() & 0o7777, folder.mode() & 0o7777), (0o600, 0o755));
        Ok(())
    })
}

// AC-3: the device reads device.conf, logs in, and has a valid JWT in the cache that the loader reads.
#[test]
fn ac_3_the_unit_gets_a_valid_token() -> anyhow::Result<()> {
    each_generation(|station, generation| {
        station.device(&[])?.ended_with(0)?;
        station.put_policy("")?;
        let run = station.agent(&["boot"])?.ended_with(0)?;
        is_ready(station, generation, &run.stdout);
        Ok(())
    })
}

// AC-3, with the shipped binary: aarch64, static, under user-mode emulation.
#[test]
fn ac_3_on_aarch64() -> anyhow::Result<()> {
    let agent = arm64_agent()?;
    each_generation(|station, generation| {
        station.device(&[])?.ended_with(0)?;
        station.put_policy("")?;
        let run = station.agent_as(&agent, &["qemu-aarch64-static"], &["boot"])?.ended_with(0)?;
        is_ready(station, generation, &run.stdout);
        Ok(())
    })
}

fn is_ready(station: &Station, generation: Generation, console: &str) {
    let signature = if generation == Generation::G1 { "unverified" } else { "verified" };
    assert!(console.contains(SERIAL) && console.contains("ready"), "{console}");
    let ready = station.json("run/azaion/ready.json").unwrap();
    assert_eq!(ready["ready"], true);
    assert_eq!((&ready["serial"], &ready["email"]), (&SERIAL.into(), &EMAIL.into()));
    assert_eq!(ready["signature"], signature);
    let token = station.json("run/azaion/token.json").unwrap();
    assert_eq!(
        (&token["email"], &token["role"], &token["token_type"]),
        (&EMAIL.into(), &"CompanionPC".into(), &"Bearer".into())
    );
    assert_eq!(token["access_token"].as_str().unwrap().split('.').count(), 3);
    let claims = insecure_decode::<Map<String, Value>>(token["access_token"].as_str().unwrap()).unwrap().claims;
    // `nameid`, or the URI with this ending.
    let (_, id) = claims.iter().find(|(name, _)| name.contains("nameid")).unwrap();
    assert!(
        (&token["user_id"], &ready["user_id"]) == (id, id) && id.as_str().unwrap().parse::<UserId>().is_ok(),
        "{id}"
    );
    for (name, mode) in [
        ("run/azaion/token.json", 0o640),
        ("run/azaion/ready.json", 0o644),
        ("run/azaion/refresh.json", 0o600),
        ("var/lib/azaion/first-boot.json", 0o644),
        ("var/lib/azaion/history.json", 0o644),
    ] {
        match fs::metadata(station.inside(name)) {
            Ok(file) => assert_eq!(file.mode() & 0o7777, mode, "{name}"),
            Err(_) => assert!(name.contains("refresh") && generation == Generation::G1, "{name} is missing"),
        }
    }
}

// AC-4: running it again for the same serial creates no second user, and does not change the file.
#[test]
fn ac_4_running_again_makes_no_second_user() -> anyhow::Result<()> {
    each_generation(|station, _| {
        station.device(&[])?.ended_with(0)?;
        let before = fs::read(station.inside("etc/azaion/device.conf"))?;
        for _ in 0..3 {
            let report = station.device(&[])?.ended_with(0)?.json_lines()?.remove(0);
            assert_eq!(report["outcome"], "reused");
        }
        assert_eq!(station.api.users().len(), 1);
        assert_eq!(fs::read(station.inside("etc/azaion/device.conf"))?, before);
        Ok(())
    })
}
