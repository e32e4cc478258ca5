//! `device --server-assigned`: the server creates the identity, and its reply is the only copy of the password.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use azaion_tests::dev_api::{Casing, Fault, Generation, Options};
use azaion_tests::programs::Run;
use azaion_tests::station::{EMAIL, SERIAL, Station, conf_value};
use serde_json::Value;

const DEVICES: (&str, &str) = ("POST", "/devices");
const CONF: &str = "rootfs/etc/azaion/device.conf";

/// Provisions targets of the host by their names.
fn assign_to(station: &Station, names: &[&str], options: &[&str]) -> anyhow::Result<Run> {
    let paths: Vec<String> = names.iter().map(|name| station.path(name).display().to_string()).collect();
    let targets = paths.iter().flat_map(|path| ["--rootfs", path]);
    let fixed = ["device", "--server-assigned", "--owner", "current", "--json"];
    station.provision(&fixed.into_iter().chain(targets).chain(options.iter().copied()).collect::<Vec<_>>())
}

fn assign(station: &Station, options: &[&str]) -> anyhow::Result<Run> {
    assign_to(station, &["rootfs"], options)
}

fn station() -> anyhow::Result<Station> {
    Station::new(Options::default())
}

fn report(run: Run) -> anyhow::Result<Value> {
    Ok(run.ended_with(0)?.json_lines()?.remove(0))
}

/// Returns the identity in a target after checking that the API accepts it.
fn identity_in(station: &Station, target: &Path) -> anyhow::Result<(String, String)> {
    let value = |key: &str| conf_value(&target.join("etc/azaion/device.conf"), &format!("AZAION_DEVICE_{key}"));
    let (serial, email) = (value("SERIAL").unwrap_or_default(), value("EMAIL").unwrap_or_default());
    ensure!(station.api.password_is(&email, &value("PASSWORD").unwrap_or_default()), "{serial}: the API rejects it");
    Ok((serial, email))
}

fn words(run: &Run, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(run.stderr.contains(part), "{part:?} is not in: {}", run.stderr);
    }
    Ok(())
}

// Promise: a target gets an identity created by the server, in each spelling, and the device becomes ready with it; a
// second run keeps it, and creates no second device; after `clear` the next target gets the next one.
#[test]
fn a_device_of_the_servers() -> anyhow::Result<()> {
    for (generation, casing) in [(Generation::G2, Casing::Pascal), (Generation::G2b, Casing::Camel)] {
        let station = Station::new(Options { generation, casing, ..Options::default() })?;
        let first = report(assign(&station, &["--verify"])?)?;
        let (serial, email) = identity_in(&station, &station.rootfs())?;
        assert_eq!(
            (&first["serial"], &first["email"], &first["outcome"]),
            (&serial.as_str().into(), &email.as_str().into(), &"assigned".into())
        );
        ensure!(serial.starts_with("azj-") && email == format!("{serial}@azaion.com"), "{serial} {email}");
        assert_eq!(first["targets"][0]["kind"], "directory");
        let inspected = station.provision_offline(&["inspect", "--json", &station.rootfs().display().to_string()])?;
        assert_eq!(inspected.ended_with(0)?.json_lines()?[0]["serial"], serial.as_str());

        station.put_policy("")?;
        let console = station.agent(&["boot"])?.ended_with(0)?.stdout;
        ensure!(console.contains(&serial) && console.contains("ready"), "{console}");
        let ready = station.json("run/azaion/ready.json").unwrap();
        assert_eq!((&ready["serial"], &ready["email"]), (&serial.as_str().into(), &email.as_str().into()));

        let before = fs::read(station.path(CONF))?;
        for options in [&[][..], &["--replace"]] {
            let again = report(assign(&station, options)?)?;
            assert_eq!((&again["serial"], &again["outcome"]), (&first["serial"], &"reused".into()));
        }
        assert_eq!((fs::read(station.path(CONF))?, station.api.users().len()), (before, 1));
        assert_eq!(station.api.calls(DEVICES.0, DEVICES.1), 1);

        let rootfs = station.rootfs().display().to_string();
        let clear = |serial: &str| station.provision_offline(&["clear", &rootfs, "--if-serial", serial]);
        clear("azj-9999")?.ended_with(73)?;
        clear(&serial)?.ended_with(0)?;
        let next = report(assign(&station, &[])?)?;
        ensure!(next["serial"] != first["serial"] && station.api.users().len() == 2, "{next}");
    }
    Ok(())
}

