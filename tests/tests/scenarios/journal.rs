//! The agent under systemd: its output to the journal, `STATUS=` and the console.

use std::time::Duration;

use azaion_tests::dev_api::{Fault, Generation, Options};
use azaion_tests::record;
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::Value;

use crate::loader::age_token;
use crate::readers::run_unit;

/// Runs `azaion-agent boot` as a oneshot of a real systemd; returns the journal, and the console output.
pub(crate) fn boot_as_unit(station: &Station) -> anyhow::Result<(Vec<Value>, String)> {
    run_as_unit(station, "boot", "")
}

/// Returns the restart settings of our unit.
fn restarts() -> String {
    let unit = include_str!("../../../systemd/azaion-agent.service");
    unit.split_inclusive('\n').filter(|line| line.starts_with("Restart")).collect()
}

/// The same with other arguments, and additional settings in the unit.
fn run_as_unit(station: &Station, arguments: &str, more: &str) -> anyhow::Result<(Vec<Value>, String)> {
    let console = station.path("console");
    // Each end of the service counts, also one after which it is restarted: then only a success ends the manager.
    let (actions, post) = if more.contains("Restart=") {
        // SIGRTMIN+24 (systemd(1)), for which dash has no name.
        ("", "ExecStartPost=/bin/sh -c 'kill -58 $MANAGERPID'\n")
    } else {
        ("SuccessAction=exit-force\nFailureAction=exit-force\n", "")
    };
    let unit = format!(
        "[Unit]\nDefaultDependencies=no\n{actions}\
         [Service]\nType=oneshot\nNotifyAccess=main\nExecStart={} {arguments} --deadline 2 --root {}\n\
         StandardOutput=append:{}\nStandardError=journal\n{post}{more}",
        azaion_tests::programs::native()?.join("azaion-agent").display(),
        station.rootfs().display(),
        console.display()
    );
    station.put("units/azaion-agent.service", unit, 0o644)?;
    let journal = run_unit(station, "azaion-agent.service")?;
    let entries: Vec<String> = journal.iter().map(Value::to_string).collect();
    record::words(&entries.join("\n"))?;
    Ok((journal, std::fs::read_to_string(console).unwrap_or_default()))
}

pub(crate) fn entry<'a>(journal: &'a [Value], state: &str) -> anyhow::Result<&'a Value> {
    let found = journal.iter().find(|entry| entry["AZAION_STATE"] == state);
    found.ok_or_else(|| anyhow::anyhow!("no entry has {state}: {journal:#?}"))
}

// Promise: one journal entry with a fixed MESSAGE_ID and the fields, `STATUS=`, and one line on the console.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn ready_is_told_once() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    let (journal, console) = boot_as_unit(&station)?;
    let ready = entry(&journal, "ready")?;
    assert_eq!((&ready["AZAION_SERIAL"], &ready["AZAION_EMAIL"]), (&SERIAL.into(), &EMAIL.into()));
    assert_eq!(ready["MESSAGE_ID"], "5d0cf2a5b7c94f0a9be1b1e0a7a4c3d1");
    assert_eq!(ready["PRIORITY"], "5");
    assert_eq!(journal.iter().filter(|entry| entry["MESSAGE_ID"] == ready["MESSAGE_ID"]).count(), 1);
    assert_eq!(console.lines().count(), 1);
    assert!(console.contains(SERIAL) && console.contains("ready"), "{console}");
    // A later run with a fresh token prints nothing on the console, and makes no call.
    let calls = station.api.requests().len();
    let (_, console) = boot_as_unit(&station)?;
    assert_eq!((console.lines().count(), station.api.requests().len()), (1, calls));
    Ok(())
}

// Promise: at any verbosity, the log output of the HTTP and TLS libraries stays out of the journal.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn only_our_own_words() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    let (journal, _) = run_as_unit(&station, "-vvv boot", "")?;
    entry(&journal, "ready")?;
    let from: Vec<&str> = journal.iter().filter_map(|entry| entry["TARGET"].as_str()).collect();
    assert!(!from.is_empty() && from.iter().all(|target| target.starts_with("azaion_agent")), "{from:?}");
    Ok(())
}

type Break = fn(&Station) -> anyhow::Result<()>;

