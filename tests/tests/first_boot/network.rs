//! Parts of the network that appear late, each of them as the last one.

use std::time::Duration;

use azaion_tests::dev_api::Options;
use azaion_tests::machine::{Boot, Machine, pause};

use super::journal::{Entry, Work, became_ready, entries, not_ready};
use super::names::{NAME_SERVER, by_name, know_names};
use super::{AGENT, BOOT, ready, token_is_valid, unit};

/// Seconds for which the network is missing after the first failure; `AZAION_LATE` overrides it.
const LATE: u64 = 30;
/// Maximum time in seconds from a complete network to a ready device.
const SOON: f64 = 2.0;

/// Exits with the time, on the journal's clock, at which link, address and name server are all present: `complete.py
/// NAME_SERVER`
const COMPLETE: &str = "
import glob, sys, time

def lines(pattern):
    return [line for name in glob.glob(pattern) for line in open(name)]

def is_complete():
    link = any(line.strip() == 'up' for line in lines('/sys/class/net/*/operstate'))
    # The API is on the link, and the emulator's DHCP names no router. The first line is a heading.
    route = len(lines('/proc/net/route')) > 1
    return link and route and any(sys.argv[1] in line for line in lines('/etc/resolv.conf'))

while not is_complete():
    time.sleep(0.02)
print(time.monotonic())
";

/// The machine's only network interface.
const LINK: &str = "$(ls /sys/class/net | grep -v lo)";

/// The part that appears last.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// The cable; then the address, by DHCP.
    Cable,
    /// The link, with an address that was configured before.
    Link,
    Address,
    NameServer,
}

impl Last {
    /// Removes or restores it.
    fn put(self, machine: &mut Machine, is_there: bool) -> anyhow::Result<()> {
        match (self, is_there) {
            (Self::Cable | Self::Link, _) => machine.plug(is_there),
            (Self::Address, true) => address(machine),
            (Self::Address, false) => machine.run(&format!("ip address flush dev {LINK}")).map(drop),
            (Self::NameServer, _) => know_names(machine, is_there),
        }
    }
}

/// Adds an address that only the test removes.
fn address(machine: &mut Machine) -> anyhow::Result<()> {
    machine.run(&format!("ip address add 10.0.2.15/24 dev {LINK}"))?;
    Ok(())
}

/// Resets the device to the state before its first success in this boot, and removes a part of its network.
fn start_without(machine: &mut Machine, last: Last) -> anyhow::Result<()> {
    machine.run(&format!("systemctl stop {AGENT} && rm -f /run/azaion/*.json"))?;
    last.put(machine, false)?;
    machine.run(&format!("systemctl start --no-block {AGENT}"))?;
    Ok(())
}

/// After the first failure the network stays away, then it returns, and the device is ready soon.
fn comes(machine: &mut Machine, last: Last) -> anyhow::Result<()> {
    let late = std::env::var("AZAION_LATE").map_or(Ok(LATE), |seconds| seconds.parse())?;
    let failed = not_ready(machine, "75")?;
    let before = Work::of(machine)?;
    pause(Duration::from_secs(late));
    let said = entries(machine, failed)?;
    assert!(!said.iter().any(Entry::is_ready), "ready without a network: {said:?}");
    Work::of(machine)?.is_calm_since(&before, said.len());

    let complete = "python3 /usr/share/complete.py";
    machine.run(&format!("rm -f /run/complete; {complete} {NAME_SERVER} >/run/complete 2>&1 & sleep 1"))?;
    assert_eq!(machine.run("cat /run/complete")?, "");
    last.put(machine, true)?;
    let ready = became_ready(machine, failed, BOOT)?;
    let complete: f64 = machine.run("cat /run/complete")?.parse()?;
    let took = ready - complete;
    println!(
        "{last:?}: the network is complete {:.1} s after the first failure, ready after {took:.2} s",
        complete - failed
    );
    let journal = format!("journalctl -b --no-pager -o short-monotonic -u systemd-networkd -u {AGENT} | tail -n 40");
    assert!(took <= SOON, "{last:?}: ready only after {took:.2} s\n{}", machine.run(&journal)?);
    Ok(())
}

// Promise: whichever part of the network comes last, and however late, the device is ready at most 2 s after it, by its
// own clock; until then it waits idle. `AZAION_LATE=90` makes it wait for 90 s.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn each_part_as_the_last_one() -> anyhow::Result<()> {
    if std::env::var_os("AZAION_LATE").is_none() {
        println!("AZAION_LATE=30 runs this; on a machine without other load, because the limit is two seconds");
        return Ok(());
    }
    let unit = unit(Options::default())?;
    by_name(&unit)?;
    unit.put("usr/share/complete.py", COMPLETE)?;
    unit.put("etc/resolv.conf", &format!("nameserver {NAME_SERVER}\n"))?;
    let disk = unit.flash()?;
    let mut machine = disk.boot(&Boot { unplugged: true, steady: true, ..Boot::default() })?;
    comes(&mut machine, Last::Cable)?;
    ready(&mut machine)?;

    // From here on, only the test changes the network.
    machine.run("systemctl stop systemd-networkd.socket systemd-networkd.service")?;
    machine.run(&format!("ip address flush dev {LINK}; ip link set {LINK} up"))?;
    address(&mut machine)?;
    for last in [Last::Link, Last::Address, Last::NameServer] {
        start_without(&mut machine, last)?;
        comes(&mut machine, last)?;
        ready(&mut machine)?;
    }
    token_is_valid(&mut machine, &unit.station.api)
}
