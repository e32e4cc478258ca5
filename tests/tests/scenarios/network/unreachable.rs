//! A server that is unreachable, for each of the reasons that a network has.

use std::time::Instant;

use anyhow::ensure;
use serde_json::Value;

use super::{Net, OPEN, SHUT, every, in_time};

/// The fault of the network: a script for the client's side, and the rule for incoming packets at the server.
struct Row {
    script: &'static str,
    at_server: &'static str,
    /// The address in use, if it is not the API's own.
    address: &'static str,
    says: &'static str,
}

const fn row(script: &'static str, says: &'static str) -> Row {
    Row { script, at_server: OPEN, address: "", says }
}

const NO_ROUTE: &str = "no route";

const ROWS: [Row; 13] = [
    row("ip link set wire down", NO_ROUTE),
    row("ip route del 10.0.2.0/24", NO_ROUTE),
    row("ip address flush dev wire", NO_ROUTE),
    row("ip link del wire", NO_ROUTE),
    row("ip route add unreachable 10.0.2.2", NO_ROUTE),
    row("ip route add blackhole 10.0.2.2", "Invalid argument"),
    row("ip route add prohibit 10.0.2.2", "Permission denied"),
    // A missing host of this network, and one of another network.
    Row { address: "10.0.2.3", ..row("", NO_ROUTE) },
    Row { address: "192.0.2.1", ..row("", NO_ROUTE) },
    Row { at_server: "reject with icmp host-unreachable", ..row("", NO_ROUTE) },
    Row { at_server: "reject with icmp admin-prohibited", ..row("", NO_ROUTE) },
    Row { at_server: "reject with icmp port-unreachable", ..row("", "refused") },
    Row { at_server: "reject with tcp reset", ..row("", "refused") },
];

/// More than the three seconds after which the kernel gives up on a neighbour.
const DEADLINE: u64 = 5;

fn described(row: &Row) -> String {
    format!("{} {} {}", row.script, row.at_server, row.address)
}

fn broken(row: &Row, net: &Net) -> anyhow::Result<()> {
    net.wire.filter(row.at_server, OPEN)?;
    net.wire.client.run(row.script).map(drop)
}

/// Returns the URL with another host.
fn elsewhere(url: &str, address: &str) -> String {
    if address.is_empty() { url.to_owned() } else { url.replace("10.0.2.2", address) }
}

// Promise: an unreachable server is 75, with the reason; only the API's address is contacted, and nothing gets there.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_without_a_way_for_the_agent() -> anyhow::Result<()> {
    every(&ROWS, described, |row| {
        let net = Net::with_unit()?;
        net.put_conf(&elsewhere(&net.station.api.url(), row.address))?;
        broken(row, &net)?;
        let run = net.boot(DEADLINE)?.ended_with(75)?;
        ensure!(run.stderr.contains(row.says), "{:?} is not in {}", row.says, run.stderr);
        let ready = net.station.json("run/azaion/ready.json").unwrap_or_default();
        let reason = ready.get("reason").and_then(Value::as_str).unwrap_or("there is none");
        ensure!(run.stderr.contains(reason), "another reason: {reason}");
        ensure!(net.station.api.requests().is_empty(), "a request got through");
        Ok(String::new())
    })
}

// Promise: in the host tool it is 69, with the reason, and nothing is written.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_without_a_way_for_the_station() -> anyhow::Result<()> {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| row.address.is_empty()).collect();
    every(
        &rows,
        |row| described(row),
        |row| {
            let net = Net::new()?;
            broken(row, &net)?;
            let run = net.device(DEADLINE)?.ended_with(69)?;
            ensure!(run.stderr.contains(row.says), "{:?} is not in {}", row.says, run.stderr);
            ensure!(net.station.password().is_none(), "something was written");
            Ok(String::new())
        },
    )
}

/// The rule for incoming packets at the server, and the check that fails because of it.
const CHECKS: [(&str, &str); 4] = [
    (SHUT, "connection"),
    ("reject with icmp host-unreachable", "connection"),
    ("reject with tcp reset", "connection"),
    // Only TCP handshakes get through.
    ("meta length > 60 drop", "tls"),
];

// Promise: `status` reports the failing stage of the connection, in bounded time, and does not log in.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_without_a_way_for_status() -> anyhow::Result<()> {
    const BOUND: u64 = 12;
    every(
        &CHECKS,
        |row| format!("{row:?}"),
        |(at_server, expected)| {
            let net = Net::with_unit()?;
            net.wire.filter(at_server, OPEN)?;
            let start = Instant::now();
            let run = net.wire.client.inside(|| net.station.agent(&["status", "--json"]))?;
            in_time(&run, start, BOUND)?;
            let checks = run.json_lines()?;
            let is_bad = |check: &&Value| check.get("status").and_then(Value::as_str) == Some("failed");
            let id = checks.iter().find(is_bad).and_then(|check| check.get("id")?.as_str());
            ensure!(id == Some(expected), "the first that failed is {id:?}: {}", run.words());
            ensure!(net.logins() == 0, "it logged in");
            Ok(format!("after {:.1} s", start.elapsed().as_secs_f32()))
        },
    )
}
