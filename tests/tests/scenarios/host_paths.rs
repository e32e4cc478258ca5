//! Every path through `azaion-provision device` on a directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use azaion_tests::dev_api::{ADMIN_PASSWORD, Fault, Generation, Options};
use azaion_tests::programs::{Run, start};
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::Value;

const CONF: &str = "etc/azaion/device.conf";

fn station() -> anyhow::Result<Station> {
    Station::new(Options::default())
}

fn outcome(run: &Run) -> anyhow::Result<Value> {
    Ok(run.json_lines()?.remove(0)["outcome"].take())
}

fn status(code: u16, error: Option<u32>) -> Fault {
    Fault::Status { code, error, headers: Vec::new() }
}

/// Writes the file of another device, or of this one with a password that the API does not have.
fn put_conf(station: &Station, serial: &str, email: &str) -> anyhow::Result<String> {
    let text = format!(
        "AZAION_DEVICE_SERIAL={serial}\nAZAION_DEVICE_EMAIL={email}\nAZAION_DEVICE_PASSWORD=earlier-password-1\nAZAION_API_URL={}\n",
        station.api.url()
    );
    station.put(&format!("rootfs/{CONF}"), &text, 0o600)?;
    Ok(text)
}

// Promise: the report has the fields that programs read, and is the only content of standard output.
#[test]
fn created_is_reported() -> anyhow::Result<()> {
    let station = station()?;
    let run = station.device(&[])?.ended_with(0)?;
    let lines = run.json_lines()?;
    let report = lines[0].as_object().unwrap();
    assert_eq!(lines.len(), 1);
    let fields: Vec<&str> = report.keys().map(String::as_str).collect();
    assert_eq!(fields, ["api_url", "elapsed_ms", "email", "outcome", "serial", "targets"]);
    assert_eq!(report["targets"][0]["kind"], "directory");
    assert_eq!(report["targets"][0]["path"], station.rootfs().display().to_string());
    assert_eq!(report["api_url"], station.api.url());
    assert_eq!((station.api.calls("POST", "/login"), station.api.calls("POST", "/users")), (1, 1));
    Ok(())
}

// Promise: the password is durable in the target before the API is asked to create the user.
#[test]
fn the_intent_is_written_before_the_api_is_asked() -> anyhow::Result<()> {
    let station = station()?;
    let seen = station.path("seen");
    let (from, to) = (station.inside(CONF), seen.clone());
    station.api.on_request("POST", "/users", Box::new(move || drop(fs::copy(from, to))));
    station.device(&[])?.ended_with(0)?;
    assert_eq!(fs::read(seen)?, fs::read(station.inside(CONF))?);
    Ok(())
}

// Promise: a device whose password still works is left unchanged: no admin login, no other call, not a byte changed.
#[test]
fn reused_changes_nothing() -> anyhow::Result<()> {
    let station = station()?;
    station.device(&[])?.ended_with(0)?;
    let before = fs::metadata(station.inside(CONF))?;
    station.api.forget_requests();
    assert_eq!(outcome(&station.device(&[])?.ended_with(0)?)?, "reused");
    let after = fs::metadata(station.inside(CONF))?;
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    assert_eq!(station.api.requests().len(), 1);
    Ok(())
}

// Promise: a lost reply to the create call is resolved, in the same run or in the next.
#[test]
fn reused_after_a_lost_reply() -> anyhow::Result<()> {
    let station = station()?;
    station.api.inject("POST", "/users", Fault::DropAfter, 1);
    assert_eq!(outcome(&station.device(&[])?.ended_with(0)?)?, "reused");
    assert!(station.api.password_is(EMAIL, &station.password().unwrap()));

    let station = self::station()?;
    station.api.inject("POST", "/users", Fault::DropAfter, usize::MAX);
    let run = station.device(&["--deadline", "1"])?.ended_with(69)?;
    assert!(run.stderr.contains("run this again"), "{}", run.stderr);
    let password = station.password().unwrap();
    station.api.clear_faults();
    assert_eq!(outcome(&station.device(&[])?.ended_with(0)?)?, "reused");
    assert_eq!(station.password().unwrap(), password);
    assert_eq!(station.api.users().len(), 1);
    Ok(())
}

// Promise: a create call that never arrived is repeated in the same run, which then reports created.
#[test]
fn created_after_a_dropped_call() -> anyhow::Result<()> {
    for fault in [
        Fault::DropBefore,
        status(503, None),
        status(500, None),
        Fault::Status { code: 429, error: Some(51), headers: vec![("Retry-After".into(), "1".into())] },
    ] {
        let station = station()?;
        station.api.inject("POST", "/users", fault, 1);
        assert_eq!(outcome(&station.device(&[])?.ended_with(0)?)?, "created");
        assert!(station.api.password_is(EMAIL, &station.password().unwrap()));
    }
    Ok(())
}

