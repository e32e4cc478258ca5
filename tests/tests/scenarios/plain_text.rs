//! Text from others (certificates, file names, answers) shows no control character in a terminal, in the journal, to
//! systemd or in a report.

use std::fs;
use std::os::unix::net::UnixDatagram;

use azaion_agent::common::plain_text::is_control;
use azaion_tests::dev_api::{Fault, Options, Tls};
use azaion_tests::programs::{Run, native, start};
use azaion_tests::station::{Station, command};
use nix::unistd::geteuid;
use serde_json::Value;

use crate::journal::boot_as_unit;

/// Moves the cursor, forges a line for systemd and for people, with C0, C1 and Unicode control characters.
const ODD: &str = "odd\nMAINPID=1\r\u{1b}[2J\u{7f}\u{85}\u{9b}31m\u{2028}\u{202e}gnp\u{2066}\u{200b}\u{feff}";
/// The part of it that a name in a certificate can contain.
const ODD_NAME: &str = "odd\nMAINPID=1\r\u{1b}[2J\u{7f}.example";

/// Checks that no line has a control character; lines end with `
/// `.
fn is_plain(what: &str, text: &str) -> anyhow::Result<()> {
    let found = text.split('\n').find(|line| line.contains(is_control));
    anyhow::ensure!(found.is_none(), "{what}: {found:?}");
    // No such line was forged.
    anyhow::ensure!(!text.lines().any(|line| line.starts_with("MAINPID")), "{what}: {text}");
    Ok(())
}

fn run_is_plain(run: &Run) -> anyhow::Result<()> {
    is_plain("standard output", &run.stdout)?;
    is_plain("standard error", &run.stderr)
}

/// Checks that no message in the value has a control character; paths are values that programs use unchanged.
fn messages_are_plain(value: &Value) -> anyhow::Result<()> {
    match value {
        Value::String(text) => is_plain("a field", text),
        Value::Array(list) => list.iter().try_for_each(messages_are_plain),
        Value::Object(fields) => {
            fields.iter().filter(|(name, _)| *name != "path").try_for_each(|(_, value)| messages_are_plain(value))
        }
        _ => Ok(()),
    }
}

/// Runs `azaion-agent` on a root with any name, and a socket in place of systemd's; returns what it received.
fn agent(station: &Station, root: &str, arguments: &[&str]) -> anyhow::Result<(Run, Vec<String>)> {
    let socket = station.path("notify");
    fs::remove_file(&socket).ok();
    let notified = UnixDatagram::bind(&socket)?;
    notified.set_nonblocking(true)?;
    let mut command = command(&native()?.join("azaion-agent"), arguments);
    command.arg("--root").arg(station.path(root)).env("NOTIFY_SOCKET", &socket);
    let run = station.wait(start(&mut command)?)?;
    let mut messages = Vec::new();
    let mut bytes = [0; 8192];
    while let Ok(size) = notified.recv(&mut bytes) {
        messages.push(String::from_utf8(bytes[..size].to_vec())?);
    }
    Ok((run, messages))
}

fn agent_is_plain(station: &Station, root: &str, code: i32) -> anyhow::Result<String> {
    let (run, messages) = agent(station, root, &["boot", "--deadline", "1"])?;
    let run = run.ended_with(code)?;
    run_is_plain(&run)?;
    assert_eq!(messages.len(), 1, "{messages:?}");
    let status = messages[0].strip_prefix("STATUS=").unwrap();
    is_plain("STATUS=", status)?;
    assert!(status.trim_end_matches('\n').lines().count() == 1 && status.len() < 4096, "{status:?}");
    for file in ["run/azaion/ready.json", "run/azaion/backoff.json"] {
        let Ok(text) = fs::read_to_string(station.path(root).join(file)) else { continue };
        is_plain(file, &text)?;
        messages_are_plain(&serde_json::from_str(&text)?)?;
    }
    for arguments in [&["status"][..], &["status", "--json"], &["token"]] {
        let (run, _) = agent(station, root, arguments)?;
        run_is_plain(&run)?;
        for line in run.stdout.lines().filter(|_| arguments.contains(&"--json")) {
            messages_are_plain(&serde_json::from_str(line)?)?;
        }
    }
    Ok(run.stderr)
}

// Promise: names in a certificate for another server are shown without any effect on the output of agent and host tool.
#[test]
fn names_in_a_certificate() -> anyhow::Result<()> {
    let station = Station::new(Options { tls: Tls::Names(&[ODD_NAME, "other.example"]), ..Options::default() })?;
    let run = station.device(&["--deadline", "1"])?.ended_with(69)?;
    assert!(run.stderr.contains("other.example"), "{}", run.stderr);
    run_is_plain(&run)?;
    let rootfs = station.rootfs().display().to_string();
    for json in [&[][..], &["--json"]] {
        let run = station.provision(&[&["check", "--deadline", "1", "--rootfs", &rootfs], json].concat())?;
        run_is_plain(&run)?;
    }
    // The device itself has everything it needs.
    let conf = format!(
        "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=device-password\nAZAION_API_URL={}\n",
        station.api.url()
    );
    station.put("rootfs/etc/azaion/device.conf", conf, 0o600)?;
    station.put_policy("deadline_s = 1")?;
    let said = agent_is_plain(&station, "rootfs", 75)?;
    assert!(said.contains("other.example"), "{said}");
    if geteuid().is_root() {
        let (journal, console) = boot_as_unit(&station)?;
        is_plain("the console", &console)?;
        let ours = journal.iter().filter(|entry| entry["SYSLOG_IDENTIFIER"] == "azaion-agent");
        let said: Vec<&str> = ours.filter_map(|entry| entry["MESSAGE"].as_str()).collect();
        assert!(said.iter().any(|text| text.contains("other.example")), "{said:?}");
        said.iter().try_for_each(|text| is_plain("the journal", text))?;
    }
    Ok(())
}

