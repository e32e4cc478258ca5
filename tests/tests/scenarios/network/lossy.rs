//! Networks that lose packets by chance or by kind, that start late, or have low bandwidth or high delay.

use std::ops::RangeInclusive;
use std::time::Instant;

use anyhow::ensure;
use azaion_tests::netns::SERVER;

use super::relay::Relay;
use super::{Net, OPEN, SHUT, every, within};

/// The expected result of a device on such a network.
#[derive(Clone, Copy)]
enum Becomes {
    /// Ready, after at most so many runs.
    Ready(usize),
    /// Depends on chance.
    Either,
    NotReady,
}
use Becomes::{Either, NotReady, Ready};

/// A network, its rules for incoming packets at server and client, the result of the device, and how many logins the
/// API may see.
type Row = (&'static str, [&'static str; 2], Becomes, RangeInclusive<usize>);

const LOST_10: &str = "numgen random mod 100 < 10 drop";
const LOST_30: &str = "numgen random mod 100 < 30 drop";
const LOST_50: &str = "numgen random mod 100 < 50 drop";
const SHUT_AT_FIRST: &str = "ip saddr @at_first drop";
/// Two of three are lost, in order, so that the third try succeeds after three seconds.
const SYN_LOST: &str = "tcp flags & (syn | ack) == syn numgen inc mod 3 < 2 drop";
const SYN_ACK_LOST: &str = "tcp flags & (syn | ack) == (syn | ack) numgen inc mod 3 < 2 drop";
const EACH_OTHER: &str = "numgen inc mod 2 == 0 drop";
/// A path with a small MTU, whose ICMP messages are lost.
const LARGE_LOST: &str = "meta length > 500 drop";
const DATA_LOST: &str = "meta length > 60 drop";

/// A deadline that is long enough for two calls of ten seconds each.
const LONG: u64 = 20;

const ROWS: [Row; 14] = [
    ("open", [OPEN, OPEN], Ready(1), 1..=1),
    ("10 % lost", [LOST_10, LOST_10], Ready(1), 1..=2),
    ("30 % of the requests lost", [LOST_30, OPEN], Ready(2), 1..=4),
    ("30 % of the answers lost", [OPEN, LOST_30], Ready(2), 1..=4),
    ("30 % lost", [LOST_30, LOST_30], Ready(3), 1..=6),
    ("50 % lost", [LOST_50, LOST_50], Either, 0..=4),
    ("each other request lost", [EACH_OTHER, OPEN], Ready(1), 1..=2),
    ("shut for three seconds", [SHUT_AT_FIRST, SHUT_AT_FIRST], Ready(1), 1..=1),
    ("shut", [SHUT, SHUT], NotReady, 0..=0),
    ("two of three SYNs lost", [SYN_LOST, OPEN], Ready(1), 1..=1),
    ("two of three SYN-ACKs lost", [OPEN, SYN_ACK_LOST], Ready(1), 1..=1),
    ("large answers lost", [OPEN, LARGE_LOST], NotReady, 0..=0),
    ("all data of the client lost", [DATA_LOST, OPEN], NotReady, 0..=0),
    ("all data of the server lost", [OPEN, DATA_LOST], NotReady, 0..=0),
];

fn check((_, [at_server, at_client], becomes, logins): &Row) -> anyhow::Result<String> {
    let net = Net::with_unit()?;
    net.wire.filter(at_server, at_client)?;
    let start = Instant::now();
    let (most, deadline) = match becomes {
        Ready(runs) => (*runs, LONG),
        Either => (1, 12),
        NotReady => (1, 4),
    };
    let codes = until_ready(&net, most, deadline)?;
    let took = start.elapsed().as_secs_f32();
    let is_ready = codes.last() == Some(&Some(0));
    let is_right = match becomes {
        Ready(_) => is_ready,
        Either => true,
        NotReady => !is_ready,
    };
    ensure!(is_right, "the runs ended with {codes:?}");
    let seen = net.logins();
    within(logins, seen, "logins")?;
    // Once the network works again, the device becomes ready, with at most one more login.
    net.wire.filter(OPEN, OPEN)?;
    ensure!(net.boot(LONG)?.code == Some(0), "not ready on an open network");
    within(&(seen..=seen + usize::from(!is_ready)), net.logins(), "logins after all")?;
    Ok(format!("{codes:?} after {took:.1} s, {seen} logins"))
}

