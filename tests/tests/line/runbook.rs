//! `docs/runbook.md`, from its first block to its last, and its error tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use azaion_agent::device::states::STATES;
use azaion_tests::bsp::Bsp;
use azaion_tests::pages::{Page, contains_in_order};
use azaion_tests::programs::{arm64_package, native};

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
