//! Devices that fail, beside others; and reports, parsed by other programs.

use std::fs;

use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::Run;
use serde_json::Value;

use super::{CONF, Line, said, serials, text};

const TABLE: &str =
    "serial,customer\nAZJN-0001,\"Müller, Meyer\"\nAZJN-0002,\"a \"\"b\"\"\"\nAZJN-0003,\nAZJN-0004,x\nAZJN-0005,y\n";
/// The exit code of each device: its target is a file, holds another device's file, or the API rejects its e-mail.
const CODES: [u64; 5] = [0, 66, 73, 76, 0];

/// Creates a host where three of five devices fail, and the fault of the server.
fn troubled() -> anyhow::Result<Line> {
    let line = Line::new(Options::default())?;
    line.station.put("list.csv", TABLE, 0o644)?;
    line.station.put("units/AZJN-0002", "not a root file system", 0o644)?;
    let other = format!(
        "AZAION_DEVICE_SERIAL=AZJN-0099\nAZAION_DEVICE_EMAIL=azaion-jetson-0099@azaion.com\n\
         AZAION_DEVICE_PASSWORD=earlier-password-1\nAZAION_API_URL={}\n",
        line.station.api.url()
    );
    line.station.put(&format!("units/AZJN-0003/{CONF}"), other, 0o600)?;
    let refused = Fault::Status { code: 400, error: Some(37), headers: Vec::new() };
    line.station.api.inject("POST", "/users", Fault::Delay(std::time::Duration::ZERO), 1);
    line.station.api.inject("POST", "/users", refused, 1);
    Ok(line)
}

fn batch(line: &Line, options: &[&str]) -> anyhow::Result<Run> {
    let list = text(&line.station.path("list.csv"));
    line.batch(&list, &[&["--jobs", "1"], options].concat())
}

// Promise: a failing device does not stop the batch; the exit code is that of the first failure, and the summary lists
// the failures with reasons. After these are fixed, the next run does only what is left: no call is made for a finished
// device.
#[test]
fn a_failure_does_not_stop_the_others() -> anyhow::Result<()> {
    let line = troubled()?;
    let run = batch(&line, &[])?.ended_with(66)?;
    let summary = run.stdout.split_once("5 devices: 2 created, 3 failed (").map(|(_, rest)| rest).unwrap_or_default();
    for part in ["AZJN-0002 (exit code 66): ", "AZJN-0003 (exit code 73): ", "AZJN-0099", "AZJN-0004 (exit code 76): "]
    {
        assert!(summary.contains(part), "{part} is not in {}", run.stdout);
    }
    assert!(run.stderr.contains("3 of 5 devices failed"), "{}", run.stderr);
    for serial in ["AZJN-0001", "AZJN-0005"] {
        line.is_let_in(serial)?;
    }
    assert_eq!(fs::read(line.target("AZJN-0002"))?, b"not a root file system");
    assert!(!line.target("AZJN-0004").join(CONF).exists());
    assert_eq!((line.logins(), line.created()), (1, 3));

    fs::remove_file(line.target("AZJN-0002"))?;
    line.station.provision_offline(&["clear", &text(&line.target("AZJN-0003"))])?.ended_with(0)?;
    line.station.api.forget_requests();
    let run = batch(&line, &[])?.ended_with(0)?;
    assert!(run.stdout.contains("5 devices: 3 created, 2 reused ("), "{}", run.stdout);
    assert_eq!((line.logins(), line.created(), line.station.api.requests().len()), (1, 3, 4));
    serials(1, 5).iter().try_for_each(|serial| line.is_let_in(serial))
}

/// Parses JSON Lines.
const LINES: &str = "[json.loads(line) for line in file]";

