//! `docs/migration.md` from its first line, on systems without our software: the host of the old scripts, and a device
//! that one of them has provisioned.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use azaion_tests::dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, Generation, Options};
use azaion_tests::pages::{Page, contains_in_order};
use azaion_tests::programs::output;
use azaion_tests::record;
use azaion_tests::station::{EMAIL, SERIAL, Station, conf_value, value_in};

use crate::container::{Booted, run_in};
use crate::host;
use crate::tree::{BOOKWORM, Tree, native_package};

const PAGE: Page = Page("docs/migration.md");
/// The directory of the old scripts.
const SCRIPTS: &str = "/root/provisioning";
const ROOTFS: &str = "/root/provisioning/Linux_for_Tegra/rootfs";
const CONF: &str = "/etc/azaion/device.conf";
/// An identity from `POST /devices`.
const ASSIGNED: (&str, &str) = ("azj-0007", "azj-0007@azaion.com");

/// Copies a tree over another one, with modes and owners.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    output(Command::new("cp").arg("-a").arg(from.join(".")).arg(to)).map(drop)
}

/// Creates a Debian with the files of a user of the old scripts, and our two packages as files.
fn old_host(station: &Station, device: &Tree) -> anyhow::Result<Tree> {
    let (packages, tree) = (tempfile::tempdir()?, Tree::new(BOOKWORM)?);
    copy(device.path(), &tree.at(ROOTFS))?;
    fs::create_dir(tree.at(SCRIPTS).join("scripts"))?;
    let env = format!(
        "export API_URL=\"{}\"\r\nexport ADMIN_EMAIL={ADMIN_EMAIL}\r\nexport ADMIN_PASSWORD='{ADMIN_PASSWORD}'\r\n\
         LOADER_IMAGE_TAR=loader.tar\r\nL4T_VERSION=r36.4.4\r\nL4T_DIR=/srv/l4t",
        station.api.url()
    );
    tree.write(&format!("{SCRIPTS}/scripts/.env"), &env)?;
    fs::copy(station.api.ca_file(), tree.at(SCRIPTS).join("ca.pem"))?;
    let tool = host::package(packages.path())?;
    fs::copy(&tool, tree.at(SCRIPTS).join(tool.file_name().context("a name")?))?;
    // Built for this machine, whatever its name says.
    let agent = native_package(packages.path(), "1")?;
    fs::copy(agent, tree.at(SCRIPTS).join("azaion-agent_1_arm64.deb"))?;
    Ok(tree)
}

/// Types these blocks into one shell of the host, and compares the output.
fn follow(host: &Tree, blocks: &[&str]) -> anyhow::Result<()> {
    let commands: String = blocks.iter().map(|block| PAGE.commands(block)).collect::<anyhow::Result<_>>()?;
    let (is_done, said) = run_in(host, &["bash", "-euc", &format!("cd {SCRIPTS}\n{commands}")])?;
    record::words(&said)?;
    ensure!(is_done, "{blocks:?}: {said}");
    let printed: String = blocks.iter().map(|block| PAGE.printed(block)).collect::<anyhow::Result<_>>()?;
    contains_in_order(&said, &printed);
    Ok(())
}

// Promise: a user with the old `.env` and none of our software gets a provisioned device by typing the page from its
// first line; a real systemd makes it ready, and no identity is left on the host.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn from_the_old_env_to_a_ready_device() -> anyhow::Result<()> {
    record::secret(ADMIN_PASSWORD)?;
    let station = Station::new(Options::default())?;
    let device = Tree::new(BOOKWORM)?;
    let host = old_host(&station, &device)?;
    follow(&host, &["host=install", "host=env", "host=ca", "host=check", "host=serial"])?;
    let password = conf_value(&host.at(ROOTFS).join(&CONF[1..]), "AZAION_DEVICE_PASSWORD").context("a password")?;
    record::secret(&password)?;
    ensure!(station.api.password_is(EMAIL, &password), "the API rejects it");
    copy(&host.at(ROOTFS), device.path())?;
    follow(&host, &["host=env", "host=clear"])?;
    let found = Command::new("grep").args(["-rlF", &password]).arg(host.at(SCRIPTS)).output()?;
    ensure!(found.stdout.is_empty(), "the password is left in {}", String::from_utf8_lossy(&found.stdout));

    let booted = Booted::new(&device)?;
    booted.wait_for_console(&format!("{SERIAL} is ready"))?;
    assert_eq!(booted.must("systemctl show -P ExecMainStatus azaion-agent.service")?.trim(), "0");
    Ok(())
}

/// Creates a device as the first script leaves it: e-mail and password only, world-readable, with another owner, and
/// unknown keys.
fn old_device(station: &Station) -> anyhow::Result<Tree> {
    let (packages, tree) = (tempfile::tempdir()?, Tree::new(BOOKWORM)?);
    let password = output(Command::new("openssl").args(["rand", "-hex", "16"]))?.trim().to_owned();
    record::secret(&password)?;
    station.api.add_user(EMAIL, &password, "CompanionPC");
    fs::create_dir_all(tree.at("/etc/azaion"))?;
    let conf =
        format!("AZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={password}\nAZAION_DEVICE_ROLE=CompanionPC\n");
    tree.write(CONF, &conf)?;
    fs::set_permissions(tree.at(CONF), Permissions::from_mode(0o644))?;
    chown(tree.at(CONF), Some(1000), Some(1000))?;
    put_ca(&tree, station)?;
    fs::copy(native_package(packages.path(), "1")?, tree.at("/root/azaion-agent_1_arm64.deb"))?;
    Ok(tree)
}

