//! Private network namespaces for tests, as root: they affect nothing outside, no traffic leaves the machine, and the
//! kernel removes them when the last user ends, however the test ended.

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
    /// Creates one with only a loopback device.
    ///
    /// # Errors
    /// Not root, or the programs of iproute2 are missing.
    pub fn new() -> anyhow::Result<Self> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("creating a network namespace")?;
            shell("ip link set lo up")?;
            Ok(Self(File::open("/proc/thread-self/ns/net")?))
        })
    }

    /// Runs a closure on a thread inside: its sockets and the programs that it starts belong to the namespace.
    ///
    /// # Errors
    /// The work's.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
            work()
        })
    }

    /// Runs a shell script inside and returns its standard output.
    ///
    /// # Errors
    /// It failed; the message has what it said.
    pub fn run(&self, script: &str) -> anyhow::Result<String> {
        self.inside(|| shell(script))
    }

    /// Applies this nftables rule, and no other, to incoming packets; an empty rule allows all.
    ///
    /// Only incoming packets are dropped: a packet dropped on its way out would be an error to the sender, which does
    /// not happen on a real network.
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
            ensure!(nft.wait()?.success(), "nft rejects {rule}");
            Ok(())
        })
    }

    /// Returns the path by which other programs can open it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// An nftables set that contains all addresses for three seconds, by the kernel's clock.
const TIMED: &str = "set at_first { type ipv4_addr; flags interval, timeout; elements = { 10.0.2.0/24 timeout 3s } }";

/// Server and client, connected by a private link.
#[derive(Debug)]
pub struct Wire {
    /// Has the address [`SERVER`].
    pub server: Namespace,
    /// Has another address of the same network.
    pub client: Namespace,
}

impl Wire {
    /// Creates both.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn new() -> anyhow::Result<Self> {
        let (server, client) = (Namespace::new()?, Namespace::new()?);
        server.run(&format!("ip link add wire type veth peer name wire netns {}", client.path()))?;
        for (side, address) in [(&server, SERVER), (&client, "10.0.2.15")] {
            // One packet per segment, as on a real network, so that each can be lost separately.
            side.run(&format!("ip address add {address}/24 dev wire && ip link set wire up gso_max_segs 1"))?;
        }
        Ok(Self { server, client })
    }

    /// Applies a rule to the incoming packets of each side, see [`Namespace::filter`].
    ///
    /// # Errors
    /// They are no rules.
    pub fn filter(&self, at_server: &str, at_client: &str) -> anyhow::Result<()> {
        self.server.filter(at_server)?;
        self.client.filter(at_client)
    }
}

/// Makes this thread and the programs that it starts see this file as `/etc/resolv.conf`.
///
/// # Errors
/// Not root.
pub fn resolve_by(file: &Path) -> anyhow::Result<()> {
    find_in_place_of("/etc/resolv.conf", file)
}

/// Makes this thread and the programs that it starts see `file` at the path `target`.
///
/// # Errors
/// Not root.
pub fn find_in_place_of(target: &str, file: &Path) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("creating a mount namespace")?;
    shell(&format!("mount --make-rprivate / && mount --bind '{}' '{target}'", file.display())).map(drop)
}

/// Moves this thread and the programs that it starts into a network with only a loopback device.
///
/// # Errors
/// Not root.
pub fn leave_the_network() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("creating a network namespace")?;
    shell("ip link set lo up").map(drop)
}

fn shell(script: &str) -> anyhow::Result<String> {
    output(Command::new("sh").args(["-euc", script]))
}

/// Runs a closure on its own thread: a thread that has entered a namespace must not be reused for other work.
fn on_a_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