/// Returns the rows of a report, as parsed by Python.
fn rows(line: &Line, name: &str, reader: &str) -> anyhow::Result<Vec<Value>> {
    let script = format!("import csv, json, sys\nfile = open(sys.argv[1], newline='')\nprint(json.dumps({reader}))");
    Ok(serde_json::from_str(&said("python3", &["-c", &script, &text(&line.station.path(name))])?)?)
}

// Promise: the report has every device with its e-mail, target, time, exit code and error, and the other columns of the
// list, as CSV and as JSON Lines.
#[test]
fn reports() -> anyhow::Result<()> {
    for (name, reader) in [("report.csv", "list(csv.DictReader(file))"), ("report.jsonl", LINES)] {
        let line = troubled()?;
        batch(&line, &["--report", &text(&line.station.path(name))])?.ended_with(66)?;
        let rows = rows(&line, name, reader)?;
        let is_json = name == "report.jsonl";
        let fields = |field: &str| rows.iter().map(|row| row[field].clone()).collect::<Vec<_>>();
        assert_eq!(fields("serial"), serials(1, 5).into_iter().map(Value::from).collect::<Vec<_>>());
        let codes = |code: u64| if is_json { Value::from(code) } else { code.to_string().into() };
        assert_eq!(fields("exit_code"), CODES.map(codes));
        let customers: Vec<_> =
            rows.iter().map(|row| if is_json { &row["columns"]["customer"] } else { &row["customer"] }).collect();
        assert_eq!(customers, ["Müller, Meyer", "a \"b\"", "", "x", "y"]);
        for (row, code) in rows.iter().zip(CODES) {
            let outcome = if code == 0 { "created" } else { "failed" };
            assert_eq!(row["outcome"], outcome);
            let error = row["error"].as_str().unwrap_or_default();
            assert_eq!(error.is_empty(), code == 0, "{row}");
            let (target, time) = if is_json { ("targets", "elapsed_ms") } else { ("target", "duration_ms") };
            let target = if is_json { &row[target][0] } else { &row[target] };
            assert_eq!(*target, text(&line.target(row["serial"].as_str().unwrap())));
            assert!(row[time].as_u64().or_else(|| row[time].as_str()?.parse().ok()).is_some(), "{row}");
            assert!(row["email"].as_str().unwrap().ends_with("@azaion.com"), "{row}");
        }
    }
    Ok(())
}

// Promise: with --json each device and the summary is a JSON object, and nothing else is on standard output.
#[test]
fn for_machines() -> anyhow::Result<()> {
    let line = troubled()?;
    let mut lines = batch(&line, &["--json"])?.ended_with(66)?.json_lines()?;
    let summary = lines.pop().unwrap();
    assert_eq!((&summary["units"], &summary["not_tried"]), (&5.into(), &0.into()));
    assert_eq!(summary["outcomes"], serde_json::json!({"created": 2, "failed": 3}));
    assert_eq!(lines.iter().map(|line| line["exit_code"].as_u64().unwrap()).collect::<Vec<_>>(), CODES);
    Ok(())
}

// Promise: the report of a killed run consists of complete records, one for each device that it had reported.
#[test]
fn a_report_after_a_kill() -> anyhow::Result<()> {
    for (name, reader) in [("report.csv", "list(csv.DictReader(file))"), ("report.jsonl", LINES)] {
        let line = Line::new(Options::default())?;
        let report = line.station.path(name);
        line.station.api.inject("POST", "/users", Fault::Delay(std::time::Duration::from_millis(20)), usize::MAX);
        let mut running = line.start("AZJN-0001..AZJN-0200", &["--report", &text(&report)])?;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while fs::read_to_string(&report).unwrap_or_default().lines().count() < 5 && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        running.kill()?;
        line.wait(running)?;
        assert!(fs::read_to_string(&report)?.ends_with('\n'));
        let rows = rows(&line, name, reader)?;
        assert!((4..200).contains(&rows.len()), "{}", rows.len());
        assert!(rows.iter().all(|row| row["outcome"] == "created"), "{rows:?}");
    }
    Ok(())
}
