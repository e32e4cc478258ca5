//! A `device.conf` that was not written by this project's host tool: that of the first shell script, with e-mail and
//! password only, and one of a server-assigned identity.

use std::process::Command;

use anyhow::{Context, ensure};
use azaion_tests::dev_api::{Generation, Options};
use azaion_tests::programs::output;
use azaion_tests::record;
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::Value;

use crate::journal::{boot_as_unit, entry};

const CONF: &str = "rootfs/etc/azaion/device.conf";
const READY: &str = "run/azaion/ready.json";
const GENERATIONS: [Generation; 3] = [Generation::G1, Generation::G2, Generation::G2b];
/// An identity from `POST /devices`.
const ASSIGNED: (&str, &str) = ("azj-0007", "azj-0007@azaion.com");

/// Returns a password in the form of both scripts.
fn old_password() -> anyhow::Result<String> {
    let password = output(Command::new("openssl").args(["rand", "-hex", "16"]))?.trim().to_owned();
    record::secret(&password)?;
    Ok(password)
}

/// Creates a device with an account and a `device.conf` of these lines, in which PASSWORD and URL are replaced.
fn device(generation: Generation, email: &str, lines: &str, policy: &str) -> anyhow::Result<Station> {
    let station = Station::new(Options { generation, ..Options::default() })?;
    let password = old_password()?;
    station.api.add_user(email, &password, "CompanionPC");
    let url = station.api.url();
    station.put(
        CONF,
        lines.replace("PASSWORD=", &format!("PASSWORD={password}")).replace("URL=", &format!("URL={url}")),
        0o600,
    )?;
    station.put_policy(&policy.replace("URL", &url))?;
    Ok(station)
}

/// Returns the content of `ready.json`.
fn readiness(station: &Station) -> anyhow::Result<Value> {
    station.json(READY).context("no ready.json")
}

const API_IN_POLICY: &str = "api_url = \"URL\"\n";
const V1: &str = "AZAION_DEVICE_EMAIL=azaion-jetson-0042@azaion.com\nAZAION_DEVICE_PASSWORD=\n";

// Promise: a `device.conf` of the first script, with e-mail and password only or with unknown keys, boots to ready with
// `api_url` in `agent.toml`, in each generation; the device is named by its e-mail, and `ready.json` has no serial.
#[test]
fn e_mail_and_password_alone() -> anyhow::Result<()> {
    for generation in GENERATIONS {
        for (more, warnings) in [("", 0), ("API_TOKEN=x\nAZAION_DEVICE_ROLE=CompanionPC\n# made by a script\n", 2)] {
            let station = device(generation, EMAIL, &format!("{V1}{more}"), API_IN_POLICY)?;
            let run = station.agent(&["boot"])?.ended_with(0)?;
            ensure!(run.stdout.starts_with(&format!("azaion: {EMAIL} is ready")), "{}", run.stdout);
            assert_eq!(run.stderr.matches("unknown key ignored").count(), warnings, "{}", run.stderr);
            let ready = readiness(&station)?;
            assert_eq!((&ready["ready"], &ready["email"]), (&true.into(), &EMAIL.into()), "{ready}");
            assert_eq!((ready.get("serial"), &ready["api_url"]), (None, &station.api.url().into()), "{ready}");
            station.agent(&["status"])?.ended_with(0)?;
        }
    }
    Ok(())
}

// Promise: the message names the reason why such a file cannot be used, and what to do; after that the device becomes
// ready with it.
#[test]
fn what_the_agent_wants_of_it() -> anyhow::Result<()> {
    let quoted = V1.replace("EMAIL=", "EMAIL=\"").replace(".com", ".com\"");
    for (lines, mode, policy, reason) in [
        (V1, 0o600, "", "does not set AZAION_API_URL"),
        (V1, 0o644, API_IN_POLICY, "has mode 0644"),
        (&V1.replace('\n', "\r\n"), 0o600, API_IN_POLICY, "device.conf:1: has a carriage return"),
        (&quoted, 0o600, API_IN_POLICY, "device.conf:1: has a value with a character other than"),
    ] {
        let station = device(Generation::G2, EMAIL, V1, API_IN_POLICY)?;
        let password = station.password().context("a password")?;
        station.put(CONF, lines.replace("PASSWORD=", &format!("PASSWORD={password}")), mode)?;
        station.put_policy(&policy.replace("URL", &station.api.url()))?;
        let run = station.agent(&["boot"])?.ended_with(78)?;
        ensure!(run.stderr.contains(reason), "{reason}: {}", run.stderr);
        assert_eq!(station.api.requests().len(), 0);
    }
    Ok(())
}

