//! `docs/runbook.md`, from its first block to its last, and its error tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use azaion_agent::common::exit::Exit;
use azaion_agent::device::announce::STATES;
use azaion_tests::bsp::Bsp;
use azaion_tests::pages::{Page, contains_in_order};
use azaion_tests::programs::{arm64_package, native, workspace};

use crate::factory::Factory;
use crate::flows::FIRST;

const RUNBOOK: Page = Page("docs/runbook.md");
/// The steps on the host, in order.
const STEPS: [&str; 6] = ["agent", "ca", "images", "device", "flash", "clear"];
/// Steps for accounts, after a device has been provisioned.
const ACCOUNTS: [&str; 2] = ["delete", "assigned"];
/// The steps on the device.
const ON_THE_UNIT: [&str; 3] = ["status", "api", "history"];
/// The module's serial number on the page.
const MODULE: &str = "1422924012345";
/// A wrapper that makes all paths those of the board, including the CA.
const AGENT: &str = "#!/bin/sh\nexec PROGRAM \"$@\" --root BOARD\n";

fn does(factory: &Factory, mark: &str, before: &str) -> anyhow::Result<()> {
    let commands = format!("{before}{}", RUNBOOK.commands(mark)?);
    let run = factory.type_in(&commands)?.ended_with(0).with_context(|| mark.to_owned())?;
    ensure!(!run.stderr.contains("warning"), "{mark}: {}", run.stderr);
    contains_in_order(&run.stdout, &RUNBOOK.printed(mark)?);
    Ok(())
}

// Promise: typing the commands of the page produces a device that can use the admin API, with the output of the page;
// no identity is left on the host.
#[test]
fn from_the_box_to_the_api() -> anyhow::Result<()> {
    let factory = Factory::new(Bsp::R39_2)?;
    let package = arm64_package()?;
    fs::copy(package, factory.station.path(&package.file_name().unwrap().to_string_lossy()))?;
    fs::copy(factory.station.api.ca_file(), factory.station.path("ca.pem"))?;
    for step in STEPS {
        does(&factory, &format!("run={step}"), "")?;
    }
    let board = factory.board(1, "APP")?;
    let serial = board.join("proc/device-tree/serial-number");
    fs::create_dir_all(serial.parent().unwrap())?;
    factory.station.put("module", format!("{MODULE}\0"), 0o444)?;
    fs::copy(factory.station.path("module"), serial)?;
    let boot = factory.start_up(1, "APP")?.ended_with(0)?;
    contains_in_order(&boot.stdout, &RUNBOOK.printed("run=boot")?);
    factory.is_unit(1, FIRST, &["APP"])?;
    // The agent itself, in rootfs/ and in the image, contains the names of the keys.
    assert_eq!(factory.known()?, Vec::<String>::new());
    on_the_unit(&factory, &board)?;
    with_accounts(&factory)
}

/// Deletes the account, and provisions the next device with a server-assigned identity.
fn with_accounts(factory: &Factory) -> anyhow::Result<()> {
    let api = &factory.station.api;
    factory.station.put("Linux_for_Tegra/admin.token", format!("{}\n", factory.station.admin_token()?), 0o600)?;
    let before = format!("export CURL_CA_BUNDLE={}\n", api.ca_file().display());
    for step in ACCOUNTS {
        does(factory, &format!("account={step}"), &before)?;
        let users: Vec<String> = api.users().into_iter().map(|user| user.email).collect();
        assert_eq!(users, if step == "delete" { vec![] } else { vec!["azj-0001@azaion.com".to_owned()] });
    }
    assert_eq!(factory.known()?, Vec::<String>::new());
    Ok(())
}

fn on_the_unit(factory: &Factory, board: &Path) -> anyhow::Result<()> {
    let (board, program) = (board.display().to_string(), native()?.join("azaion-agent").display().to_string());
    let agent = AGENT.replace("PROGRAM", &program).replace("BOARD", &board);
    factory.station.put("bin/azaion-agent", agent, 0o755)?;
    let before = format!("export CURL_CA_BUNDLE={board}/etc/azaion/ca.pem\n");
    for step in ON_THE_UNIT {
        let mark = format!("unit={step}");
        let commands = RUNBOOK.commands(&mark)?.replace("/etc/azaion", &format!("{board}/etc/azaion"));
        let run = factory.type_in(&format!("{before}{commands}"))?.ended_with(0).context(mark.clone())?;
        contains_in_order(&run.stdout, &RUNBOOK.printed(&mark)?);
    }
    Ok(())
}

