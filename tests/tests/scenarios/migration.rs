//! `docs/migration.md` on the host: its blocks unchanged, from the first line on, with the `.env` of the old scripts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::ensure;
use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, Casing, Generation, Options};
use azaion_tests::pages::{Page, contains_in_order};
use azaion_tests::programs::{Run, native, start};
use azaion_tests::record;
use azaion_tests::station::{EMAIL, SERIAL, Station, command};

const PAGE: Page = Page("docs/migration.md");
const ENV_FILE: &str = "scripts/.env";
const ROOTFS: &str = "Linux_for_Tegra/rootfs";

/// The blocks that a test runs: those of the host here and in the container, those of the device in the container.
const BLOCKS: [&str; 15] = [
    "host=install",
    "host=env",
    "host=ca",
    "host=check",
    "host=serial",
    "host=assigned",
    "host=clear",
    "host=token",
    "host=scheme",
    "host=again",
    "host=done",
    "device=install",
    "device=status",
    "host=hardware",
    "device=back",
];

/// Creates the directory of the old scripts: their `.env`, NVIDIA's root file system with the last device's file in it,
/// and the CA.
fn old_host(options: Options, env: &str) -> anyhow::Result<Station> {
    let station = Station::new(options)?;
    fs::create_dir(station.path("Linux_for_Tegra"))?;
    fs::rename(station.rootfs(), station.path(ROOTFS))?;
    // The path that the host's agent uses.
    symlink(ROOTFS, station.rootfs())?;
    station.put("ca.pem", fs::read(station.api.ca_file())?, 0o644)?;
    fs::create_dir(station.path("bin"))?;
    symlink(native()?.join("azaion-provision"), station.path("bin/azaion-provision"))?;
    station.put(ENV_FILE, env.replace("@URL", &station.api.url()).replace("@EMAIL", ADMIN_EMAIL), 0o644)?;
    Ok(station)
}

/// Types commands in the directory of the scripts.
fn type_in(station: &Station, shell: &str, commands: &str) -> anyhow::Result<Run> {
    let mut shell = command(Path::new(shell), &["-euc", commands]);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", station.path("bin").display());
    shell.current_dir(station.path("")).env("PATH", path).env("HOME", station.path(""));
    station.wait(start(&mut shell)?)
}

/// Returns the commands of these blocks, in sequence.
fn commands(blocks: &[&str]) -> anyhow::Result<String> {
    blocks.iter().map(|block| PAGE.commands(block)).collect()
}

/// Runs these blocks in one shell, as a person does, compares their output, and returns it.
fn follow(station: &Station, blocks: &[&str]) -> anyhow::Result<String> {
    let said = type_in(station, "bash", &commands(blocks)?)?.ended_with(0)?.stdout;
    let printed: String = blocks.iter().map(|block| PAGE.printed(block)).collect::<anyhow::Result<_>>()?;
    contains_in_order(&said, &printed);
    Ok(said)
}

/// Contents of such files, and the admin's password that each means.
const ENV_FILES: [(&str, &str); 12] = [
    ("API_URL=@URL\nADMIN_EMAIL=@EMAIL\nADMIN_PASSWORD=nothing-special-7\n", "nothing-special-7"),
    ("export API_URL=@URL\nexport  ADMIN_EMAIL=@EMAIL\n\texport\tADMIN_PASSWORD=exported-secret\n", "exported-secret"),
    ("API_URL=\"@URL\"\nADMIN_EMAIL='@EMAIL'\nADMIN_PASSWORD='s!ngle $quotes \"\\'\n", "s!ngle $quotes \"\\"),
    (
        "API_URL=\"@URL\" # stage\nADMIN_EMAIL=@EMAIL # me\nADMIN_PASSWORD=\"do\\$uble \\\"q\\\\`\" # mine\n",
        "do$uble \"q\\`",
    ),
    ("API_URL=@URL\r\nADMIN_EMAIL=@EMAIL\r\nADMIN_PASSWORD=from-windows\r\n", "from-windows"),
    ("\u{feff}API_URL='@URL'\r\nADMIN_EMAIL=\"@EMAIL\"\r\nADMIN_PASSWORD=\"from notepad\"\r\n", "from notepad"),
    ("API_URL=@URL  \nADMIN_EMAIL=@EMAIL\t\nADMIN_PASSWORD=blanks-behind \t \n", "blanks-behind"),
    ("API_URL=@URL\nADMIN_EMAIL=@EMAIL\nADMIN_PASSWORD=pa$$ word with `blanks` %s", "pa$$ word with `blanks` %s"),
    ("ADMIN_PASSWORD=no-line-end\nADMIN_EMAIL=@EMAIL\nAPI_URL=@URL", "no-line-end"),
    ("API_URL=@URL\nADMIN_EMAIL=@EMAIL\nADMIN_PASSWORD=a=b#c\\d&e/f|\n", "a=b#c\\d&e/f|"),
    (
        "# API_URL=x\nAPI_URL=@URL\nADMIN_EMAIL=@EMAIL\nADMIN_PASSWORD=old-value\n#ADMIN_PASSWORD=x\nOLD_ADMIN_PASSWORD=y\nADMIN_PASSWORD=later-value\n",
        "later-value",
    ),
    (
        "API_URL=@URL/\nADMIN_EMAIL=@EMAIL\nADMIN_PASSWORD=all of the v2 file\nLOADER_IMAGE_TAR=$(touch run-1)\nL4T_VERSION=r36.4.4\nL4T_DIR=`touch run-2`\n",
        "all of the v2 file",
    ),
];

