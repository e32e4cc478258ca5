//! Files that another user has put where ours belong.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use anyhow::ensure;
use azaion_tests::station::{EMAIL, SERIAL, Station, conf_value};

use crate::attacker::{NOBODY, station, text};

const CONF: &str = "etc/azaion/device.conf";
const MARK: &str = "# azaion-provision: the API takes this password\n";
const FORM: &str = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6";

/// Writes a `device.conf` of the serial with this password and API, and further lines.
fn plant(station: &Station, password: &str, api: &str, lines: &str, mode: u32, owner: u32) -> anyhow::Result<()> {
    let conf = format!(
        "AZAION_DEVICE_SERIAL={SERIAL}\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={password}\nAZAION_API_URL={api}\n{lines}"
    );
    station.put(&format!("rootfs/{CONF}"), conf, mode)?;
    fs::set_permissions(station.inside("etc/azaion"), fs::Permissions::from_mode(0o755))?;
    Ok(chown(station.inside(CONF), Some(owner), Some(owner))?)
}

// Promise: a device.conf that this tool cannot have written does not determine the account's password, and a
// confirmation comment in it does not make a batch skip the device.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_device_conf() -> anyhow::Result<()> {
    for (password, api, mode, owner) in [
        ("attacker", None, 0o644, 0),
        (FORM, None, 0o644, 0),
        (FORM, None, 0o600, NOBODY),
        (FORM, Some("https://attacker.example"), 0o600, 0),
        ("attacker", None, 0o600, 0),
    ] {
        for is_batch in [false, true] {
            let station = station()?;
            plant(&station, password, api.unwrap_or(&station.api.url()), MARK, mode, owner)?;
            let rootfs = text(&station.rootfs());
            let verb = if is_batch { "batch" } else { "device" };
            let list = if is_batch { format!("{SERIAL}..{SERIAL}") } else { SERIAL.to_owned() };
            let run = station.provision(&[verb, &list, "--rootfs", &rootfs, "--json"])?.ended_with(0)?;
            ensure!(run.json_lines()?[0]["outcome"] == "created", "{password} {mode:o}: {}", run.stdout);
            let now = conf_value(&station.inside(CONF), "AZAION_DEVICE_PASSWORD").unwrap_or_default();
            ensure!(now != password && station.api.password_is(EMAIL, &now), "{password} {mode:o} {owner}");
            ensure!(!station.api.password_is(EMAIL, password));
            let metadata = fs::metadata(station.inside(CONF))?;
            ensure!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()) == (0o600, 0, 0));
        }
    }
    Ok(())
}

// Promise: a report replaces a symlink at its path, and leaves the symlink's target unchanged.
#[test]
fn a_symlink_in_place_of_the_report() -> anyhow::Result<()> {
    for name in ["report.csv", "report.jsonl"] {
        let station = Station::new(azaion_tests::dev_api::Options::default())?;
        station.put("precious", "precious\n", 0o600)?;
        symlink(station.path("precious"), station.path(name))?;
        let (rootfs, report) = (text(&station.rootfs()), text(&station.path(name)));
        let list = format!("{SERIAL}..{SERIAL}");
        let options = ["--owner", "current", "--report", &report];
        station.provision(&[&["batch", &list, "--rootfs", &rootfs], &options[..]].concat())?.ended_with(0)?;
        ensure!(fs::read_to_string(station.path("precious"))? == "precious\n");
        let metadata = fs::symlink_metadata(station.path(name))?;
        ensure!(metadata.is_file() && fs::read_to_string(station.path(name))?.contains(SERIAL));
    }
    Ok(())
}