// Promise: each block is run, or is marked as one that needs hardware or NVIDIA's files; every output block belongs to
// a block that is run.
#[test]
fn every_block_is_run() -> anyhow::Result<()> {
    let run =
        STEPS.iter().map(|step| format!("run={step}")).chain(ON_THE_UNIT.iter().map(|step| format!("unit={step}")));
    let run: Vec<String> = run.chain(ACCOUNTS.iter().map(|step| format!("account={step}"))).collect();
    for block in RUNBOOK.blocks()? {
        let (language, mark) = block.name.split_once(' ').with_context(|| format!("no marker: {}", block.name))?;
        let is_known = run.iter().any(|known| known == mark) || (language, mark) == ("text", "run=boot");
        ensure!(is_known || (language, mark) == ("sh", "hardware"), "{}", block.name);
    }
    Ok(())
}

/// Returns the rows of the tables below a heading, as cells.
fn rows(heading: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let page = fs::read_to_string(workspace().join(RUNBOOK.0))?;
    let below = page.split_once(heading).with_context(|| heading.to_owned())?.1;
    let below = below.split("\n##").next().unwrap_or_default();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    Ok(below.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect())
}

fn codes(rows: &[Vec<String>]) -> BTreeSet<u8> {
    rows.iter().filter_map(|row| row[0].split(' ').next()?.parse().ok()).collect()
}

/// Returns the texts between backticks, split at ellipses.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2).flat_map(|text| text.split('…')).map(str::trim).filter(|piece| piece.len() > 3)
}

/// Returns the text of all sources, with line continuations in strings joined.
fn sources(folder: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            text += &sources(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(path)?;
            let mut pieces = source.split("\\\n");
            text += pieces.next().unwrap_or_default();
            pieces.for_each(|piece| text += piece.trim_start());
        }
    }
    Ok(text)
}

// Promise: the tables list exactly the exit codes of both programs and their MESSAGE_IDs, and quote the programs'
// messages correctly.
#[test]
fn the_tables_are_whole() -> anyhow::Result<()> {
    let (station, unit) = (rows("### On the host")?, rows("### On the device")?);
    let shared = [Exit::Done, Exit::Usage, Exit::Internal, Exit::Later, Exit::Protocol, Exit::Refused, Exit::Config];
    let on_station = [Exit::Data, Exit::Target, Exit::Unreachable, Exit::Exists, Exit::Io, Exit::Interrupted];
    assert_eq!(codes(&station), shared.iter().chain(&on_station).map(|exit| exit.code()).collect());
    assert_eq!(codes(&unit), shared.iter().map(|exit| exit.code()).collect());
    for (exit, state) in STATES {
        let first = format!("{} `{}`", exit.code(), state.name);
        let row = unit.iter().find(|row| row[0] == first).with_context(|| first.clone())?;
        assert_eq!(row[1], format!("`{}`", state.message_id));
    }
    let sources = sources(&workspace().join("host/src"))? + &sources(&workspace().join("agent/src"))?;
    for said in station.iter().map(|row| &row[1]).chain(unit.iter().map(|row| &row[2])) {
        for piece in quoted(said) {
            ensure!(piece == "error:" || sources.contains(piece), "no program prints: {piece}");
        }
    }
    Ok(())
}

// Promise: the diagram of a boot ends in exactly the states that a run can end in, by number and name.
#[test]
fn the_picture_has_all_ends() -> anyhow::Result<()> {
    let picture = Page("docs/contracts.md").find("mermaid")?.context("a picture")?;
    let ends: BTreeSet<&str> =
        picture.split(['"', '<', ':']).filter(|text| text.starts_with(char::is_numeric)).collect();
    let drawn: BTreeSet<&str> = ends.into_iter().filter(|text| text.contains(char::is_alphabetic)).collect();
    let drawn: BTreeSet<String> = drawn.into_iter().filter(|text| !text.contains(',')).map(str::to_owned).collect();
    assert_eq!(drawn, STATES.iter().map(|(exit, state)| format!("{} {}", exit.code(), state.name)).collect());
    Ok(())
}