// Promise: for any form of a person's `.env`, both shells read API, e-mail and password from it as intended, and the
// API accepts the admin; the file is unchanged, none of it is executed, and the password is in no environment, and only
// in a file of mode 0600.
#[test]
fn the_old_env_is_read() -> anyhow::Result<()> {
    for (env, password) in ENV_FILES {
        let station = old_host(Options::default(), env)?;
        station.api.set_password(ADMIN_EMAIL, password);
        record::secret(password)?;
        let before = fs::read(station.path(ENV_FILE))?;
        for shell in ["dash", "bash"] {
            let check = "export AZAION_CA_FILE=ca.pem\nenv\nazaion-provision check\n";
            let run = type_in(&station, shell, &format!("{}{check}", PAGE.commands("host=env")?))?;
            let run = run.ended_with(0).map_err(|e| e.context(env))?;
            let url = station.api.url();
            contains_in_order(&run.stdout, &format!("the admin {ADMIN_EMAIL} at {url}…\nok …admin-login …"));
            ensure!(run.stdout.contains(&format!("AZAION_ADMIN_EMAIL={ADMIN_EMAIL}\n")), "{}", run.stdout);
            ensure!(!run.words().contains(password), "the password of {env} was printed");
            let kept = fs::read_to_string(station.path(".azaion-admin"))?;
            ensure!(kept.trim_end_matches('\n') == password, "not the password of {env}");
            let mode = fs::metadata(station.path(".azaion-admin"))?.permissions().mode();
            ensure!(mode & 0o7777 == 0o600, "{mode:o}");
        }
        ensure!(fs::read(station.path(ENV_FILE))? == before, "the file was changed: {env}");
        ensure!(!station.path("run-1").exists() && !station.path("run-2").exists(), "a value was executed");
    }
    Ok(())
}

fn v2_env() -> String {
    format!(
        "ADMIN_EMAIL={ADMIN_EMAIL}\nADMIN_PASSWORD=\"{ADMIN_PASSWORD}\"\nAPI_URL=@URL\nLOADER_IMAGE_TAR=loader.tar\n\
         L4T_VERSION=r36.4.4\nL4T_DIR=/srv/l4t\n"
    )
}

/// Runs the host's part of the page, where this block creates the identity.
fn to_the_first_device(identity: &str) -> anyhow::Result<(Station, Run)> {
    let station = old_host(Options::default(), &v2_env())?;
    let left =
        "AZAION_DEVICE_EMAIL=azaion-jetson-0041@azaion.com\nAZAION_DEVICE_PASSWORD=0123456789abcdef0123456789abcdef\n";
    station.put(&format!("{ROOTFS}/etc/azaion/device.conf"), left, 0o644)?;
    follow(&station, &["host=env", "host=ca", "host=check", identity])?;
    let ready = station.agent(&["boot"])?.ended_with(0)?;
    follow(&station, &["host=env", "host=clear"])?;
    ensure!(!station.path(ROOTFS).join("etc/azaion/device.conf").exists(), "it is not cleared");
    Ok((station, ready))
}

// Promise: following the page from its first line, with the old `.env` and the last device's file in the root file
// system, produces a ready device, for serial-based and server-assigned identities.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn from_the_first_line_to_the_first_device() -> anyhow::Result<()> {
    let (station, ready) = to_the_first_device("host=serial")?;
    ensure!(ready.stdout.contains(&format!("{SERIAL} is ready")), "{}", ready.stdout);
    let users: Vec<String> = station.api.users().into_iter().map(|user| user.email).collect();
    assert_eq!(users, [EMAIL]);
    let (_, ready) = to_the_first_device("host=assigned")?;
    ensure!(ready.stdout.contains("azaion: azj-0001 is ready"), "{}", ready.stdout);
    Ok(())
}

// Promise: the page's commands give a device with a wrong password a correct one, on a server with a route to set it
// and on one where the account has to be created again, and the device is ready with it.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_password_that_does_not_fit() -> anyhow::Result<()> {
    const NEW: &str = "new-password/etc/azaion/device.conf";
    for password_patch in [true, false] {
        let station = old_host(Options { password_patch, ..Options::default() }, &v2_env())?;
        station.api.add_user(EMAIL, "blanks and \"quotes\"", "CompanionPC");
        follow(&station, &["host=env", "host=ca", "host=again"])?;
        station.put("rootfs/etc/azaion/device.conf", fs::read(station.path(NEW))?, 0o600)?;
        station.agent(&["boot"])?.ended_with(0)?;
        follow(&station, &["host=done"])?;
        ensure!(!station.path(NEW).exists() && station.api.users().len() == 1, "something is left");
    }
    Ok(())
}

