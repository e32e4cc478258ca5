//! The host name of the API, and a name server that resolves it.

use std::fs;

use azaion_tests::machine::{Machine, Unit};
use azaion_tests::programs::workspace;

/// A name that is in the server's certificate.
const NAME: &str = "admin.azaion.test";
/// The address of the name server, in the machine itself: the emulator's network carries no datagrams.
pub(super) const NAME_SERVER: &str = "127.0.0.53";
/// An address that never answers.
const DEAF: &str = "10.0.2.8";

const SERVICE: &str = "[Service]\nExecStart=/usr/bin/python3 /usr/share/name-server.py";

/// Sets the API's host name in this device's `device.conf`, and starts a name server in the machine, which it does not
/// use yet.
pub(super) fn by_name(unit: &Unit) -> anyhow::Result<()> {
    unit.address(NAME)?;
    unit.put("usr/share/name-server.py", &fs::read_to_string(workspace().join("tests/scripts/name-server.py"))?)?;
    let service = format!("{SERVICE} {NAME_SERVER} {NAME} 10.0.2.2\n");
    unit.put_service("name-server.service", "basic.target", &service)?;
    unit.put("etc/resolv.conf", &format!("nameserver {DEAF}\n"))
}

/// Makes the machine use the name server that knows the name, or one that never answers.
pub(super) fn know_names(machine: &mut Machine, known: bool) -> anyhow::Result<()> {
    let server = if known { NAME_SERVER } else { DEAF };
    // Atomically, as a network manager does it.
    machine.run(&format!("echo nameserver {server} >/etc/resolv.new && mv /etc/resolv.new /etc/resolv.conf"))?;
    Ok(())
}
