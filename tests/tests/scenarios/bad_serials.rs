//! Invalid serials, and the shortest and longest valid ones.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use azaion_tests::dev_api::Options;
use azaion_tests::programs;
use azaion_tests::station::Station;

const PREFIX: &str = "starts with AZJN-";
const LENGTH: &str = "1 to 32";
const CAPITALS: &str = "capitals";
const CHARACTER: &str = "A to Z";

/// Invalid serials, each with the message words that give the reason.
const BAD: [(&str, &str); 46] = [
    ("", PREFIX),
    (" ", PREFIX),
    ("0042", PREFIX),
    ("AZJN", PREFIX),
    ("AZJN0042", PREFIX),
    ("AZJN_0042", PREFIX),
    ("AZJN\u{2010}0042", PREFIX),
    ("AZJN\u{2013}0042", PREFIX),
    ("AZYN-0042", PREFIX),
    ("\u{410}ZJN-0042", PREFIX),
    (" AZJN-0042", PREFIX),
    ("\nAZJN-0042", PREFIX),
    ("\"AZJN-0042\"", PREFIX),
    ("../AZJN-0042", PREFIX),
    ("/etc/passwd", PREFIX),
    ("AZJN-", LENGTH),
    ("AZJN-000000000000000000000000000000000", LENGTH),
    ("azjn-0042", CAPITALS),
    ("Azjn-0042", CAPITALS),
    ("AZJN-00af", CAPITALS),
    ("AZJN-00Af", CAPITALS),
    ("AZJN-0042-1", CHARACTER),
    ("AZJN--0042", CHARACTER),
    ("AZJN-0042 ", CHARACTER),
    ("AZJN- 0042", CHARACTER),
    ("AZJN-00 42", CHARACTER),
    ("AZJN-0042\n", CHARACTER),
    ("AZJN-0042\r", CHARACTER),
    ("AZJN-00\n42", CHARACTER),
    ("AZJN-0042\t", CHARACTER),
    ("AZJN-\u{1b}[31m", CHARACTER),
    ("AZJN-\u{dc}BER", CHARACTER),
    ("AZJN-\u{ff10}\u{ff10}\u{ff14}\u{ff12}", CHARACTER),
    ("AZJN-\u{660}\u{661}", CHARACTER),
    ("AZJN-A\u{301}", CHARACTER),
    ("AZJN-0042\u{200b}", CHARACTER),
    ("AZJN-\u{17f}", CHARACTER),
    ("AZJN-../../etc/passwd", CHARACTER),
    ("AZJN-0042/..", CHARACTER),
    ("AZJN-..", CHARACTER),
    ("AZJN-00.42", CHARACTER),
    ("AZJN-0042@evil.example", CHARACTER),
    ("AZJN-00+42", CHARACTER),
    ("AZJN-%30", CHARACTER),
    ("AZJN-$(id)", CHARACTER),
    ("AZJN-0042;id", CHARACTER),
];

/// Serials that look like options: parsed as a serial only after `--`.
const BEHIND_DASHES: [(&str, &str); 3] = [("--help", PREFIX), ("-AZJN-0042", PREFIX), ("--", PREFIX)];

/// Returns the names of all entries in the root file system.
fn tree(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        names.push(path.display().to_string());
        if path.is_dir() {
            names.extend(tree(&path)?);
        }
    }
    names.sort();
    Ok(names)
}

fn is_refused(station: &Station, serial: &str, says: &str, dashes: bool) -> anyhow::Result<()> {
    let rootfs = station.rootfs();
    let before = tree(&rootfs)?;
    let target = rootfs.display().to_string();
    let options = ["--rootfs", target.as_str(), "--owner", "current", "--json"];
    let mut command = station.provision_command(&["device"])?;
    command.args(station.api_arguments()).args(options);
    command.args(dashes.then_some("--")).arg(serial);
    let run = station.wait(programs::start(&mut command)?)?.ended_with(65)?;
    ensure!(run.stderr.contains(says), "{says:?} is not in: {}", run.stderr);
    ensure!(!run.stderr.trim_end().contains(char::is_control), "control characters are printed: {:?}", run.stderr);
    ensure!(run.stdout.is_empty(), "standard output: {}", run.stdout);
    ensure!(station.api.requests().is_empty(), "the API was called");
    ensure!(tree(&rootfs)? == before, "the target was written to");
    Ok(())
}

// Promise: an invalid serial is refused with 65 and the reason, before any call and before any write.
#[test]
fn bad_serials_are_refused_before_anything_happens() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let plain = BAD.iter().map(|row| (row, false));
    let rows = plain.chain(BEHIND_DASHES.iter().map(|row| (row, true)));
    let wrong = |((serial, says), dashes): (&(&str, &str), bool)| {
        is_refused(&station, serial, says, dashes).err().map(|error| format!("{serial:?}: {error:#}"))
    };
    let failures: Vec<String> = rows.filter_map(wrong).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

// Promise: a serial that looks like an option is a usage error.
#[test]
fn bad_serials_that_are_options_are_usage_errors() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let rootfs = station.rootfs().display().to_string();
    for serial in ["-AZJN-0042", "--azjn-0042"] {
        station.provision(&["device", serial, "--rootfs", &rootfs])?.ended_with(64)?;
    }
    assert!(station.api.requests().is_empty());
    Ok(())
}

// Promise: the shortest and the longest serial work from the host to the ready device.
#[test]
fn bad_serials_end_where_good_ones_begin() -> anyhow::Result<()> {
    for serial in ["AZJN-0", "AZJN-Z", "AZJN-0123456789ABCDEFGHIJKLMNOPQRSTUV"] {
        let station = Station::new(Options::default())?;
        let rootfs = station.rootfs().display().to_string();
        let options = ["device", "--rootfs", &rootfs, "--owner", "current", "--json"];
        let mut command = station.provision_command(&options)?;
        command.args(station.api_arguments()).args(["--", serial]);
        let run = station.wait(programs::start(&mut command)?)?.ended_with(0)?;
        let unit = serial.trim_start_matches("AZJN-").to_lowercase();
        let email = format!("azaion-jetson-{unit}@azaion.com");
        assert_eq!(run.json_lines()?[0]["email"], email.as_str());
        station.put_policy("")?;
        let console = station.agent(&["boot"])?.ended_with(0)?.stdout;
        assert!(console.contains(serial) && console.contains("ready"), "{console}");
        assert_eq!(station.json("run/azaion/token.json").unwrap()["email"], email.as_str());
    }
    Ok(())
}