// Promise: each way of not being ready has its own MESSAGE_ID, the exit code, and text that says what to do.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn not_ready_is_told_with_the_reason() -> anyhow::Result<()> {
    let cases: [(&str, &str, &str, Break); 3] = [
        ("refused", "77", "the password is wrong", |s| {
            s.api.set_password(EMAIL, "another-password");
            Ok(())
        }),
        ("misconfigured", "78", "device.conf:1", |s| s.put("rootfs/etc/azaion/device.conf", "oops\n", 0o600)),
        ("unacceptable", "76", "role is not CompanionPC", |s| {
            s.api.delete_user(EMAIL);
            s.api.add_user(EMAIL, &s.password().unwrap_or_default(), "ApiAdmin");
            Ok(())
        }),
    ];
    for (state, code, advice, break_it) in cases {
        let station = Station::new(Options { generation: Generation::G2, ..Options::default() })?;
        station.device(&[])?.ended_with(0)?;
        station.put_policy("")?;
        break_it(&station)?;
        let (journal, console) = boot_as_unit(&station)?;
        let told = entry(&journal, state)?;
        assert_eq!((&told["PRIORITY"], &told["AZAION_EXIT_CODE"]), (&"3".into(), &code.into()));
        assert!(told["MESSAGE"].as_str().unwrap_or_default().contains(advice), "{told}");
        assert!(told["MESSAGE_ID"].is_string());
        assert_eq!(console, "");
        assert!(journal.iter().any(|e| e["EXIT_STATUS"] == code), "systemd saw another exit code");
    }
    Ok(())
}

// Promise: after an invalid answer the unit makes no call for some minutes; a manual run, after which the server may be
// fixed, does not wait.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_unacceptable_answer_is_not_asked_for_each_minute() -> anyhow::Result<()> {
    let station = Station::new(Options { generation: Generation::G2, ..Options::default() })?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("audience = \"Others\"")?;
    boot_as_unit(&station)?;
    let logins = station.api.calls("POST", "/login");
    // It waits until it is killed.
    let (journal, _) = run_as_unit(&station, "boot", "TimeoutStartSec=3\n")?;
    entry(&journal, "unacceptable").unwrap_err();
    assert_eq!(station.api.calls("POST", "/login"), logins);
    station.agent(&["boot"])?.ended_with(76)?;
    assert_eq!(station.api.calls("POST", "/login"), logins + 1);
    station.put_policy("")?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert!(!station.inside("run/azaion/backoff.json").exists());
    let (journal, _) = boot_as_unit(&station)?;
    assert!(entry(&journal, "unacceptable").is_err());
    Ok(())
}

// Promise: the unit waits as long as a limited server asks for, also beyond its deadline, with one login after it; a
// manual run ends with 75 instead.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_unit_waits_as_the_server_asks() -> anyhow::Result<()> {
    let limited = limited();
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.api.forget_requests();
    station.api.inject("POST", "/login", limited.clone(), 1);
    station.agent(&["boot", "--deadline", "2"])?.ended_with(75)?;
    // The rest of that wait, and then another.
    station.api.inject("POST", "/login", limited, 1);
    let (journal, _) = run_as_unit(&station, "boot", &restarts())?;
    entry(&journal, "ready")?;
    assert_eq!(station.api.calls("POST", "/login"), 3);
    Ok(())
}

fn limited() -> Fault {
    Fault::Status { code: 429, error: Some(51), headers: vec![("Retry-After".into(), "3".into())] }
}

// Promise: while the token is still valid, no run waits, because waiting would block the clients of the token.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_valid_token_is_not_waited_with() -> anyhow::Result<()> {
    let token_lifetime = Some(Duration::from_secs(90));
    let station = Station::new(Options { generation: Generation::G2, token_lifetime, ..Options::default() })?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.agent(&["boot"])?.ended_with(0)?;
    age_token(&station)?;
    let before = std::fs::read(station.inside("run/azaion/token.json"))?;
    station.api.forget_requests();
    station.api.inject("POST", "/token/refresh", limited(), 1);
    boot_as_unit(&station)?;
    // The run has ended with the old token; a second try would have obtained a new one.
    assert_eq!(station.api.requests().len(), 1);
    assert!(std::fs::read(station.inside("run/azaion/token.json"))? == before);
    station.agent(&["token"])?.ended_with(0)?;
    Ok(())
}
