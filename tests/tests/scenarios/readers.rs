//! `device.conf` has the same meaning for a POSIX shell, systemd and Python as for the agent.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use azaion_agent::common::device_conf::DeviceConf;
use azaion_tests::dev_api::Options;
use azaion_tests::programs::{output, workspace};
use azaion_tests::station::Station;
use secrecy::{ExposeSecret, SecretString};

type Values = BTreeMap<String, String>;

const KEYS: [&str; 6] = [
    "AZAION_DEVICE_SERIAL",
    "AZAION_DEVICE_EMAIL",
    "AZAION_DEVICE_PASSWORD",
    "AZAION_API_URL",
    "AZAION_PROVISIONED_AT",
    "AZAION_MODULE_SERIAL",
];

/// Files as the agent's library writes them, with every permitted character at every position of a value.
fn files(station: &Station) -> anyhow::Result<Vec<(PathBuf, Values)>> {
    let passwords = [
        "abcdefghijklmnopqrstuvwxyz012345",
        "@%+=:,./_-@%+=:,./_-",
        "=starts-with-equals",
        "-n",
        "%n%i%%",
        "ends-with-percent%",
        "a=b=c",
        "//..//",
        ":~:",
        "+1",
        "0x10",
        "007",
    ];
    let mut files = Vec::new();
    for (number, password) in passwords.iter().filter(|p| azaion_agent::api::url::is_plain_value(p)).enumerate() {
        let conf = DeviceConf {
            serial: Some(format!("AZJN-{number:04}")),
            email: format!("azaion-jetson-{number:04}@azaion.com"),
            password: SecretString::from(*password),
            api_url: "https://admin.example.com:8443/base_1/%7Ex=y,z".parse()?,
            provisioned_at: Some("2026-05-03T10:00:00Z".parse()?),
            module_serial: Some("1423221050123@%+=:,./_-".into()),
        };
        let name = format!("conf-{number}");
        station.put(&name, conf.render().expose_secret(), 0o600)?;
        let values = KEYS.iter().zip([
            conf.serial.clone().unwrap_or_default(),
            conf.email.clone(),
            (*password).to_owned(),
            conf.api_url.to_string(),
            "2026-05-03T10:00:00Z".to_owned(),
            conf.module_serial.clone().unwrap_or_default(),
        ]);
        files.push((station.path(&name), values.map(|(key, value)| ((*key).to_owned(), value)).collect()));
    }
    Ok(files)
}

/// Parses the `KEY=VALUE` lines of an environment, ours only.
fn environment(text: &str) -> Values {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.filter(|(key, _)| key.starts_with("AZAION_")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

// Promise: `. file` in a POSIX shell (dash, and bash as sh) gives the same values.
#[test]
fn a_shell_reads_the_same() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    for (file, values) in files(&station)? {
        for shell in [&["sh"][..], &["bash", "--posix"]] {
            let [program, options @ ..] = shell else { continue };
            let mut command = Command::new(program);
            command
                .args(options)
                .args(["-euc", "set -a; . \"$1\"; env", "sh"])
                .arg(&file)
                .env_clear()
                .env("PATH", "/usr/bin:/bin");
            assert_eq!(environment(&output(&mut command)?), values, "{shell:?}");
        }
    }
    Ok(())
}

// Promise: a loader in Python reads the same.
#[test]
fn python_reads_the_same() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    for (file, values) in files(&station)? {
        let script = workspace().join("tests/scripts/read-conf.py");
        let text = output(Command::new("python3").arg(script).arg(&file))?;
        assert_eq!(serde_json::from_str::<Values>(&text)?, values);
    }
    Ok(())
}

// Promise: systemd's `EnvironmentFile=` gives the same values (the real one, one systemd unit per file).
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn systemd_reads_the_same() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let files = files(&station)?;
    let mut units = Vec::new();
    for (number, (file, _)) in files.iter().enumerate() {
        let (file, out) = (file.display(), station.path(&format!("out-{number}")));
        let unit = format!(
            "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nEnvironmentFile={file}\nExecStart=/usr/bin/env\n\
             StandardOutput=file:{}\n",
            out.display()
        );
        station.put(&format!("units/read-{number}.service"), unit, 0o644)?;
        units.push(format!("read-{number}.service"));
    }
    let units = units.join(" ");
    let last = format!(
        "[Unit]\nDefaultDependencies=no\nWants={units}\nAfter={units}\nSuccessAction=exit-force\nFailureAction=exit-force\n\
         [Service]\nType=oneshot\nExecStart=/bin/true\n"
    );
    station.put("units/last.service", last, 0o644)?;
    run_unit(&station, "last.service")?;
    for (number, (_, values)) in files.iter().enumerate() {
        assert_eq!(&environment(&fs::read_to_string(station.path(&format!("out-{number}")))?), values);
    }
    Ok(())
}

/// Runs a unit of the host's directory `units` under a private systemd; returns the journal's entries.
pub(crate) fn run_unit(station: &Station, unit: &str) -> anyhow::Result<Vec<serde_json::Value>> {
    let journal = station.path("journal.json");
    let script: &Path = &workspace().join("tests/scripts/run-unit.sh");
    output(Command::new(script).arg(station.path("units")).arg(unit).arg(&journal))?;
    Ok(fs::read_to_string(journal)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}