// Promise: an existing user gets a new password, and a warning explains the consequences.
#[test]
fn updated_with_a_warning() -> anyhow::Result<()> {
    for generation in [Generation::G1, Generation::G2, Generation::G2b] {
        let station = Station::new(Options { generation, ..Options::default() })?;
        station.api.add_user(EMAIL, "another-password", "CompanionPC");
        let run = station.device(&[])?.ended_with(0)?;
        assert_eq!(outcome(&run)?, "updated");
        assert!(run.stderr.contains("warning: ") && run.stderr.contains("no longer log in"), "{}", run.stderr);
        assert!(station.api.password_is(EMAIL, &station.password().unwrap()));
    }
    Ok(())
}

// Promise: `refuse` changes nothing, says what to do, and the target is unchanged: without a file, or with the old one.
#[test]
fn refused_puts_the_target_back() -> anyhow::Result<()> {
    let station = station()?;
    station.api.add_user(EMAIL, "another-password", "CompanionPC");
    let run = station.device(&["--on-existing", "refuse"])?.ended_with(73)?;
    assert!(run.stderr.contains("--on-existing update"), "{}", run.stderr);
    assert!(!station.inside(CONF).exists());
    assert!(station.api.password_is(EMAIL, "another-password"));
    let before = put_conf(&station, SERIAL, EMAIL)?;
    station.device(&["--on-existing", "refuse"])?.ended_with(73)?;
    assert_eq!(fs::read_to_string(station.inside(CONF))?, before);
    Ok(())
}

// Promise: for a server that can't set a password the message says what to do instead, and the target is unchanged.
#[test]
fn a_server_without_patch() -> anyhow::Result<()> {
    for fault in [None, Some(status(405, None))] {
        let station = Station::new(Options {
            password_patch: fault.is_some(),
            delete_route: fault.is_some(),
            ..Options::default()
        })?;
        if let Some(fault) = fault {
            station.api.inject("PATCH", "/users/password", fault, 1);
        }
        station.api.add_user(EMAIL, "another-password", "CompanionPC");
        let run = station.device(&[])?.ended_with(76)?;
        let delete = format!("DELETE {}/users/{EMAIL}", station.api.url());
        for part in
            ["--on-existing recreate", "delete the account azaion-jetson-0042@azaion.com as an ApiAdmin", &delete]
        {
            assert!(run.stderr.contains(part), "{part} is not in {}", run.stderr);
        }
        assert!(!station.inside(CONF).exists());
    }
    Ok(())
}

// Promise: exit 0 means that the API accepts the file: it does not for a disabled user that got the password.
#[test]
fn a_disabled_user_is_not_done() -> anyhow::Result<()> {
    for generation in [Generation::G1, Generation::G2, Generation::G2b] {
        let station = Station::new(Options { generation, ..Options::default() })?;
        station.api.add_user(EMAIL, "another-password", "CompanionPC");
        station.api.disable(EMAIL, true);
        let run = station.device(&[])?.ended_with(77)?;
        assert!(run.stderr.contains("it is disabled or"), "{}", run.stderr);
        // The account has the target's password: once it is enabled, the run succeeds.
        station.api.disable(EMAIL, false);
        assert_eq!(outcome(&station.device(&[])?.ended_with(0)?)?, "reused");
    }
    Ok(())
}

// Promise: a user with another role is no device, whatever its password.
#[test]
fn another_role_is_not_done() -> anyhow::Result<()> {
    let station = station()?;
    station.api.add_user(EMAIL, "another-password", "Annotator");
    let run = station.device(&[])?.ended_with(76)?;
    assert!(run.stderr.contains("another role than CompanionPC"), "{}", run.stderr);
    Ok(())
}

// Promise: another device's file is refused before any call, and replaced only on request.
#[test]
fn another_devices_file() -> anyhow::Result<()> {
    let station = station()?;
    let before = put_conf(&station, "AZJN-0041", "azaion-jetson-0041@azaion.com")?;
    let run = station.device(&[])?.ended_with(73)?;
    assert!(run.stderr.contains("AZJN-0041") && run.stderr.contains("--replace"), "{}", run.stderr);
    assert_eq!(fs::read_to_string(station.inside(CONF))?, before);
    assert_eq!(station.api.requests().len(), 0);
    assert_eq!(outcome(&station.device(&["--replace"])?.ended_with(0)?)?, "created");
    assert_eq!(station.conf("AZAION_DEVICE_SERIAL").as_deref(), Some(SERIAL));
    Ok(())
}

