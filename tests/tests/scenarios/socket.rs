//! `azaion-agent token --socket`: the answer to one client.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use azaion_agent::common::clock::{Clock, SystemClock};
use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::native;
use azaion_tests::record;
use azaion_tests::schemas;
use azaion_tests::station::{EMAIL, Station, command};
use serde_json::Value;

const TOKEN: &str = "run/azaion/token.json";
/// Number of concurrent clients.
const CLIENTS: usize = 50;
const PATIENCE: Duration = Duration::from_mins(1);

/// Returns the command that answers one client.
fn answering(station: &Station) -> anyhow::Result<Command> {
    let mut agent = command(&native()?.join("azaion-agent"), &["token", "--socket", "--root"]);
    agent.arg(station.rootfs());
    Ok(agent)
}

/// A socket that starts the agent for each client, as systemd does.
#[derive(Debug)]
pub(crate) struct Listener {
    activator: Child,
    path: PathBuf,
}

impl Listener {
    pub(crate) fn new(station: &Station) -> anyhow::Result<Self> {
        let path = station.path("token.sock");
        let agent = answering(station)?;
        let mut command = command(Path::new("systemd-socket-activate"), &["--accept", "--inetd", "--listen"]);
        command.arg(&path).arg(agent.get_program()).args(agent.get_args());
        let activator = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let listener = Self { activator, path };
        let until = SystemClock.boot() + PATIENCE;
        while !listener.path.exists() {
            if SystemClock.boot() > until {
                bail!("systemd-socket-activate does not listen");
            }
            thread::yield_now();
        }
        Ok(listener)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn ask(&self) -> anyhow::Result<Value> {
        // The socket file exists before it accepts connections.
        let until = SystemClock.boot() + PATIENCE;
        let mut client = loop {
            match UnixStream::connect(&self.path) {
                Ok(client) => break client,
                Err(error) if SystemClock.boot() > until => return Err(error.into()),
                Err(_) => thread::yield_now(),
            }
        };
        client.set_read_timeout(Some(PATIENCE))?;
        read(&mut client)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.activator.kill();
        let _ = self.activator.wait();
    }
}

/// Returns everything sent until the end of file: one line of JSON.
fn read(client: &mut UnixStream) -> anyhow::Result<Value> {
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').with_context(|| format!("{} bytes without a line end", text.len()))?;
    let answer: Value = serde_json::from_str(line)?;
    schemas::check(schemas::socket_answer(&answer), &answer)?;
    if let Some(token) = answer["access_token"].as_str() {
        record::secret(token)?;
    } else {
        record::words(line)?;
    }
    Ok(answer)
}

/// Runs the agent for a client, whose behaviour is up to the test; returns its standard error.
fn answer_to(station: &Station, connection: UnixStream) -> anyhow::Result<String> {
    let mut agent = answering(station)?;
    let agent = agent.stdin(Stdio::null()).stdout(OwnedFd::from(connection)).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&agent.stderr).into_owned();
    record::words(&said)?;
    anyhow::ensure!(agent.status.success(), "{}: {said}", agent.status);
    station.no_leftovers()?;
    Ok(said)
}

// Promise: a fresh token is answered at once, as cached, without a call and without waiting for another run.
#[test]
fn a_fresh_token_is_answered_without_the_lock() -> anyhow::Result<()> {
    let station = ready()?;
    let lock = File::options().write(true).open(station.inside("run/azaion/agent.lock"))?;
    lock.lock()?;
    station.api.forget_requests();
    let listener = Listener::new(&station)?;
    for _ in 0..3 {
        assert_eq!(Some(listener.ask()?), station.json(TOKEN));
    }
    assert_eq!(station.api.requests().len(), 0);
    Ok(())
}

/// Creates a host with a ready device.
fn ready() -> anyhow::Result<Station> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.agent(&["boot"])?.ended_with(0)?;
    Ok(station)
}

// Promise: many concurrent clients get the same new token for one login.
#[test]
fn clients_at_once_share_one_login() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    station.api.forget_requests();
    station.api.inject("POST", "/login", Fault::Delay(Duration::from_secs(1)), 1);
    let listener = Listener::new(&station)?;
    let answers: Vec<anyhow::Result<Value>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| listener.ask())).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    let tokens = answers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let tokens: BTreeSet<_> = tokens.iter().map(|answer| answer["access_token"].as_str()).collect();
    assert!(tokens.len() == 1 && !tokens.contains(&None), "{} answers", tokens.len());
    assert_eq!(station.api.calls("POST", "/login"), 1);
    Ok(())
}

