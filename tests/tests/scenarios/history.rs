//! A device's record of why it is not ready: on the device itself, and on its drive, when that is read on another
//! machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use azaion_tests::dev_api::Options;
use azaion_tests::programs::{Run, output};
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::{Value, json};

const CONF: &str = "etc/azaion/device.conf";
const HISTORY: &str = "var/lib/azaion/history.json";
/// An address without a server.
const NOWHERE: &str = "https://127.0.0.1:1";

fn device() -> anyhow::Result<Station> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    Ok(station)
}

/// Runs the agent while the API is unreachable.
fn without_api(station: &Station) -> anyhow::Result<Run> {
    let conf = fs::read_to_string(station.inside(CONF))?;
    station.put(&format!("rootfs/{CONF}"), conf.replace(&station.api.url(), NOWHERE), 0o600)?;
    let run = station.agent(&["boot", "--deadline", "1"])?.ended_with(75);
    station.put(&format!("rootfs/{CONF}"), conf, 0o600)?;
    run
}

/// Creates a device that never reached its API, and whose account's password was then changed.
fn never_ready() -> anyhow::Result<Station> {
    let station = device()?;
    without_api(&station)?;
    station.api.set_password(EMAIL, "another-password");
    station.agent(&["boot"])?.ended_with(77)?;
    Ok(station)
}

fn states(changes: &Value) -> Vec<(&str, u64)> {
    let changes = changes.as_array().unwrap();
    changes.iter().map(|change| (change["state"].as_str().unwrap(), change["code"].as_u64().unwrap())).collect()
}

fn inspect(station: &Station, target: &Path, options: &[&str]) -> anyhow::Result<Run> {
    station.provision_offline(&[&["inspect", &target.display().to_string()], options].concat())
}

/// Packs the root file system as a raw ext4 image.
fn image(station: &Station, name: &str) -> anyhow::Result<std::path::PathBuf> {
    let image = station.path(name);
    let mut mkfs = Command::new("/usr/sbin/mkfs.ext4");
    output(mkfs.args(["-q", "-F", "-b", "4096", "-d"]).arg(station.rootfs()).arg(&image).arg("32M"))?;
    Ok(image)
}

fn set(image: &Path, request: &str) -> anyhow::Result<()> {
    output(Command::new("/usr/sbin/debugfs").args(["-w", "-R", request]).arg(image)).map(drop)
}

// Promise: each change of state is recorded, with its reason, and nothing is written without a change; `status
// --history` shows it, and it contains no secret.
#[test]
fn changes_are_recorded() -> anyhow::Result<()> {
    let station = device()?;
    assert_eq!(station.agent(&["status", "--history"])?.ended_with(0)?.stdout, "no change of state is recorded yet\n");
    without_api(&station)?;
    let first = fs::metadata(station.inside(HISTORY))?;
    assert_eq!(first.mode() & 0o7777, 0o644);
    without_api(&station)?;
    assert_eq!(fs::metadata(station.inside(HISTORY))?.ino(), first.ino());
    let password = station.password().unwrap();
    station.api.set_password(EMAIL, "another-password");
    station.agent(&["boot"])?.ended_with(77)?;
    // An earlier run was asked to wait: that is no other state.
    station.agent(&["boot"])?.ended_with(77)?;
    station.api.set_password(EMAIL, &password);
    station.agent(&["boot", "--now"])?.ended_with(0)?;
    let ready = fs::metadata(station.inside(HISTORY))?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert_eq!(fs::metadata(station.inside(HISTORY))?.ino(), ready.ino());

    let history = station.json(HISTORY).unwrap();
    assert_eq!(history["version"], 1);
    assert_eq!(states(&history["changes"]), [("waiting", 75), ("refused", 77), ("ready", 0)]);
    let changes = history["changes"].as_array().unwrap();
    let names: Vec<&String> = changes[0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["boot_id", "boottime_s", "code", "reason", "state", "time"]);
    assert!(changes[0]["reason"].to_string().contains("refused") && changes[2].get("reason").is_none());

    let lines = station.agent(&["status", "--history", "--json"])?.ended_with(0)?.json_lines()?;
    assert_eq!(Value::from(lines), history["changes"]);
    let table = station.agent(&["status", "--history"])?.ended_with(0)?.stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    let times: Vec<&str> = changes.iter().map(|change| change["time"].as_str().unwrap()).collect();
    assert_eq!(rows[0], ["time", "state", "code"]);
    assert_eq!(
        rows[1..],
        [[times[0], "waiting", "75"], [times[1], "refused", "77"], [times[2], "ready", "0"]].map(|row| row.to_vec())
    );
    station.agent(&["status", "--history", "--login"])?.ended_with(64)?;
    Ok(())
}

// Promise: every user may read it, not only root.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn everybody_may_read_it() -> anyhow::Result<()> {
    let station = never_ready()?;
    fs::set_permissions(station.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let agent = station.path("azaion-agent");
    azaion_tests::programs::copy_to("azaion-agent", &agent)?;
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let lines =
        station.agent_as(&agent, &as_nobody, &["status", "--history", "--json"])?.ended_with(0)?.json_lines()?;
    assert_eq!(states(&lines.into()), [("waiting", 75), ("refused", 77)]);
    Ok(())
}

