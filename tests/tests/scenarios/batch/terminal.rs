//! What a person sees on the terminal, and what goes into a pipe.

use std::process::Command;
use std::time::Duration;

use azaion_tests::dev_api::{ADMIN_PASSWORD, Fault, Options};
use azaion_tests::programs::{Run, start};
use azaion_tests::station::{command, conf_value};

use super::{CONF, Line, email, range, serials};

const COLUMNS: usize = 80;
const UNITS: usize = 50;

/// Creates a slow API with one of the devices already present; another one's target is a file.
fn line() -> anyhow::Result<Line> {
    let line = Line::new(Options::default())?;
    line.station.api.inject("POST", "/users", Fault::Delay(Duration::from_millis(20)), usize::MAX);
    line.station.api.add_user(&email("AZJN-0007"), "another-password", "CompanionPC");
    line.station.put("units/AZJN-0013", "not a root file system", 0o644)?;
    Ok(line)
}

fn ours(line: &Line, units: usize, options: &[&str]) -> anyhow::Result<Command> {
    let arguments = line.arguments(&range(1, units), options);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut ours = line.station.provision_command(&arguments)?;
    ours.args(line.station.api_arguments());
    Ok(ours)
}

/// Runs the batch on a terminal of so many columns, and returns its complete output.
fn on_a_terminal(line: &Line, environment: &[(&str, &str)]) -> anyhow::Result<Run> {
    shown_on_a_terminal(line, &ours(line, UNITS, &[])?, environment)
}

fn shown_on_a_terminal(line: &Line, ours: &Command, environment: &[(&str, &str)]) -> anyhow::Result<Run> {
    let words = std::iter::once(ours.get_program()).chain(ours.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let inside = format!("stty cols {COLUMNS} rows 24 && exec {}", words.join(" "));
    let mut script = command("script".as_ref(), &["-q", "-e", "-c", &inside, "/dev/null"]);
    line.wait(start(script.env("TERM", "xterm-256color").envs(environment.iter().copied()))?)
}

/// Returns the lines that were ever on the screen, without cursor control.
fn lines(shown: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut rest = shown.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '\u{1b}' if rest.next_if_eq(&'[').is_some() => {
                // A control sequence ends with its first letter.
                while rest.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                rest.next();
            }
            '\r' | '\n' => lines.push(String::new()),
            letter => lines.last_mut().unwrap().push(letter),
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

fn no_secret(line: &Line, shown: &str) {
    let password = |serial: &String| conf_value(&line.target(serial).join(CONF), "AZAION_DEVICE_PASSWORD");
    let passwords: Vec<String> = serials(1, UNITS).iter().filter_map(password).collect();
    assert_eq!(passwords.len(), UNITS - 1);
    let secrets = passwords.iter().map(String::as_str).chain([ADMIN_PASSWORD, "eyJ"]);
    assert!(secrets.into_iter().all(|secret| !shown.contains(secret)), "{shown}");
}

// Promise: a person at a terminal of 80 columns sees a progress bar that is never longer than the line, the failures,
// and the summary; no password, and no line for each successful device.
#[test]
fn on_eighty_columns() -> anyhow::Result<()> {
    let line = line()?;
    let run = on_a_terminal(&line, &[])?.ended_with(66)?;
    let lines = lines(&run.stdout);
    for shown in lines.iter().filter(|line| line.contains("/50 devices, ")) {
        assert!(shown.chars().count() <= COLUMNS, "{} columns: {shown}", shown.chars().count());
    }
    let bars: Vec<&String> =
        lines.iter().filter(|line| line.contains("/50 devices, ") && line.contains(" left")).collect();
    assert!(
        bars.len() > 5 && bars.iter().any(|bar| bar.contains("=>") && bar.trim_end().ends_with(", 1 failed")),
        "{lines:#?}"
    );
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    for part in [
        "AZJN-0013: failed (exit code 66)",
        "AZJN-0007: updated",
        "warning: AZJN-0007: setting a new password for azaion-jetson-0007@azaion.com",
        "50 devices: 48 created, 1 failed, 1 updated (",
        "  AZJN-0013 (exit code 66): ",
        "1 of 50 devices failed",
    ] {
        assert!(has(part), "{part} is not in {lines:#?}");
    }
    assert!(!has("AZJN-0020"), "{lines:#?}");
    no_secret(&line, &run.stdout);
    Ok(())
}

// Promise: while the API makes the devices wait, the bar does not show its previous estimate.
#[test]
fn while_units_wait() -> anyhow::Result<()> {
    let line = Line::new(Options::default())?;
    let api = &line.station.api;
    api.inject("POST", "/users", Fault::Delay(Duration::from_millis(10)), 4);
    api.inject("POST", "/users", Fault::Delay(Duration::from_millis(3200)), 1);
    let run = shown_on_a_terminal(&line, &ours(&line, 5, &["--jobs", "1"])?, &[])?.ended_with(0)?;
    let lines = lines(&run.stdout);
    let mut bars: Vec<&str> =
        lines.iter().filter_map(|line| line.split_once(" 4/5 devices, ")).map(|bar| bar.1).collect();
    bars.dedup();
    assert!(bars.len() > 2, "{lines:#?}");
    Ok(())
}

// Promise: NO_COLOR disables colours, and a dumb terminal gets no bar.
#[test]
fn plain_terminals() -> anyhow::Result<()> {
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let run = on_a_terminal(&line()?, &[environment])?.ended_with(66)?;
        let colours = run
            .stdout
            .split("\u{1b}[")
            .skip(1)
            .filter_map(|rest| rest.find(char::is_alphabetic).map(|at| &rest[at..=at]));
        assert!(!colours.into_iter().any(|end| end == "m"), "{}", run.stdout);
        assert!(environment.0 == "NO_COLOR" || !run.stdout.contains('\u{1b}'), "{:?}", run.stdout);
    }
    Ok(())
}

// Promise: in a pipe there is a line for each device, no bar and no escape code.
#[test]
fn in_a_pipe() -> anyhow::Result<()> {
    let line = line()?;
    let run = line.wait(start(&mut ours(&line, UNITS, &[])?)?)?.ended_with(66)?;
    assert!(!run.stdout.contains(['\u{1b}', '\r']) && !run.stderr.contains(['\u{1b}', '\r']), "{}", run.words());
    let told = serials(1, UNITS).iter().filter(|serial| run.stdout.contains(&format!("{serial}: "))).count();
    assert_eq!(told, UNITS);
    no_secret(&line, &run.words());
    Ok(())
}
