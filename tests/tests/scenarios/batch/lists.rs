//! The forms of a list, and invalid lists.

use std::fs;

use azaion_tests::dev_api::Options;
use azaion_tests::station::conf_value;

use super::{CONF, Line, serials, text, through_shell};

const SERIALS: [&str; 3] = ["AZJN-0001", "AZJN-0002", "AZJN-0003"];
const TABLE: &str =
    "order,serial,module_serial\n\"7, urgent\",AZJN-0001,1423221050123\n8,AZJN-0002,\n9,AZJN-0003,M-3\n";

fn line() -> anyhow::Result<Line> {
    Line::new(Options::default())
}

fn all_are_let_in(line: &Line) -> anyhow::Result<()> {
    assert_eq!(line.station.api.users().len(), SERIALS.len());
    SERIALS.iter().try_for_each(|serial| line.is_let_in(serial))
}

// Promise: a range, a file with a serial per line, and a CSV file each create all their users, and files that the API
// accepts.
#[test]
fn a_range_and_files() -> anyhow::Result<()> {
    for content in [None, Some("# line 7\nAZJN-0001\n\nAZJN-0002 # spare\r\nAZJN-0003"), Some(TABLE)] {
        let line = line()?;
        let list = match content {
            None => "AZJN-0001..AZJN-0003".to_owned(),
            Some(content) => {
                line.station.put("list", content, 0o644)?;
                text(&line.station.path("list"))
            }
        };
        let run = line.batch(&list, &[])?.ended_with(0)?;
        assert!(run.stdout.contains("3 devices: 3 created ("), "{}", run.words());
        all_are_let_in(&line)?;
    }
    Ok(())
}