// Promise: the drive of a device that never became ready gives the reason: mounted, as a raw image, sparse or
// compressed; also one from which device.conf was removed, and one that was not unmounted cleanly, which is reported.
#[test]
fn a_drive_tells_why() -> anyhow::Result<()> {
    let station = never_ready()?;
    let recorded = station.json(HISTORY).unwrap()["changes"].clone();
    let is_told = |target: &Path| -> anyhow::Result<Run> {
        let run = inspect(&station, target, &["--json"])?.ended_with(0)?;
        let record = run.json_lines()?.remove(0);
        assert_eq!((&record["history"], &record["serial"]), (&recorded, &SERIAL.into()), "{record}");
        Ok(run)
    };
    let raw = image(&station, "drive.img")?;
    assert_eq!(is_told(&station.rootfs())?.stderr, "");
    assert_eq!(is_told(&raw)?.stderr, "");
    let compressed = station.path("drive.img.zst");
    output(Command::new("zstd").arg("-q").arg(&raw).arg("-o").arg(&compressed))?;
    is_told(&compressed)?;
    let sparse = station.path("drive.simg");
    output(Command::new("img2simg").arg(&raw).arg(&sparse))?;
    is_told(&sparse)?;

    let text = inspect(&station, &raw, &[])?.ended_with(0)?.stdout;
    let (who, table) = text.split_once("\n  last states\n").unwrap();
    assert!(who.contains(EMAIL), "{text}");
    let rows: Vec<&str> = table.lines().collect();
    assert!(
        rows.len() == 3 && rows[1].contains("  waiting          75  ") && rows[2].contains("  refused          77  "),
        "{table}"
    );

    set(&raw, "feature needs_recovery")?;
    let said = is_told(&raw)?.stderr;
    assert!(said.contains("warning") && said.contains("not unmounted cleanly"), "{said}");
    set(&raw, &format!("rm /{CONF}"))?;
    let record = inspect(&station, &raw, &["--json"])?.ended_with(0)?.json_lines()?.remove(0);
    assert_eq!((&record["empty"], &record["history"]), (&true.into(), &recorded), "{record}");
    Ok(())
}

// Promise: an invalid device.conf is the reason itself: the history says so, and the exit code is that of such a file.
#[test]
fn a_damaged_device_conf_tells_why() -> anyhow::Result<()> {
    let station = device()?;
    station.put(&format!("rootfs/{CONF}"), "hush\n", 0o600)?;
    station.agent(&["boot"])?.ended_with(78)?;
    let run = inspect(&station, &station.rootfs(), &["--json"])?.ended_with(65)?;
    let record = run.json_lines()?.remove(0);
    assert_eq!(states(&record["history"]), [("misconfigured", 78)]);
    assert!(
        record.get("empty").is_none() && record.get("serial").is_none() && !run.words().contains("hush"),
        "{record}"
    );
    let run = inspect(&station, &station.rootfs(), &[])?.ended_with(65)?;
    assert!(run.stdout.contains("invalid device.conf\n  last states\n"), "{}", run.stdout);
    Ok(())
}

/// Returns a forged history with so many changes.
fn hostile(count: u64) -> String {
    let change = |number| {
        json!({ "time": "2026-05-03T10:00:00Z", "boot_id": "b".repeat(900), "boottime_s": number, "state": "rea\u{1b}[2Jdy\n",
                "code": 0, "reason": format!("\u{202e}{}", "x".repeat(900)), "more": [1] })
    };
    json!({ "version": 1, "changes": (0..count).map(change).collect::<Vec<_>>() }).to_string()
}

// Promise: the content of a drive is not trusted: control characters are escaped, texts and counts are bounded; an
// invalid history costs a warning, is not quoted, and does not affect the rest of the record.
#[test]
fn a_history_of_others() -> anyhow::Result<()> {
    let station = device()?;
    station.put(&format!("rootfs/{HISTORY}"), hostile(30), 0o644)?;
    for target in [station.rootfs(), image(&station, "hostile.img")?] {
        for options in [&[][..], &["--json"]] {
            let run = inspect(&station, &target, options)?.ended_with(0)?;
            assert!(!run.stdout.contains(['\u{1b}', '\u{202e}']) && run.stdout.len() < 32 * 800, "{}", run.stdout);
        }
        let text = inspect(&station, &target, &[])?.stdout;
        assert!(
            text.contains("\n  last states (22 earlier ones with --json)\n") && text.lines().count() < 20,
            "{text}"
        );
    }
    for (content, says) in [
        (hostile(32).replace("\"version\":1", "\"version\":7"), "version 7"),
        ("hush".to_owned(), "not a history that azaion-agent wrote"),
        (String::new(), "not a history that azaion-agent wrote"),
        (" ".repeat(64 * 1024 + 1), ""),
    ] {
        station.put(&format!("rootfs/{HISTORY}"), content, 0o644)?;
        for target in [station.rootfs(), image(&station, "odd.img")?] {
            let run = inspect(&station, &target, &["--json"])?.ended_with(0)?;
            assert!(run.stderr.contains("history") && run.stderr.contains(says), "{}", run.stderr);
            let record = run.json_lines()?.remove(0);
            assert!(
                record.get("history").is_none() && record["serial"] == SERIAL && !run.words().contains("hush"),
                "{record}"
            );
        }
    }
    Ok(())
}

// Promise: a symlink in place of the file is not followed, and none on the path leads out of the tree.
#[test]
fn symlinks_lead_nowhere() -> anyhow::Result<()> {
    let station = device()?;
    station.put("outside/history.json", hostile(1), 0o644)?;
    let outside = station.path("outside");
    for (link, to) in [("var/lib/azaion", outside.clone()), (HISTORY, outside.join("history.json"))] {
        fs::remove_dir_all(station.inside("var")).ok();
        let link = station.inside(link);
        fs::create_dir_all(link.parent().unwrap())?;
        symlink(to, &link)?;
        for target in [station.rootfs(), image(&station, "links.img")?] {
            let run = inspect(&station, &target, &["--json"])?.ended_with(0)?;
            let record = run.json_lines()?.remove(0);
            assert!(record.get("history").is_none() && record["serial"] == SERIAL, "{record}");
        }
    }
    Ok(())
}