// Promise: the text of a server's answer is not quoted.
#[test]
fn texts_in_an_answer() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("deadline_s = 1")?;
    for (status, code) in [(400, 77), (401, 77), (405, 76), (503, 75)] {
        let message = serde_json::to_string(ODD)?;
        let fault = Fault::Answer {
            status,
            content_type: "application/json".into(),
            body: format!("{{\"ErrorCode\":70,\"Message\":{message},{message}:1}}"),
            headers: Vec::new(),
        };
        station.api.inject("POST", "/login", fault, usize::MAX);
        fs::remove_dir_all(station.inside("run")).ok();
        let said = agent_is_plain(&station, "rootfs", code)?;
        assert!(!said.contains("odd"), "{said}");
        let run = station.device(&["--deadline", "1"])?;
        run_is_plain(&run)?;
        assert!(!run.stderr.contains("odd"), "{}", run.stderr);
        station.api.clear_faults();
    }
    Ok(())
}

// Promise: a file name has no effect on the agent's lines.
#[test]
fn names_of_the_agents_files() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let said = agent_is_plain(&station, ODD, 78)?;
    assert!(said.contains("odd\\u{a}MAINPID=1\\u{d}\\u{1b}[2J\\u{7f}\\u{85}\\u{9b}31m\\u{2028}\\u{202e}gnp"), "{said}");
    station.put(&format!("{ODD}/etc/azaion/device.conf"), format!("oops {ODD}"), 0o600)?;
    agent_is_plain(&station, ODD, 78)?;
    station.put(&format!("{ODD}/etc/azaion/agent.toml"), format!("\"{}\" = 1", "\\u009b\\n"), 0o644)?;
    let conf =
        "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=device-password\nAZAION_API_URL=https://a.example\n";
    station.put(&format!("{ODD}/etc/azaion/device.conf"), conf, 0o600)?;
    agent_is_plain(&station, ODD, 78)?;
    Ok(())
}

// Promise: a target's name has no effect on the host tool's lines, in text, JSON and reports; programs get it
// unchanged.
#[test]
fn names_of_targets() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let tree = |name: &str| station.path(&format!("{ODD}{name}"));
    for name in ["AZJN-0042", "AZJN-0043"] {
        fs::create_dir_all(tree(name).join("etc"))?;
        fs::create_dir_all(tree(name).join("usr"))?;
    }
    let (full, missing) = (tree("AZJN-0042").display().to_string(), tree("missing").display().to_string());
    let json = |run: Run| -> anyhow::Result<()> {
        run_is_plain(&run)?;
        let value = run.json_lines()?.remove(0);
        let path = value["path"].as_str().or(value["targets"][0]["path"].as_str());
        assert_eq!(path, Some(full.as_str()), "{value}");
        messages_are_plain(&value)
    };
    let device = |extra: &[&str]| {
        station.provision(&[&["device", "AZJN-0042", "--owner", "current", "--rootfs", &full], extra].concat())
    };
    json(device(&["--json"])?.ended_with(0)?)?;
    run_is_plain(&device(&[])?.ended_with(0)?)?;
    json(station.provision_offline(&["inspect", "--json", &full])?.ended_with(0)?)?;
    for arguments in [
        &["inspect", &full][..],
        &["inspect", &missing],
        &["inspect", "--json", &missing],
        &["clear", &missing],
        &["inspect", &full, &missing, &full],
        &["inspect", "--odd", &full],
        &["inspect", &full, &format!("--{ODD}")],
        &[ODD],
    ] {
        run_is_plain(&station.provision_offline(arguments)?)?;
    }
    for arguments in [&["check", "--rootfs", &full][..], &["check", "--json", "--rootfs", &full, "--rootfs", &missing]]
    {
        run_is_plain(&station.provision(arguments)?)?;
    }
    let template = tree("{serial}").display().to_string();
    for name in ["report.csv", "report.jsonl"] {
        let report = station.path(name).display().to_string();
        let batch = ["batch", "AZJN-0042..AZJN-0044", "--owner", "current", "--rootfs", &template, "--report", &report];
        for extra in [&[][..], &["--json"]] {
            let run = station.provision(&[&batch, extra].concat())?;
            run_is_plain(&run)?;
            let text = fs::read_to_string(&report)?;
            is_plain(name, &text)?;
            assert!(text.contains("AZJN-0044"), "{text}");
        }
    }
    run_is_plain(&station.provision_offline(&["clear", &full])?.ended_with(0)?)?;
    Ok(())
}