// Promise: two targets of one device get one identity; if one of them has it already, the other gets it too, without a
// new device.
#[test]
fn targets_of_one_device() -> anyhow::Result<()> {
    let station = station()?;
    for name in ["a", "b"] {
        fs::create_dir_all(station.path(name).join("etc"))?;
    }
    let first = report(assign_to(&station, &["a"], &[])?)?;
    let both = report(assign_to(&station, &["b", "a"], &[])?)?;
    assert_eq!((&both["serial"], &both["outcome"]), (&first["serial"], &"reused".into()));
    let [a, b] = ["a", "b"].map(|name| identity_in(&station, &station.path(name)));
    ensure!(a? == b? && station.api.users().len() == 1, "{:?}", station.api.users());
    Ok(())
}

const UNKNOWN: &str = "0123456789abcdef0123456789abcdef";

/// A file for this serial, password and API.
fn conf(serial: &str, password: &str, api: &str) -> String {
    let email = format!("{}@azaion.com", serial.to_lowercase());
    format!(
        "AZAION_DEVICE_SERIAL={serial}\nAZAION_DEVICE_EMAIL={email}\nAZAION_DEVICE_PASSWORD={password}\nAZAION_API_URL={api}\n"
    )
}

/// The same without its first line.
fn without_serial(conf: &str) -> String {
    conf.split_once('\n').unwrap().1.to_owned()
}

// Promise: an identity in a target that the API rejects is refused and left unchanged, unless it may be replaced; the
// API is not asked for an identity then.
#[test]
fn what_is_not_let_in() -> anyhow::Result<()> {
    const ELSEWHERE: &str = "https://other.example";
    for (serial, password, api, mode, says) in [
        ("azj-0001", UNKNOWN, None, 0o600, "whose login the API refuses"),
        ("AZJN-0001", UNKNOWN, None, 0o600, "whose login the API refuses"),
        ("azj-0001", UNKNOWN, Some(ELSEWHERE), 0o600, "another API"),
        ("AZJN-0001", "short-one", None, 0o600, "another form"),
        ("azj-0001", "of-the-servers-own-form", None, 0o600, "whose login the API refuses"),
        ("azj-0001", UNKNOWN, None, 0o640, "its mode is not 0600"),
        ("AZJN-0002", UNKNOWN, None, 0o600, "no serial"),
    ] {
        let station = station()?;
        let text = conf(serial, password, api.unwrap_or(&station.api.url()));
        let text = if says == "no serial" { without_serial(&text) } else { text };
        station.put(CONF, &text, mode)?;
        words(&assign(&station, &[])?.ended_with(73)?, &[says, "--replace"])?;
        assert_eq!((fs::read_to_string(station.path(CONF))?, station.api.calls(DEVICES.0, DEVICES.1)), (text, 0));
        assert_eq!(report(assign(&station, &["--replace"])?)?["outcome"], "assigned", "{says}");
        identity_in(&station, &station.rootfs())?;
    }
    Ok(())
}