// Promise: a damaged file is bad data, unless it may be replaced.
#[test]
fn a_damaged_file() -> anyhow::Result<()> {
    let station = station()?;
    station.put(&format!("rootfs/{CONF}"), "AZAION_DEVICE_PASSWORD=hush hush\n", 0o600)?;
    let run = station.device(&[])?.ended_with(65)?;
    assert!(run.stderr.contains("device.conf:1") && !run.stderr.contains("hush"), "{}", run.stderr);
    assert_eq!(outcome(&station.device(&["--replace"])?.ended_with(0)?)?, "created");
    Ok(())
}

// Promise: the password of a file that others could read is not used again; the device gets a new one, in a file with
// the correct mode.
#[test]
fn an_open_file_is_put_right() -> anyhow::Result<()> {
    let station = station()?;
    station.device(&[])?.ended_with(0)?;
    let password = station.password();
    fs::set_permissions(station.inside(CONF), fs::Permissions::from_mode(0o644))?;
    let run = station.device(&[])?.ended_with(0)?;
    assert_eq!(outcome(&run)?, "updated");
    assert!(run.stderr.contains("its mode is not 0600"), "{}", run.stderr);
    assert_eq!(fs::metadata(station.inside(CONF))?.mode() & 0o7777, 0o600);
    assert_ne!(station.password(), password);
    Ok(())
}

// Promise: a password that was created for another API is not sent to this one, and the file then names the new
// address.
#[test]
fn another_api_is_written_into_the_file() -> anyhow::Result<()> {
    let station = station()?;
    station.device(&[])?.ended_with(0)?;
    let password = station.password();
    let text = fs::read_to_string(station.inside(CONF))?.replace(&station.api.url(), "https://old.example");
    station.put(&format!("rootfs/{CONF}"), text, 0o600)?;
    assert_eq!(outcome(&station.device(&[])?.ended_with(0)?)?, "updated");
    assert_ne!(station.password(), password);
    assert_eq!(station.conf("AZAION_API_URL"), Some(station.api.url()));
    Ok(())
}

// Promise: without root, a real root file system is refused before anything is done.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn not_root() -> anyhow::Result<()> {
    let station = station()?;
    fs::set_permissions(station.path(""), fs::Permissions::from_mode(0o755))?;
    let rootfs = station.rootfs().display().to_string();
    // A copy that all users may run, wherever the workspace is.
    let program = station.path("azaion-provision");
    azaion_tests::programs::copy_to("azaion-provision", &program)?;
    let mut command = azaion_tests::station::command(&program, &["device", SERIAL, "--rootfs", &rootfs]);
    let command = command.args(["--api-url", &station.api.url(), "--admin-email", "a@azaion.com"]);
    let run = station.wait(start(command.env("AZAION_ADMIN_PASSWORD", ADMIN_PASSWORD).uid(65534).gid(65534))?)?;
    let run = run.ended_with(77)?;
    assert!(run.stderr.contains("run this as root"), "{}", run.stderr);
    assert_eq!(station.api.requests().len(), 0);
    Ok(())
}

// Promise: for root the file and its directory belong to 0:0, whatever the owner of the previous ones.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn files_belong_to_root_by_number() -> anyhow::Result<()> {
    let station = station()?;
    fs::create_dir(station.inside("etc/azaion"))?;
    std::os::unix::fs::chown(station.inside("etc/azaion"), Some(1000), Some(1000))?;
    let rootfs = station.rootfs().display().to_string();
    station.provision(&["device", SERIAL, "--rootfs", &rootfs])?.ended_with(0)?;
    for name in ["etc/azaion", CONF] {
        let file = fs::metadata(station.inside(name))?;
        assert_eq!((file.uid(), file.gid()), (0, 0), "{name}");
    }
    Ok(())
}

// Promise: an API that is down is exit 69 and leaves the target unchanged; one that is too busy is exit 75.
#[test]
fn the_api_is_down_or_busy() -> anyhow::Result<()> {
    let station = station()?;
    let rootfs = station.rootfs().display().to_string();
    let mut command = station.provision_command(&["device", SERIAL, "--rootfs", &rootfs, "--owner", "current"])?;
    let command =
        command.args(["--api-url", "https://127.0.0.1:9", "--admin-email", "a@azaion.com", "--deadline", "1"]);
    let run = station.wait(start(command.env("AZAION_ADMIN_PASSWORD", ADMIN_PASSWORD))?)?.ended_with(69)?;
    assert!(run.stderr.contains("127.0.0.1:9") && run.stderr.contains("refused"), "{}", run.stderr);
    assert!(!station.inside("etc/azaion").exists());

    station.api.inject("POST", "/login", status(429, Some(51)), usize::MAX);
    station.device(&["--deadline", "1"])?.ended_with(75)?;
    assert!(!station.inside("etc/azaion").exists());
    Ok(())
}