/// Makes a login as the loader does.
fn loader_logs_in(station: &Station, password: &str) -> anyhow::Result<String> {
    let body = serde_json::json!({ "email": EMAIL, "password": password }).to_string();
    station.put("login.json", body, 0o600)?;
    let mut curl = command(Path::new("curl"), &["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
    curl.args(["--header", "Content-Type: application/json", "--data-binary", "@login.json", "--cacert", "ca.pem"]);
    curl.current_dir(station.path("")).arg(format!("{}/login", station.api.url()));
    Ok(start(&mut curl)?.wait()?.ended_with(0)?.stdout)
}

// Promise: failed logins of a loader with an old password block the agent's login with the correct one: it waits (75),
// and makes no attempts that count.
#[test]
fn a_loader_with_an_old_password() -> anyhow::Result<()> {
    for generation in [Generation::G2, Generation::G2b] {
        let station = old_host(Options { generation, limits: true, ..Options::default() }, &v2_env())?;
        station.device(&[])?.ended_with(0)?;
        station.put_policy("")?;
        for _ in 0..5 {
            ensure!(loader_logs_in(&station, "the-old-password")? != "200");
        }
        station.agent(&["boot", "--deadline", "2"])?.ended_with(75)?;
    }
    Ok(())
}

/// The blocks up to the admin's token, for a CA that is not public.
const LOGIN: [&str; 2] = ["host=env", "host=token"];

fn with_token(station: &Station, more: &str) -> anyhow::Result<Run> {
    let commands = format!("export CURL_CA_BUNDLE=ca.pem\n{}{more}", commands(&LOGIN)?);
    type_in(station, "sh", &commands)
}

// Promise: the page's command that shows a server's scheme prints the e-mails of its devices, and of no other users, in
// each generation and spelling.
#[test]
fn the_scheme_of_a_server() -> anyhow::Result<()> {
    for (generation, casing) in
        [(Generation::G1, Casing::Camel), (Generation::G2, Casing::Pascal), (Generation::G2b, Casing::Camel)]
    {
        let station = old_host(Options { generation, casing, ..Options::default() }, &v2_env())?;
        for (email, role) in
            [(EMAIL, "CompanionPC"), ("azj-0007@azaion.com", "CompanionPC"), ("op@azaion.com", "Operator")]
        {
            station.api.add_user(email, "password-1", role);
        }
        let run = with_token(&station, &PAGE.commands("host=scheme")?)?.ended_with(0)?;
        contains_in_order(&run.stdout, &format!("the admin …\n{EMAIL}\nazj-0007@azaion.com"));
        ensure!(!run.stdout.contains("op@azaion.com"), "{}", run.stdout);
        assert_eq!(station.api.calls("POST", "/devices"), 0);
    }
    Ok(())
}

/// Makes the loader's call on G1 from this machine, with the device's own token; returns the status.
fn asks_from(station: &Station, token: &str, machine: &str) -> anyhow::Result<String> {
    let ask = "printf 'header = \"Authorization: Bearer %s\"\\n' \"$token\" | curl --silent --config - --output /dev/null --cacert ca.pem \
               --write-out '%{http_code}' --json \"{\\\"hardware\\\":\\\"$machine\\\"}\" \"$url/resources/check\"";
    let mut shell = command(Path::new("sh"), &["-euc", ask]);
    shell.current_dir(station.path("")).env("token", token).env("machine", machine).env("url", station.api.url());
    Ok(start(&mut shell)?.wait()?.ended_with(0)?.stdout)
}

// Promise: on G1 a device whose loader is rejected on another module (409) is accepted again after the page's call; on
// later servers the call ends with an error.
#[test]
fn a_module_in_another_housing() -> anyhow::Result<()> {
    let station = old_host(Options { generation: Generation::G1, ..Options::default() }, &v2_env())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.agent(&["boot"])?.ended_with(0)?;
    let token = station.agent(&["token"])?.ended_with(0)?.stdout.trim_end().to_owned();
    record::secret(&token)?;
    let reset = PAGE.commands("host=hardware")?;
    for (machine, status) in [("first", "200"), ("second", "409"), ("first", "200")] {
        assert_eq!(asks_from(&station, &token, machine)?, status, "{machine}");
    }
    with_token(&station, &reset)?.ended_with(0)?;
    for (machine, status) in [("second", "200"), ("first", "409")] {
        assert_eq!(asks_from(&station, &token, machine)?, status, "{machine}");
    }
    let later = old_host(Options::default(), &v2_env())?;
    with_token(&later, &reset)?.ended_with(22)?;
    Ok(())
}

// Promise: each block of the page is run by a test, or is an example; each output is compared.
#[test]
fn every_block_is_run() -> anyhow::Result<()> {
    for block in PAGE.blocks()? {
        let (language, mark) = block.name.split_once(' ').unwrap_or((&block.name, ""));
        ensure!(["sh", "text"].contains(&language), "{}", block.name);
        let is_known = BLOCKS.contains(&mark) || mark == "example";
        ensure!(is_known, "{}", block.name);
    }
    BLOCKS.iter().try_for_each(|block| PAGE.commands(block).map(drop))
}