// Promise: an identity that the API accepts is used again, also one of the old script, whose file has no serial, and
// one of the other scheme.
#[test]
fn what_is_let_in() -> anyhow::Result<()> {
    let old = station()?;
    old.api.add_user("azj-0009@azaion.com", UNKNOWN, "CompanionPC");
    old.put(CONF, without_serial(&conf("azj-0009", UNKNOWN, &old.api.url())), 0o600)?;
    let kept = report(assign(&old, &[])?)?;
    assert_eq!((&kept["serial"], &kept["outcome"]), (&"azj-0009".into(), &"reused".into()));
    assert_eq!(old.conf("AZAION_DEVICE_SERIAL").as_deref(), Some("azj-0009"));
    let other = station()?;
    other.device(&[])?.ended_with(0)?;
    let kept = report(assign(&other, &[])?)?;
    assert_eq!((&kept["serial"], &kept["email"], &kept["outcome"]), (&SERIAL.into(), &EMAIL.into(), &"reused".into()));
    Ok(())
}

// Promise: two identities are never mixed: targets with two different ones are refused.
#[test]
fn two_identities_in_two_targets() -> anyhow::Result<()> {
    let station = station()?;
    for name in ["a", "b"] {
        fs::create_dir_all(station.path(name).join("etc"))?;
        report(assign_to(&station, &[name], &[])?)?;
    }
    for options in [&[][..], &["--replace"]] {
        words(&assign_to(&station, &["a", "b"], options)?.ended_with(73)?, &["azj-0001", "azj-0002"])?;
    }
    assert_eq!(station.api.users().len(), 2);
    Ok(())
}

// Promise: possible failures are detected before the API is asked: a target that can't be written, contradictory
// options, an admin without the permission.
#[test]
fn nothing_is_asked_for_in_vain() -> anyhow::Result<()> {
    let station = station()?;
    for arguments in [&[SERIAL, "--server-assigned"][..], &[], &["--server-assigned", "--on-existing", "recreate"]] {
        let run = station.provision(&[&["device", "--rootfs", "rootfs"][..], arguments].concat())?;
        run.ended_with(64)?;
    }
    words(&station.provision(&["device", "azj-0007", "--rootfs", "rootfs"])?.ended_with(65)?, &["--server-assigned"])?;
    station.put("rootfs/etc/azaion", "in the way", 0o644)?;
    ensure!(assign(&station, &[])?.code != Some(0), "the target was written");
    fs::remove_file(station.path("rootfs/etc/azaion"))?;
    station.put("admin-password", "wrong-password", 0o600)?;
    assign(&station, &[])?.ended_with(77)?;
    assert_eq!((station.api.calls(DEVICES.0, DEVICES.1), station.api.users().len()), (0, 0));
    ensure!(!station.path(CONF).exists(), "the target is not empty");
    Ok(())
}

