//! A name server that is silent, late, wrong or missing.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use azaion_tests::netns::{SERVER, resolve_by};
use azaion_tests::programs::{Run, start};
use azaion_tests::station::SERIAL;

use super::{Net, OPEN, every, in_time};

/// The answer of a name server to any query for an address.
#[derive(Clone, Copy, Debug)]
enum Says {
    Address([u8; 4]),
    /// This code of RFC 1035, 4.1.1.
    Error(u8),
    Garbage,
}

/// Answers until dropped.
struct NameServer {
    _socket: Arc<UdpSocket>,
}

impl NameServer {
    fn start(says: Says) -> anyhow::Result<Self> {
        const LOOK_UP: Duration = Duration::from_millis(200);
        let socket = Arc::new(UdpSocket::bind((SERVER, 53))?);
        // Regularly checks whether it was dropped.
        socket.set_read_timeout(Some(LOOK_UP))?;
        let held = Arc::downgrade(&socket);
        std::thread::spawn(move || {
            while let Some(socket) = held.upgrade() {
                let mut query = [0; 512];
                let Ok((size, peer)) = socket.recv_from(&mut query) else { continue };
                if let Some(answer) = answer(query.get(..size).unwrap_or_default(), says) {
                    // The client may be gone.
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Ok(Self { _socket: socket })
    }
}

/// Builds the answer to a query of one question.
fn answer(query: &[u8], says: Says) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = query.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(HEADER..HEADER + name + 5)?;
    let is_for_ipv4 = question.get(name + 1..name + 3) == Some(&[0, 1]);
    let (code, address) = match says {
        Says::Garbage => return Some(vec![0xff; 40]),
        Says::Error(code) => (code, None),
        Says::Address(address) => (0, Some(address).filter(|_| is_for_ipv4)),
    };
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend(question);
    if let Some(address) = address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address);
    }
    Some(answer)
}

/// The answer of the name server, if there is one, the rule for packets to it, the resolver options, the exit code, and
/// a part of the journal entry.
type Row = (Option<Says>, &'static str, &'static str, i32, &'static str);

/// One try of a second, so that the agent's own tries are seen, or ten seconds, as is usual.
const BRIEFLY: &str = "options timeout:1 attempts:1";
const LONG: &str = "options timeout:5 attempts:2";

const HERE: Option<Says> = Some(Says::Address([10, 0, 2, 2]));
const LOST: &str = "udp dport 53 drop";
const LOST_AT_FIRST: &str = "udp dport 53 ip saddr @at_first drop";
const SOME_LOST: &str = "udp dport 53 numgen inc mod 3 == 0 drop";

const ROWS: [Row; 13] = [
    (HERE, OPEN, LONG, 0, ""),
    (HERE, LOST_AT_FIRST, BRIEFLY, 0, ""),
    (HERE, LOST_AT_FIRST, LONG, 0, ""),
    (HERE, SOME_LOST, BRIEFLY, 0, ""),
    (HERE, LOST, BRIEFLY, 75, "looked up"),
    (HERE, LOST, LONG, 75, "no answer in time"),
    (None, OPEN, BRIEFLY, 75, "looked up"),
    // No such name, a failing server, one that refuses.
    (Some(Says::Error(3)), OPEN, LONG, 75, "looked up"),
    (Some(Says::Error(2)), OPEN, BRIEFLY, 75, "looked up"),
    (Some(Says::Error(5)), OPEN, BRIEFLY, 75, "looked up"),
    (Some(Says::Garbage), OPEN, BRIEFLY, 75, "looked up"),
    // A missing host, and an address that every machine has itself.
    (Some(Says::Address([10, 0, 2, 3])), OPEN, LONG, 75, "no route"),
    (Some(Says::Address([127, 0, 0, 1])), OPEN, LONG, 75, "refused"),
];

// Promise: without a useful name server, the device is not ready yet, in time and with the reason; with a late one it
// becomes ready, with one login.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_without_names() -> anyhow::Result<()> {
    every(
        &ROWS,
        |row| format!("{row:?}"),
        |row| {
            let (.., code, words) = row;
            let net = Net::with_unit()?;
            net.put_conf(&by_name(&net))?;
            let (run, took) = run(row, &net, |deadline| net.station.agent(&["boot", "--deadline", deadline]))?;
            let run = run.ended_with(*code)?;
            ensure!(run.stderr.contains(words), "{words:?} is not in {}", run.stderr);
            ensure!(net.logins() == usize::from(*code == 0), "{} logins", net.logins());
            Ok(took)
        },
    )
}

// Promise: in the host tool it is 69, in time, with the reason and with nothing written; or it succeeds.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn network_without_names_for_the_station() -> anyhow::Result<()> {
    every(
        &ROWS,
        |row| format!("{row:?}"),
        |row| {
            let (.., code, words) = row;
            let net = Net::new()?;
            let (own, url) = (net.station.api.url(), by_name(&net));
            let arguments = net.station.api_arguments();
            let arguments = arguments.iter().map(|argument| if *argument == own { &url } else { argument });
            let rootfs = net.station.rootfs().display().to_string();
            let (run, took) = run(row, &net, |deadline| {
                let fixed = ["device", SERIAL, "--rootfs", &rootfs, "--owner", "current", "--deadline", deadline];
                net.station.wait(start(net.station.provision_command(&fixed)?.args(arguments))?)
            })?;
            let run = run.ended_with(if *code == 0 { 0 } else { 69 })?;
            ensure!(run.stderr.contains(words), "{words:?} is not in {}", run.stderr);
            ensure!(
                net.is_provisioned() == (*code == 0) && net.station.password().is_some() == (*code == 0),
                "partly done"
            );
            Ok(took)
        },
    )
}

fn by_name(net: &Net) -> String {
    net.station.api.url().replace(SERVER, "admin.azaion.test")
}

/// Runs with the row's name server, in time, and returns the duration.
fn run(
    (says, at_server, options, code, _): &Row,
    net: &Net,
    program: impl FnOnce(&str) -> anyhow::Result<Run> + Send,
) -> anyhow::Result<(Run, String)> {
    let _server = says.map(|says| net.wire.server.inside(|| NameServer::start(says))).transpose()?;
    net.station.put("resolv.conf", format!("nameserver {SERVER}\n{options}\n"), 0o644)?;
    net.wire.filter(at_server, OPEN)?;
    let deadline = if *code == 0 { 20 } else { 5 };
    let start = Instant::now();
    let run = net.wire.client.inside(|| {
        resolve_by(&net.station.path("resolv.conf"))?;
        program(&deadline.to_string())
    })?;
    in_time(&run, start, deadline)?;
    Ok((run, format!("after {:.1} s", start.elapsed().as_secs_f32())))
}