/// Runs the agent, as the timer starts it, until one run is ready.
fn until_ready(net: &Net, most: usize, deadline: u64) -> anyhow::Result<Vec<Option<i32>>> {
    let mut codes = Vec::new();
    while codes.len() < most && codes.last() != Some(&Some(0)) {
        codes.push(net.boot(deadline)?.code);
    }
    Ok(codes)
}

// Promise: on a network that loses packets the agent becomes ready, or ends with 75 in time; it makes few logins, locks
// no account, and leaves no invalid cache.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_that_loses_packets() -> anyhow::Result<()> {
    every(&ROWS, |(name, ..)| (*name).to_owned(), check)
}

// Promise: a link with the 9600 bit/s of an old modem is fast enough: one login.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_that_is_narrow() -> anyhow::Result<()> {
    every(
        &["9600bit", "64kbit"],
        |rate| (*rate).to_owned(),
        |rate| {
            let net = Net::with_unit()?;
            for side in [&net.wire.server, &net.wire.client] {
                side.run(&format!("tc qdisc add dev wire root tbf rate {rate} burst 1600 latency 3s"))?;
            }
            let start = Instant::now();
            ensure!(net.boot(LONG)?.code == Some(0), "not ready");
            within(&(1..=1), net.logins(), "logins")?;
            Ok(format!("ready after {:.1} s", start.elapsed().as_secs_f32()))
        },
    )
}

/// Delay of each direction in milliseconds, the deadline, and whether the device becomes ready.
const DELAYS: [(u64, u64, bool); 3] = [(300, LONG, true), (700, LONG, true), (5000, 4, false)];

// Promise: a long delay to the server, over a satellite or two, costs time but no second login; one beyond the deadline
// is 75.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_that_is_slow() -> anyhow::Result<()> {
    every(
        &DELAYS,
        |(delay, ..)| format!("{delay} ms each way"),
        |&(delay, deadline, is_ready)| {
            let net = Net::with_unit()?;
            let api = net.station.api.url();
            let port = |url: &str| url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
            let relay = net.wire.server.inside(|| Relay::start(SERVER, port(&api), delay))?;
            net.put_conf(&api.replace(&format!(":{}", port(&api)), &format!(":{}", relay.port)))?;
            let start = Instant::now();
            let code = net.boot(deadline)?.code;
            ensure!((code == Some(0)) == is_ready, "ended with {code:?}");
            within(&(usize::from(is_ready)..=usize::from(is_ready)), net.logins(), "logins")?;
            Ok(format!("{code:?} after {:.1} s", start.elapsed().as_secs_f32()))
        },
    )
}

/// Losses in each direction; by chance, so each is tried more than once.
const HOST_LOSSES: [[&str; 2]; 8] = [
    [LOST_10, LOST_10],
    [LOST_30, LOST_30],
    [LOST_30, LOST_30],
    [LOST_50, OPEN],
    [OPEN, LOST_50],
    [OPEN, LOST_50],
    [LOST_50, LOST_50],
    [LOST_50, LOST_50],
];

// Promise: on a network that loses packets the host tool ends in time with one user whose password is in the target, or
// reports that the API is unreachable and is repaired by the next run.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_that_loses_packets_of_the_station() -> anyhow::Result<()> {
    every(
        &HOST_LOSSES,
        |rules| rules.join(" | "),
        |[at_server, at_client]| {
            let net = Net::new()?;
            net.wire.filter(at_server, at_client)?;
            let start = Instant::now();
            let code = net.device(8)?.code;
            let took = start.elapsed().as_secs_f32();
            net.wire.filter(OPEN, OPEN)?;
            ensure!(net.device(LONG)?.code == Some(0), "the next run does not repair it");
            Ok(format!("{code:?} after {took:.1} s, {} logins in all", net.logins()))
        },
    )
}