// Promise: a call that the API has certainly not executed is repeated, or ends with its reason; the target is
// unchanged, and the message does not say that a user may be left over.
#[test]
fn answers_that_made_nothing() -> anyhow::Result<()> {
    let status = |code, error, headers: &[(&str, &str)]| Fault::Status {
        code,
        error,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    // Other clients are faster for a while.
    for (fault, times) in [(status(409, Some(20), &[]), 2), (status(429, None, &[("Retry-After", "1")]), 1)] {
        let station = station()?;
        station.api.inject(DEVICES.0, DEVICES.1, fault, times);
        assert_eq!(report(assign(&station, &[])?)?["outcome"], "assigned");
        assert_eq!((station.api.users().len(), station.api.calls(DEVICES.0, DEVICES.1)), (1, times + 1));
    }
    for (fault, code, says) in [
        (status(409, Some(20), &[]), 75, "no identity was created"),
        (status(403, None, &[]), 77, "ApiAdmin"),
        (status(404, None, &[]), 76, "does not create identities"),
        (status(405, None, &[]), 76, "does not create identities"),
        (status(400, Some(35), &[]), 76, "no identity was created"),
    ] {
        let station = station()?;
        station.api.inject(DEVICES.0, DEVICES.1, fault, usize::MAX);
        let run = assign(&station, &["--deadline", "2"])?.ended_with(code)?;
        words(&run, &[says])?;
        ensure!(!run.stderr.contains("no device has") && !station.path(CONF).exists(), "{}", run.stderr);
    }
    let station = Station::new(Options { generation: Generation::G1, ..Options::default() })?;
    words(&assign(&station, &[])?.ended_with(76)?, &["does not create identities"])
}

// Promise: after a reply that is lost, truncated or invalid the call is not repeated: at most one user is left over,
// the message says so, and the target is unchanged; the next run gets an identity.
#[test]
fn lost_replies() -> anyhow::Result<()> {
    let body = |body: &str| Fault::Answer {
        status: 200,
        content_type: "application/json".into(),
        body: body.into(),
        headers: Vec::new(),
    };
    for (fault, code) in [
        (Fault::DropAfter, 69),
        (Fault::DropBefore, 69),
        (Fault::Truncate, 69),
        (Fault::Hang, 69),
        (Fault::Drip(Duration::from_millis(300)), 69),
        (Fault::Status { code: 500, error: None, headers: Vec::new() }, 75),
        (Fault::Status { code: 502, error: None, headers: Vec::new() }, 75),
        (Fault::Status { code: 204, error: None, headers: Vec::new() }, 76),
        (Fault::Redirect("/elsewhere".into()), 76),
        (Fault::Huge(1_000_000), 76),
        (body("<html>hush"), 76),
        (body("{}"), 76),
        (body(r#"{"Serial":"azj-0001","Email":"azj-0001@azaion.com","Password":"hu sh"}"#), 76),
    ] {
        let station = station()?;
        station.api.inject(DEVICES.0, DEVICES.1, fault.clone(), 1);
        let run = assign(&station, &["--deadline", "5"])?.ended_with(code)?;
        words(&run, &["no device has", &station.api.url()]).map_err(|error| error.context(format!("{fault:?}")))?;
        ensure!(!run.words().contains("hush"), "{}", run.words());
        ensure!(station.api.calls(DEVICES.0, DEVICES.1) == 1 && station.api.users().len() <= 1, "{fault:?}");
        ensure!(!station.path(CONF).exists(), "{fault:?}: the target is not empty");
        assert_eq!(report(assign(&station, &[])?)?["outcome"], "assigned");
        identity_in(&station, &station.rootfs())?;
    }
    Ok(())
}

// Promise: a target with a leftover intent of a run is free, for either scheme, and the message says what may be left
// on the API.
#[test]
fn an_intent_is_told_of() -> anyhow::Result<()> {
    let intent = "# azaion-provision: asked for an identity at 2026-05-03T10:00:00Z from https://admin.example.com\n";
    let rootfs = |station: &Station| station.rootfs().display().to_string();
    for serial in [&["--server-assigned"][..], &[SERIAL]] {
        let station = station()?;
        station.put(CONF, intent, 0o600)?;
        let inspected = station.provision_offline(&["inspect", "--json", &rootfs(&station)])?.ended_with(0)?;
        words(&inspected, &["no device has", "2026-05-03T10:00:00Z"])?;
        assert_eq!(inspected.json_lines()?[0]["empty"], true);
        station.provision(&["check", "--owner", "current", "--rootfs", &rootfs(&station)])?.ended_with(0)?;
        let run =
            station.provision(&[&["device", "--owner", "current", "--rootfs", &rootfs(&station)], serial].concat())?;
        words(&run.ended_with(0)?, &["no device has"])?;
        identity_in(&station, &station.rootfs())?;
        let again =
            station.provision(&[&["device", "--owner", "current", "--rootfs", &rootfs(&station)], serial].concat())?;
        ensure!(!again.ended_with(0)?.stderr.contains("no device has"), "it is reported twice");
    }
    let station = station()?;
    station.put(CONF, intent, 0o600)?;
    let cleared = station.provision_offline(&["clear", "--json", "--if-serial", SERIAL, &rootfs(&station)])?;
    assert_eq!(cleared.ended_with(0)?.json_lines()?[0]["cleared"], true);
    Ok(())
}
