//! The command line of `azaion-provision`: sources of secrets, `inspect`, `clear`, and misuse.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use azaion_agent::api::http::{self, CaFile, Http};
use azaion_agent::api::session::login;
use azaion_agent::common::clock::SystemClock;
use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, Options};
use azaion_tests::programs::{Run, start};
use azaion_tests::station::{EMAIL, SERIAL, Station};
use nix::unistd::geteuid;
use secrecy::ExposeSecret;

const CONF: &str = "etc/azaion/device.conf";

// Promise: the admin's secret comes from a file, the environment or a token file; never from the command line.
#[test]
fn where_the_admins_secret_comes_from() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let rootfs = station.rootfs().display().to_string();
    let url = station.api.url();
    let ca = station.api.ca_file().display().to_string();
    let base = ["device", SERIAL, "--rootfs", &rootfs, "--owner", "current", "--api-url", &url, "--ca-file", &ca];
    let run = |extra: &[&str], environment: &[(&str, &str)]| -> anyhow::Result<Run> {
        let mut command = station.provision_command(&[&base, extra].concat())?;
        let run = station.wait(start(command.envs(environment.iter().copied()))?)?;
        fs::remove_dir_all(station.inside("etc/azaion")).ok();
        if station.api.user(EMAIL).is_some() {
            station.api.delete_user(EMAIL);
        }
        Ok(run)
    };
    let email = ("AZAION_ADMIN_EMAIL", ADMIN_EMAIL);
    let file = station.path("admin-password").display().to_string();
    run(&[], &[email, ("AZAION_ADMIN_PASSWORD", ADMIN_PASSWORD)])?.ended_with(0)?;
    run(&[], &[email, ("AZAION_ADMIN_PASSWORD_FILE", &file), ("AZAION_ADMIN_PASSWORD", "wrong")])?.ended_with(0)?;
    run(&["--admin-password-file", &file], &[email, ("AZAION_ADMIN_PASSWORD_FILE", "/nowhere")])?.ended_with(0)?;
    run(&[], &[email])?.ended_with(78)?;
    run(&["--admin-password-file", "/nowhere"], &[email])?.ended_with(78)?;
    run(&[], &[])?.ended_with(64)?;
    station.put("admin-token", "not-a-token\n", 0o600)?;
    run(&["--admin-token-file", &station.path("admin-token").display().to_string()], &[])?.ended_with(77)?;
    Ok(())
}

/// Returns an access token of the admin.
fn admin_token(station: &Station) -> anyhow::Result<String> {
    let ca = CaFile::read(&station.api.ca_file())?;
    let http = Http::new(
        &station.api.url().parse()?,
        http::Options { ca: Some(&ca), proxy: None, clock: Arc::new(SystemClock) },
    )?;
    let (tokens, _) = login(&http, ADMIN_EMAIL, &ADMIN_PASSWORD.into(), Ok(Duration::from_secs(10)))?;
    Ok(tokens.access.expose_secret().to_owned())
}

// Promise: a byte order mark before the admin's password or token costs a warning, not a failed login.
#[test]
fn a_byte_order_mark_before_a_secret() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let rootfs = station.rootfs().display().to_string();
    let (url, ca) = (station.api.url(), station.api.ca_file().display().to_string());
    let file = station.path("secret").display().to_string();
    let device = ["device", SERIAL, "--rootfs", &rootfs, "--owner", "current", "--api-url", &url, "--ca-file", &ca];
    let token = admin_token(&station)?;
    for (secret, options) in [
        (ADMIN_PASSWORD, &["--admin-email", ADMIN_EMAIL, "--admin-password-file", &file][..]),
        (&token, &["--admin-token-file", &file]),
    ] {
        station.put("secret", format!("\u{feff}{secret}\r\n"), 0o600)?;
        let run = station.provision_offline(&[&device, options].concat())?.ended_with(0)?;
        assert!(run.stderr.contains(&format!("{file} starts with a byte order mark")), "{}", run.stderr);
        station.provision_offline(&["clear", &rootfs])?.ended_with(0)?;
        station.api.delete_user(EMAIL);
    }
    Ok(())
}

// Promise: inspect reports all but the password; clear removes it, and a second clear is no error; neither needs API or
// root.
#[test]
fn inspect_and_clear() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let rootfs = station.rootfs().display().to_string();
    let inspect = || station.provision_offline(&["inspect", &rootfs, "--json"])?.ended_with(0)?.json_lines();
    let empty = inspect()?.remove(0);
    assert_eq!(
        (&empty["empty"], &empty["kind"], &empty["path"]),
        (&true.into(), &"directory".into(), &rootfs.as_str().into())
    );
    station.device(&[])?.ended_with(0)?;
    let full = inspect()?.remove(0);
    let fields: Vec<&String> = full.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["api_url", "email", "gid", "kind", "mode", "path", "provisioned_at", "serial", "uid"]);
    assert_eq!((&full["serial"], &full["email"], &full["mode"]), (&SERIAL.into(), &EMAIL.into(), &"0600".into()));
    assert_eq!(full["uid"], geteuid().as_raw());
    let text = station.provision_offline(&["inspect", &rootfs])?.ended_with(0)?;
    assert!(text.stdout.contains(SERIAL) && text.stdout.contains(EMAIL));
    for cleared in [true, false] {
        let run = station.provision_offline(&["clear", &rootfs, "--json"])?.ended_with(0)?;
        assert_eq!(run.json_lines()?[0]["cleared"], cleared);
    }
    assert!(!station.inside(CONF).exists() && station.inside("etc/azaion").is_dir());
    Ok(())
}

// Promise: an invalid command line is exit 64, and the message does not repeat what may be a secret; help is no error.
#[test]
fn command_lines() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let device = "device AZJN-0042 --rootfs /x --admin-email a@b --api-url";
    for (arguments, code) in [
        ("", 64),
        ("frobnicate", 64),
        ("device", 64),
        ("device AZJN-0042", 64),
        ("device AZJN-0042 --rootfs /x", 64),
        ("device AZJN-0042 --rootfs /x --api-url https://a.example", 64),
        (&format!("{device} http://example.com"), 64),
        (&format!("{device} https://me:hush-hush@a.example"), 64),
        (&format!("{device} https://a.example --on-existing maybe"), 64),
        (&format!("{device} https://a.example --admin-password hush-hush"), 64),
        (&format!("{device} https://a.example --deadline 0"), 64),
        (&format!("{device} https://a.example --ca-file /no/such/file"), 78),
        (&format!("{device} https://a.example --admin-password=hush-hush"), 64),
        (&format!("{device} https://a.example hush-hush"), 64),
        (&format!("{device} https://a.example --json=hush-hush"), 64),
        ("hush-hush", 64),
        ("--hush-hush device", 64),
        ("check -- hush-hush", 64),
        ("inspect", 64),
        ("inspect /no/such/place", 66),
        ("clear /", 66),
        ("--help", 0),
        ("device --help", 0),
        ("--version", 0),
    ] {
        let run = station.provision_offline(&arguments.split_whitespace().collect::<Vec<_>>())?;
        assert_eq!(run.code, Some(code), "{arguments}: {}", run.stderr);
        assert!(!run.stderr.contains("hush"), "{arguments}: {}", run.stderr);
    }
    Ok(())
}