// Promise: the host tool does not guess the device of such a file: without an address it is refused (65) and stays;
// with the address it is used again, with its password, and no account is created.
#[test]
fn the_host_tool_keeps_its_password() -> anyhow::Result<()> {
    let station = device(Generation::G2, EMAIL, V1, API_IN_POLICY)?;
    let password = station.password();
    let run = station.device(&[])?.ended_with(65)?;
    ensure!(run.stderr.contains("does not set AZAION_API_URL"), "{}", run.stderr);
    ensure!(station.password() == password, "it was changed");
    let lines = format!("{V1}AZAION_API_URL={}\n", station.api.url());
    station.put(
        CONF,
        lines.replace("PASSWORD=", &format!("PASSWORD={}", password.clone().unwrap_or_default())),
        0o600,
    )?;
    let report = station.device(&[])?.ended_with(0)?.json_lines()?.remove(0);
    assert_eq!((&report["outcome"], &report["serial"]), (&"reused".into(), &SERIAL.into()));
    ensure!(station.password() == password && station.api.users().len() == 1, "another account or password");
    Ok(())
}

// Promise: so is the password of a server-assigned identity.
#[test]
fn the_host_tool_keeps_the_servers_password() -> anyhow::Result<()> {
    let (serial, email) = ASSIGNED;
    let (_, without_serial) = OF_THE_SERVER.split_once('\n').context("a second line")?;
    for lines in [OF_THE_SERVER, without_serial] {
        let station = device(Generation::G2, email, lines, "")?;
        let password = station.password();
        let rootfs = station.rootfs().display().to_string();
        let run =
            station.provision(&["device", "--server-assigned", "--rootfs", &rootfs, "--json", "--owner", "current"])?;
        let report = run.ended_with(0)?.json_lines()?.remove(0);
        assert_eq!((&report["outcome"], &report["serial"]), (&"reused".into(), &serial.into()));
        ensure!(station.password() == password && station.api.users().len() == 1, "another account or password");
    }
    Ok(())
}

const OF_THE_SERVER: &str = "AZAION_DEVICE_SERIAL=azj-0007\nAZAION_DEVICE_EMAIL=azj-0007@azaion.com\nAZAION_DEVICE_PASSWORD=\n\
                             AZAION_API_URL=\n";

// Promise: a server-assigned identity boots to ready in each generation; `ready.json`, token cache, console and status
// name it.
#[test]
fn an_identity_of_the_servers() -> anyhow::Result<()> {
    let (serial, email) = ASSIGNED;
    for generation in GENERATIONS {
        let station = device(generation, email, OF_THE_SERVER, "")?;
        let run = station.agent(&["boot"])?.ended_with(0)?;
        ensure!(run.stdout.starts_with(&format!("azaion: {serial} is ready")), "{}", run.stdout);
        let (ready, token) = (readiness(&station)?, station.json("run/azaion/token.json").context("a token")?);
        assert_eq!(
            (&ready["serial"], &ready["email"], &token["email"]),
            (&serial.into(), &email.into(), &email.into())
        );
        let status = station.agent(&["status"])?.ended_with(0)?;
        ensure!(status.stdout.contains(&format!("{serial}, {email} at ")), "{}", status.stdout);
    }
    Ok(())
}

// Promise: the journal names both kinds by what they have: the serial of the server-assigned identity, and an empty
// serial and the e-mail of the script's.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_journal_names_them() -> anyhow::Result<()> {
    let (serial, email) = ASSIGNED;
    for generation in GENERATIONS {
        for (station, serial, email) in [
            (device(generation, email, OF_THE_SERVER, "")?, serial, email),
            (device(generation, EMAIL, V1, API_IN_POLICY)?, "", EMAIL),
        ] {
            let (journal, console) = boot_as_unit(&station)?;
            let ready = entry(&journal, "ready")?;
            let fields = (ready["AZAION_SERIAL"].as_str().unwrap_or_default(), &ready["AZAION_EMAIL"]);
            assert_eq!(fields, (serial, &email.into()), "{ready}");
            let name = if serial.is_empty() { email } else { serial };
            ensure!(console.contains(&format!("{name} is ready")), "{console}");
        }
    }
    Ok(())
}