// Promise: `-` reads the list from standard input.
#[test]
fn standard_input() -> anyhow::Result<()> {
    let line = line()?;
    line.station.put("list", SERIALS.join("\n"), 0o644)?;
    let arguments = line.arguments("-", &[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut ours = line.station.provision_command(&arguments)?;
    ours.args(line.station.api_arguments());
    let script = format!("exec \"$@\" <'{}'", text(&line.station.path("list")));
    line.wait(through_shell(&script, &ours)?)?.ended_with(0)?;
    all_are_let_in(&line)
}

// Promise: a column `module_serial` is the module of each device, which the agent checks; an empty value omits the key.
#[test]
fn modules_of_a_table() -> anyhow::Result<()> {
    let line = line()?;
    line.station.put("list.csv", TABLE, 0o644)?;
    let list = text(&line.station.path("list.csv"));
    let modules = || {
        line.batch(&list, &[])?.ended_with(0)?;
        let modules = SERIALS.map(|serial| conf_value(&line.target(serial).join(CONF), "AZAION_MODULE_SERIAL"));
        anyhow::Ok(modules.map(Option::unwrap_or_default))
    };
    assert_eq!(modules()?, ["1423221050123", "", "M-3"]);
    // A device that is finished for one module is not finished for another.
    line.station.put("list.csv", TABLE.replace("1423221050123", "1423221050124"), 0o644)?;
    assert_eq!(modules()?, ["1423221050124", "", "M-3"]);
    assert_eq!(line.created(), 3);
    all_are_let_in(&line)
}

// Promise: with A/B layouts all targets of a device hold the same file.
#[test]
fn two_targets_a_unit() -> anyhow::Result<()> {
    let line = line()?;
    let second = line.station.path("second").join("{serial}");
    line.batch("AZJN-0001..AZJN-0003", &["--rootfs", &text(&second)])?.ended_with(0)?;
    all_are_let_in(&line)?;
    for serial in SERIALS {
        let second = line.station.path("second").join(serial).join(CONF);
        assert_eq!(fs::read(second)?, fs::read(line.target(serial).join(CONF))?);
    }
    Ok(())
}

// Promise: a list with invalid lines is exit 65 and lists each of them, and nothing is done, not even for the valid
// ones.
#[test]
fn bad_lists() -> anyhow::Result<()> {
    let line = line()?;
    line.station.put("list", "AZJN-0001\nazjn-0002\nAZJN-0003\nAZJN-0001\n", 0o644)?;
    let list = text(&line.station.path("list"));
    let run = line.batch(&list, &[])?.ended_with(65)?;
    for part in [
        &format!("{list}:2: "),
        &format!("{list}:4: duplicate serial AZJN-0001, already on line 1"),
        "no device was provisioned",
    ] {
        assert!(run.stderr.contains(part), "{part} is not in {}", run.stderr);
    }
    for (list, code) in
        [("AZJN-0009..AZJN-0001", 65), ("AZJN-1..AZJN-10", 65), ("no-such-list", 66), ("../no-such.csv", 66)]
    {
        line.batch(list, &[])?.ended_with(code)?;
    }
    assert_eq!((line.station.api.requests().len(), fs::read_dir(line.units())?.count()), (0, 0));
    Ok(())
}

// Promise: several devices in one target are refused with 64 before anything is done; one device needs no pattern.
#[test]
fn one_target_for_several() -> anyhow::Result<()> {
    let line = line()?;
    let (good, bad) = (text(&line.target("{serial}")), text(&line.station.rootfs()));
    for targets in [&["--rootfs", &bad][..], &["--rootfs", &good, "--rootfs", &bad]] {
        let arguments = [&["AZJN-0001..AZJN-0002", "--owner", "current"], targets].concat();
        let run = line.run(&arguments)?.ended_with(64)?;
        assert!(run.stderr.contains("{serial}"), "{}", run.stderr);
    }
    assert_eq!((line.station.api.requests().len(), line.station.inside(CONF).exists()), (0, false));
    line.run(&["AZJN-0001..AZJN-0001", "--owner", "current", "--rootfs", &bad])?.ended_with(0)?;
    line.lets_in(&line.station.inside(CONF), &serials(1, 1)[0])
}

// Promise: a report whose name has no format, or that of the JSON array of earlier releases, is refused with 64 before
// anything is done.
#[test]
fn a_report_of_no_kind() -> anyhow::Result<()> {
    let line = line()?;
    for name in ["report.xls", "report.json"] {
        let report = text(&line.station.path(name));
        let run = line.batch("AZJN-0001..AZJN-0003", &["--report", &report])?.ended_with(64)?;
        assert!(run.stderr.contains(".jsonl"), "{}", run.stderr);
        assert!(!line.station.path(name).exists() && line.station.api.requests().is_empty());
    }
    Ok(())
}

// Promise: whatever else is wrong with the command line, an earlier report is unchanged.
#[test]
fn a_mistake_keeps_the_earlier_report() -> anyhow::Result<()> {
    let line = line()?;
    let (missing, report) = (text(&line.station.path("missing")), text(&line.station.path("report.jsonl")));
    let earlier = concat!(
        r#"{"serial":"AZJN-0001","email":"azaion-jetson-0001@azaion.com","outcome":"created","targets":[],"#,
        r#""elapsed_ms":1,"exit_code":0}"#,
        "\n"
    );
    line.station.put("report.jsonl", earlier, 0o644)?;
    for (mistake, code) in [("--base", 66), ("--ca-file", 78), ("--admin-password-file", 78), ("--rootfs", 64)] {
        let mut arguments = line.arguments("AZJN-0001..AZJN-0003", &["--report", &report]);
        arguments.extend(line.station.api_arguments());
        if let Some(at) = arguments.iter().position(|argument| argument == mistake) {
            arguments.drain(at..at + 2);
        }
        arguments.extend([mistake.to_owned(), missing.clone()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        line.station.provision_offline(&arguments)?.ended_with(code)?;
        assert_eq!(fs::read_to_string(&report)?, earlier, "{mistake}");
    }
    Ok(())
}