fn put_ca(tree: &Tree, station: &Station) -> anyhow::Result<()> {
    fs::copy(station.api.ca_file(), tree.at("/etc/azaion/ca.pem"))?;
    fs::set_permissions(tree.at("/etc/azaion/ca.pem"), Permissions::from_mode(0o644))?;
    Ok(())
}

/// Returns the journal entries with these fields.
fn entries(device: &Booted, fields: &str) -> anyhow::Result<usize> {
    Ok(device.run(&format!("journalctl --no-pager -q -o cat AZAION_STATE=ready {fields}"))?.lines().count())
}

// Promise: a device in the field with a `device.conf` of the first script keeps account and password: the page's
// commands install the agent, the unit of a real systemd makes it ready, and journal and `ready.json` name it by its
// e-mail. The rollback keeps its credentials.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_device_in_the_field() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let tree = old_device(&station)?;
    let conf = fs::read_to_string(tree.at(CONF))?;
    let device = Booted::new(&tree)?;
    let policy = format!("{}\"\nca_file = \"/etc/azaion/ca.pem\"", station.api.url());
    let install = PAGE.commands("device=install")?;
    ensure!(install.contains("https://admin.azaion.com\""), "{install}");
    device.must(&format!("cd /root\n{}", install.replace("https://admin.azaion.com\"", &policy)))?;
    device.wait_for("grep -c '\"ready\":true' /run/azaion/ready.json", "1")?;
    let ready = device.must("cat /run/azaion/ready.json")?;
    ensure!(ready.contains(&format!("\"email\":\"{EMAIL}\"")) && !ready.contains("\"serial\""), "{ready}");
    ensure!(entries(&device, &format!("AZAION_EMAIL={EMAIL}"))? == 1, "{}", device.run("journalctl --no-pager -n 50")?);
    // nspawn mounts the container's boot id over the machine's, and that mount is not in the unit's /proc.
    device.must("umount /proc/sys/kernel/random/boot_id")?;
    contains_in_order(&device.must(&PAGE.commands("device=status")?)?, &PAGE.printed("device=status")?);
    ensure!(fs::read_to_string(tree.at(CONF))? == conf, "device.conf was changed");
    of_the_server(&tree, &device)?;

    tree.write(CONF, &conf)?;
    device.must(&PAGE.commands("device=back")?)?;
    let left = device
        .must("set -a; . /etc/azaion/device.conf; env; ls -d /run/azaion /var/lib/azaion /usr/bin/azaion-agent || :")?;
    let values = ["AZAION_DEVICE_EMAIL", "AZAION_DEVICE_PASSWORD"].map(|key| value_in(&left, key).map(str::to_owned));
    ensure!(
        values == ["AZAION_DEVICE_EMAIL", "AZAION_DEVICE_PASSWORD"].map(|key| value_in(&conf, key).map(str::to_owned))
    );
    ensure!(!left.contains("/run/azaion\n") && !left.contains("/var/lib/azaion\n"), "the agent's files are left");
    Ok(())
}

/// Checks that the unit makes a device with a server-assigned identity ready, in each generation; journal and
/// `ready.json` name it.
fn of_the_server(tree: &Tree, device: &Booted) -> anyhow::Result<()> {
    let (serial, email) = ASSIGNED;
    for (count, generation) in (1..).zip([Generation::G1, Generation::G2, Generation::G2b]) {
        let station = Station::new(Options { generation, ..Options::default() })?;
        let password = output(Command::new("openssl").args(["rand", "-hex", "16"]))?.trim().to_owned();
        record::secret(&password)?;
        station.api.add_user(email, &password, "CompanionPC");
        put_ca(tree, &station)?;
        let url = station.api.url();
        let (first, second) =
            (format!("AZAION_DEVICE_SERIAL={serial}\nAZAION_DEVICE_EMAIL={email}"), "AZAION_DEVICE_PASSWORD");
        tree.write(CONF, &format!("{first}\n{second}={password}\nAZAION_API_URL={url}\n"))?;
        device.run("systemctl start azaion-agent.service")?;
        let fields = format!("AZAION_SERIAL={serial} AZAION_EMAIL={email}");
        device.wait_for(&format!("journalctl -q -o cat AZAION_STATE=ready {fields} | wc -l"), &count.to_string())?;
        let ready = device.must("cat /run/azaion/ready.json")?;
        for part in
            [format!("\"serial\":\"{serial}\""), format!("\"email\":\"{email}\""), format!("\"api_url\":\"{url}\"")]
        {
            ensure!(ready.contains(&part) && ready.contains("\"ready\":true"), "{generation:?}: {ready}");
        }
    }
    Ok(())
}
