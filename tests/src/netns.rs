//! Network namespaces of a test's own, as root: nothing outside of them is touched, no traffic leaves the machine, and the
//! kernel takes them down when nobody holds them any more, however the test ended.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::programs::output;

/// The server's address, which is in the development API's certificate.
pub const SERVER: &str = "10.0.2.2";

/// A network of one machine.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new one, with nothing but a loopback device.
    ///
    /// # Errors
    /// Not root, or the programs of iproute2 are missing.
    pub fn new() -> anyhow::Result<Self> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
            shell("ip link set lo up")?;
            Ok(Self(File::open("/proc/thread-self/ns/net")?))
        })
    }

    /// Works on a thread inside: the sockets that it makes and the programs that it starts belong there.
    ///
    /// # Errors
    /// The work's.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
            work()
        })
    }

    /// Runs a shell script inside; its standard output.
    ///
    /// # Errors
    /// It failed; the message has what it said.
    pub fn run(&self, script: &str) -> anyhow::Result<String> {
        self.inside(|| shell(script))
    }

    /// What comes in goes through this rule of nftables, and no other any more; none lets all through.
    ///
    /// Only what comes in is ever dropped: a packet dropped on its way out would be an error to the sender, which no
    /// network gives.
    ///
    /// # Errors
    /// It is no rule.
    pub fn filter(&self, rule: &str) -> anyhow::Result<()> {
        let table = format!(
            "flush ruleset\ntable ip test {{\n {TIMED}\n chain input {{ type filter hook input priority 0; {rule}; }}\n}}\n"
        );
        self.inside(|| {
            let mut nft = Command::new("nft");
            let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("starting nft")?;
            nft.stdin.take().context("its standard input")?.write_all(table.as_bytes())?;
            ensure!(nft.wait()?.success(), "nft does not take {rule}");
            Ok(())
        })
    }

    /// The path by which other programs can name it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// A set that all addresses are in for three seconds, by the kernel's own clock.
const TIMED: &str = "set at_first { type ipv4_addr; flags interval, timeout; elements = { 10.0.2.0/24 timeout 3s } }";

/// Server and client, on a wire of their own.
#[derive(Debug)]
pub struct Wire {
    /// Has the address [`SERVER`].
    pub server: Namespace,
    /// Has another of the same network.
    pub client: Namespace,
}

impl Wire {
    /// A new one.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn new() -> anyhow::Result<Self> {
        let (server, client) = (Namespace::new()?, Namespace::new()?);
        server.run(&format!("ip link add wire type veth peer name wire netns {}", client.path()))?;
        for (side, address) in [(&server, SERVER), (&client, "10.0.2.15")] {
            // Each segment a packet of its own, as on a real wire, so that each is lost on its own.
            side.run(&format!("ip address add {address}/24 dev wire && ip link set wire up gso_max_segs 1"))?;
        }
        Ok(Self { server, client })
    }

    /// What comes in at either side goes through its rule, see [`Namespace::filter`].
    ///
    /// # Errors
    /// They are no rules.
    pub fn filter(&self, at_server: &str, at_client: &str) -> anyhow::Result<()> {
        self.server.filter(at_server)?;
        self.client.filter(at_client)
    }
}

/// From now on, this thread and the programs that it starts find this file in the place of `/etc/resolv.conf`.
///
/// # Errors
/// Not root.
pub fn resolve_by(file: &Path) -> anyhow::Result<()> {
    find_in_place_of("/etc/resolv.conf", file)
}

/// From now on, this thread and what it starts find this file in the place of another one.
///
/// # Errors
/// Not root.
pub fn find_in_place_of(target: &str, file: &Path) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
    shell(&format!("mount --make-rprivate / && mount --bind '{}' '{target}'", file.display())).map(drop)
}

/// From now on, this thread and what it starts have a network with nothing but a loopback device.
///
/// # Errors
/// Not root.
pub fn leave_the_network() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    shell("ip link set lo up").map(drop)
}

fn shell(script: &str) -> anyhow::Result<String> {
    output(Command::new("sh").args(["-euc", script]))
}

/// A namespace is entered by a thread, which no other work may come back to.
fn on_a_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
