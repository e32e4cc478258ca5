//! A simulated loader: a process without root privileges, in a container's view of `/run/azaion`, reads the token.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use azaion_tests::dev_api::{Generation, Options};
use azaion_tests::programs::workspace;
use azaion_tests::station::{EMAIL, Station};

const TOKEN: &str = "run/azaion/token.json";
const RENEWALS: usize = 20;
/// Lifetime of a token in seconds, and the age at which it has to be renewed.
const LIFETIME: u64 = 90;
const STALE: u64 = 65;
/// A group id that no machine has, as `azaion` in the root file system.
const GROUP: &str = "48213";

/// Makes the cached token older, atomically, as the agent writes it: the loader reads continuously.
pub(crate) fn age_token(station: &Station) -> anyhow::Result<()> {
    let mut token = station.json(TOKEN).unwrap();
    let obtained = token["obtained_boottime_s"].as_u64().unwrap();
    token["obtained_boottime_s"] = obtained.checked_sub(STALE).unwrap().into();
    station.put("aged", token.to_string(), 0o640)?;
    std::os::unix::fs::chown(station.path("aged"), Some(0), Some(GROUP.parse()?))?;
    Ok(fs::rename(station.path("aged"), station.inside(TOKEN))?)
}

// Promise: through twenty renewals the loader never reads a partial or expired token, and each one is valid.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn reads_through_twenty_renewals() -> anyhow::Result<()> {
    let token_lifetime = Some(Duration::from_secs(LIFETIME));
    let station = Station::new(Options { generation: Generation::G2, token_lifetime, ..Options::default() })?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.put("rootfs/etc/group", format!("azaion:x:{GROUP}:\n"), 0o644)?;
    station.agent(&["boot"])?.ended_with(0)?;

    // The view: /run/azaion bound read-only at another path, read by the user nobody, who is a member of the group.
    let view = station.path("view");
    fs::create_dir(&view)?;
    fs::set_permissions(station.path(""), fs::Permissions::from_mode(0o755))?;
    station.put("ca.pem", fs::read(station.api.ca_file())?, 0o644)?;
    station.put("loader.py", fs::read(workspace().join("tests/scripts/loader.py"))?, 0o644)?;
    let script = "mount --bind \"$1\" \"$2\" && mount -o remount,ro,bind \"$2\" && shift 2 && exec setpriv \
                  --reuid 65534 --regid 65534 --groups \"$1\" --no-new-privs /usr/bin/env python3 \"$2\" \"$3\" \"$4\"";
    let mut loader = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .args([station.inside("run/azaion"), view.clone()])
        .arg(GROUP)
        .args([station.path("loader.py"), view.join("token.json"), station.path("ca.pem")])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;

    for _ in 0..RENEWALS {
        let seen = station.api.calls("GET", "/users/current");
        age_token(&station)?;
        station.agent(&["boot"])?.ended_with(0)?;
        // It sends the new token to the API before the next one is issued.
        while station.api.calls("GET", "/users/current") == seen && loader.try_wait()?.is_none() {
            std::thread::yield_now();
        }
    }
    loader.stdin.take().unwrap().write_all(b"\n")?;
    let report: serde_json::Value = serde_json::from_slice(&loader.wait_with_output()?.stdout)?;
    println!("{report}");
    assert_eq!(report["wrong"], serde_json::json!([]));
    assert!(report["tokens"].as_u64().unwrap() >= RENEWALS as u64, "{report}");
    Ok(())
}

// Promise: refused credentials are tried once in ten minutes of the timer's runs, and this does not lock the account.
#[test]
fn refused_credentials_do_not_lock_the_account() -> anyhow::Result<()> {
    for generation in [Generation::G1, Generation::G2, Generation::G2b] {
        for disabled in [false, true] {
            let station = Station::new(Options { generation, limits: true, ..Options::default() })?;
            station.device(&[])?.ended_with(0)?;
            station.put_policy("")?;
            if disabled {
                station.api.disable(EMAIL, true);
            } else {
                station.api.set_password(EMAIL, "another-password");
            }
            station.api.forget_requests();
            for _ in 0..10 {
                station.agent(&["boot"])?.ended_with(77)?;
            }
            assert_eq!(station.api.calls("POST", "/login"), 1, "{generation:?} {disabled}");
            assert!(!station.api.is_locked(EMAIL), "{generation:?} {disabled}");
        }
    }
    Ok(())
}