// Promise: if there is no token, the client gets the code and the reason, the exit code is 0, and nothing is logged;
// while a token is valid, a failed renewal does not matter.
#[test]
fn a_client_learns_why_there_is_no_token() -> anyhow::Result<()> {
    let ask = |station: &Station| {
        let (mut client, connection) = UnixStream::pair()?;
        let said = answer_to(station, connection)?;
        anyhow::Ok((read(&mut client)?, said))
    };
    let station = Station::new(Options::default())?;
    station.put("rootfs/etc/group", "azaion:x:48213:\n", 0o644)?;
    station.put_policy("")?;
    let (answer, said) = ask(&station)?;
    assert!(answer["code"] == 78 && answer["reason"].as_str().is_some_and(|r| r.contains("device.conf")), "{answer}");
    assert_eq!((answer.as_object().map(serde_json::Map::len), said.as_str()), (Some(2), ""));

    station.device(&[])?.ended_with(0)?;
    station.put_policy("deadline_s = 1\n")?;
    station.api.inject("POST", "/login", Fault::Status { code: 503, error: None, headers: Vec::new() }, usize::MAX);
    assert_eq!(ask(&station)?.0["code"], 75);
    station.api.clear_faults();
    station.agent(&["boot"])?.ended_with(0)?;

    // It is due for renewal, and valid.
    let mut cache = station.json(TOKEN).context("the cache")?;
    cache["obtained_boottime_s"] = cache["obtained_boottime_s"].as_u64().map(|at| at.saturating_sub(600)).into();
    cache["lifetime_s"] = 660.into();
    station.put(&format!("rootfs/{TOKEN}"), cache.to_string(), 0o640)?;
    for route in ["/login", "/token/refresh"] {
        station.api.inject("POST", route, Fault::DropBefore, usize::MAX);
    }
    assert_eq!(ask(&station)?.0["access_token"], cache["access_token"]);
    station.api.clear_faults();

    station.api.set_password(EMAIL, "another-password");
    std::fs::remove_file(station.inside(TOKEN))?;
    assert_eq!(ask(&station)?.0["code"], 77);
    Ok(())
}

// Promise: programs that ask repeatedly after an invalid answer, or a refusal, cause one call.
#[test]
fn waits_are_obeyed() -> anyhow::Result<()> {
    for (status, code) in [(404, 76), (0, 77)] {
        let station = Station::new(Options::default())?;
        station.device(&[])?.ended_with(0)?;
        station.put_policy("")?;
        station.api.set_password(EMAIL, "another-password");
        if status > 0 {
            let fault = Fault::Status { code: status, error: None, headers: Vec::new() };
            station.api.inject("POST", "/login", fault, usize::MAX);
        }
        station.api.forget_requests();
        for _ in 0..5 {
            let (mut client, connection) = UnixStream::pair()?;
            answer_to(&station, connection)?;
            assert_eq!(read(&mut client)?["code"], code);
        }
        assert_eq!(station.api.calls("POST", "/login"), 1, "{code}");
    }
    Ok(())
}

// Promise: a client that never reads, has closed already or sends something causes no failure and no log line.
#[test]
fn clients_that_do_not_read() -> anyhow::Result<()> {
    type Behaviour = (&'static str, fn(&mut UnixStream));
    let station = ready()?;
    let behaviours: [Behaviour; 4] = [
        ("never reads", |_| {}),
        ("closed both ways", |client| client.shutdown(Shutdown::Both).unwrap()),
        ("closed for reading", |client| client.shutdown(Shutdown::Read).unwrap()),
        ("sends something", |client| std::io::Write::write_all(client, b"GET / HTTP/1.1\r\n\r\n").unwrap()),
    ];
    for (name, behave) in behaviours {
        let (mut client, connection) = UnixStream::pair()?;
        behave(&mut client);
        assert_eq!(answer_to(&station, connection).context(name)?, "", "{name}");
    }
    let (client, connection) = UnixStream::pair()?;
    drop(client);
    assert_eq!(answer_to(&station, connection)?, "");
    Ok(())
}

/// Runs a program whose standard output is a connection with the kernel's smallest buffer and no reader; returns its
/// exit code.
const SMALL_BUFFER: &str = "
import socket, subprocess, sys
client, connection = socket.socketpair()
connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
sys.exit(subprocess.run(sys.argv[1:], stdout=connection, timeout=60).returncode)
";

// Promise: if an answer does not fit the connection's buffer, the agent gives up on a client that never reads.
#[test]
fn a_client_that_does_not_read_is_given_up() -> anyhow::Result<()> {
    let station = ready()?;
    let agent = answering(&station)?;
    let mut python = command(Path::new("python3"), &["-c", SMALL_BUFFER]);
    python.arg(agent.get_program()).args(agent.get_args());
    azaion_tests::programs::start(&mut python)?.wait()?.ended_with(0)?;
    Ok(())
}