// Promise: a rejected admin is exit 77, tried once, and the target is unchanged.
#[test]
fn the_admin_is_refused() -> anyhow::Result<()> {
    let station = station()?;
    station.put("admin-password", "not-the-password\n", 0o600)?;
    let run = station.device(&[])?.ended_with(77)?;
    assert!(run.stderr.contains("check the admin's e-mail and password"), "{}", run.stderr);
    assert_eq!(station.api.calls("POST", "/login"), 1);
    assert!(!station.inside("etc/azaion").exists());

    // An account that may log in but not create users.
    let station = self::station()?;
    for code in [401, 403] {
        station.api.inject("POST", "/users", status(code, None), 1);
        station.device(&[])?.ended_with(77)?;
        assert!(!station.inside(CONF).exists());
    }
    station.api.require_mfa(azaion_tests::dev_api::ADMIN_EMAIL);
    let run = station.device(&[])?.ended_with(77)?;
    assert!(run.stderr.contains("--admin-token-file"), "{}", run.stderr);
    Ok(())
}

// Promise: with A/B layouts all targets or none end up with the device's file, and all have the same password.
#[test]
fn all_targets_or_none() -> anyhow::Result<()> {
    let station = station()?;
    let other = station.path("app_b");
    fs::create_dir_all(other.join("etc"))?;
    let other_name = other.display().to_string();
    station.device(&["--rootfs", &other_name])?.ended_with(0)?;
    assert_eq!(fs::read(other.join(CONF))?, fs::read(station.inside(CONF))?);
    // One of the two was flashed and cleared: the other's password is used.
    station.provision_offline(&["clear", &other_name])?.ended_with(0)?;
    assert_eq!(outcome(&station.device(&["--rootfs", &other_name])?.ended_with(0)?)?, "reused");
    assert_eq!(azaion_tests::station::conf_value(&other.join(CONF), "AZAION_DEVICE_PASSWORD"), station.password());
    // The second can't be written: the first is unchanged.
    station.provision_offline(&["clear", &station.rootfs().display().to_string()])?.ended_with(0)?;
    fs::remove_dir_all(other.join("etc/azaion"))?;
    std::os::unix::fs::symlink("/nowhere", other.join("etc/azaion"))?;
    station.device(&["--rootfs", &other_name])?.ended_with(66)?;
    assert!(!station.inside(CONF).exists());
    Ok(())
}

// Promise: `--verify` logs in as the device and validates the token as the device will.
#[test]
fn verify_judges_as_the_device() -> anyhow::Result<()> {
    use azaion_tests::dev_api::BadToken;
    let station = station()?;
    station.device(&["--verify"])?.ended_with(0)?;
    assert_eq!(station.api.calls("GET", "/.well-known/jwks.json"), 1);
    // The first login checks that the account accepts the password; the second one's token is validated.
    station.api.inject("POST", "/login", Fault::Delay(Duration::ZERO), 1);
    station.api.inject("POST", "/login", Fault::Token(BadToken::ForeignKey), 1);
    let run = station.device(&["--verify"])?.ended_with(76)?;
    assert!(run.stderr.contains("signature"), "{}", run.stderr);
    Ok(())
}

// Promise: a host whose clock is ahead does not provision devices with its time: the server's time is used.
#[test]
fn a_station_whose_clock_is_ahead() -> anyhow::Result<()> {
    let station = Station::new(Options { clock_offset: -3600, ..Options::default() })?;
    let run = station.device(&["--verify"])?.ended_with(0)?;
    assert!(run.stderr.contains("one of them is wrong"), "{}", run.stderr);
    station.put_policy("")?;
    station.agent(&["boot"])?;
    let provisioned: azaion_agent::common::clock::Timestamp = station.conf("AZAION_PROVISIONED_AT").unwrap().parse()?;
    let now = azaion_agent::common::clock::Timestamp::from(std::time::SystemTime::now());
    assert!(now.since(provisioned) >= Duration::from_secs(3590));
    Ok(())
}

// Promise: leftovers of a killed run beside the file are removed by the next one, whatever its result.
#[test]
fn leftovers_go_whatever_comes() -> anyhow::Result<()> {
    let station = station()?;
    station.device(&[])?.ended_with(0)?;
    for arguments in [&[][..], &["--on-existing", "refuse"]] {
        station.put("rootfs/etc/azaion/.device.conf.new", "AZAION_DEVICE_PASSWORD=left-over-password\n", 0o600)?;
        station.device(arguments)?;
        assert!(!station.inside("etc/azaion/.device.conf.new").exists());
        station.api.set_password(EMAIL, "another-password");
    }
    Ok(())
}
