//! `azaion-agent status`: where on the way from `device.conf` to readiness it fails, one line a station.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::api_url::ApiUrl;
use crate::check::{self, Check};
use crate::device_conf::DeviceConf;
use crate::exit::Exit;
use crate::fault::{Class, Problem, chain};
use crate::keys;
use crate::token::Keys;
use crate::transport::Transport;

use super::board::{self, Board};
use super::cache::TokenCache;
use super::readiness::Readiness;
use super::run::{Device, How, NotReady, Ready, run};
use super::settings::Settings;

/// The checks of the network, in the order of the way.
const NETWORK: [&str; 3] = ["name-lookup", "connection", "tls"];
/// How long a look-up or a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints all checks, a line each; the exit code of the first that failed.
pub fn print(device: &Device, login: bool, json: bool) -> Exit {
    let (checks, exit) = report(device, login);
    check::print(&checks, json).map_or(Exit::Internal, |()| exit)
}

/// All checks, and the exit code of the first that failed.
fn report(device: &Device, login: bool) -> (Vec<Check>, Exit) {
    let (configured, configuration) = configuration(device);
    let mut checks =
        vec![(configuration, Exit::Config), (clock(device, configured.as_ref().map(|(c, _)| c)), Exit::Later)];
    match &configured {
        Some((conf, settings)) => checks.extend(network(device, conf, settings).map(|check| (check, Exit::Later))),
        None => checks
            .extend(NETWORK.map(|id| (Check::failed(id, "not tried: there is no usable configuration"), Exit::Later))),
    }
    let logged_in = login.then(|| run(device, How { now: true, anew: true, ..How::default() }));
    checks.push(match logged_in {
        Some(Err(error)) => (Check::failed("token", chain(&error)), error.exit()),
        Some(Ok(Ready { trouble: Some(trouble), .. })) => (Check::failed("token", trouble), Exit::Later),
        _ => (token(device, configured.as_ref()), Exit::Later),
    });
    checks.push(readiness(device));
    let failed = checks.iter().find(|(check, _)| check.status == check::Status::Failed);
    let exit = failed.map_or(Exit::Done, |(_, exit)| *exit);
    (checks.into_iter().map(|(check, _)| check).collect(), exit)
}

/// The configuration, if it can be used, and the check that says so.
fn configuration(device: &Device) -> (Option<(DeviceConf, Settings)>, Check) {
    let conf = match device.conf() {
        Ok(conf) => conf,
        Err(error) => return (None, Check::failed("configuration", chain(&error))),
    };
    let settings = match Settings::read(&device.paths) {
        Ok(settings) => settings,
        Err(error) => return (None, Check::failed("configuration", chain(&error))),
    };
    let serial = conf.serial.as_deref().unwrap_or("a unit without serial");
    let who = format!("{serial}, {} at {}", conf.email, conf.api_url);
    let check = match board::judge(&device.paths, &conf) {
        Err(error) => return (None, Check::failed("configuration", chain(&NotReady::from(error)))),
        Ok(Board::Any) => Check::ok("configuration", who),
        Ok(Board::Right(module)) => Check::ok("configuration", format!("{who}, on the module {module}")),
        Ok(Board::Untold(why)) => Check::warning(
            "configuration",
            format!("{who}; whether this is the module that it is for can't be told: {why}"),
        ),
    };
    (Some((conf, settings)), check)
}

fn clock(device: &Device, conf: Option<&DeviceConf>) -> Check {
    let (wall, floor) = (device.clock.wall(), device.true_time(conf).floor());
    if wall < floor {
        return Check::warning(
            "clock",
            format!("the clock says {wall}, but it is later than {floor}; the agent copes with it"),
        );
    }
    Check::ok("clock", format!("{wall}"))
}

/// Name lookup, connection and TLS, each only where the one before held.
fn network(device: &Device, conf: &DeviceConf, settings: &Settings) -> [Check; 3] {
    let not_tried = |id, before: &str| Check::failed(id, format!("not tried: {before} failed"));
    let [name_lookup, connection, tls_id] = NETWORK;
    let addresses = match lookup(&conf.api_url) {
        Ok(addresses) => addresses,
        Err(check) => return [check, not_tried(connection, name_lookup), not_tried(tls_id, name_lookup)],
    };
    let list = addresses.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", ");
    let found = Check::ok(name_lookup, format!("{} is {list}", conf.api_url.host()));
    match connect(&conf.api_url, &addresses) {
        Ok(check) => [found, check, tls(device, conf, settings)],
        Err(check) => [found, check, not_tried(tls_id, connection)],
    }
}

fn lookup(api: &ApiUrl) -> Result<Vec<SocketAddr>, Check> {
    let (host, port) = (api.host().to_owned(), api.port());
    let (send, found) = mpsc::channel();
    // In a thread of its own, for getaddrinfo(3) has no time limit.
    thread::spawn(move || send.send((host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)));
    let failed = |detail: String| {
        Err(Check::failed("name-lookup", format!("{}: {}{detail}", api.host(), Transport::NameLookup)))
    };
    match found.recv_timeout(PATIENCE) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => failed(String::new()),
        Ok(Err(error)) => failed(format!(" ({error})")),
        Err(_) => failed(format!(" (no answer in {} s)", PATIENCE.as_secs())),
    }
}

fn connect(api: &ApiUrl, addresses: &[SocketAddr]) -> Result<Check, Check> {
    let mut last = Transport::Other;
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(_) => return Ok(Check::ok("connection", format!("{address} answers"))),
            Err(error) => last = Transport::of_io(error.kind()).unwrap_or(Transport::Other),
        }
    }
    Err(Check::failed("connection", format!("{}: {last}", api.authority())))
}

/// TLS, tried with the one request that needs no credentials; its answer also tells the time.
fn tls(device: &Device, conf: &DeviceConf, settings: &Settings) -> Check {
    let time = Arc::new(device.true_time(Some(conf)));
    let http = match device.http(conf, settings, Arc::clone(&time)) {
        Ok(http) => http,
        Err(error) => return Check::failed("tls", chain(&error)),
    };
    match keys::fetch(&http, Ok(PATIENCE)) {
        Ok(_) if !conf.api_url.is_tls() => Check::warning("tls", "plain http: nothing proves who the server is"),
        Ok(Keys::Set(keys)) => {
            Check::ok("tls", format!("the server is who it says, and publishes {} key(s)", keys.len()))
        }
        Ok(Keys::None) => {
            Check::warning("tls", "the server is who it says, but publishes no keys: tokens are unverified")
        }
        Err(fault) if matches!(fault.problem, Problem::Transport { .. }) => Check::failed("tls", chain(&fault)),
        Err(fault) if fault.class() == Class::Later => Check::warning("tls", chain(&fault)),
        Err(fault) => Check::failed("tls", chain(&fault)),
    }
}

fn token(device: &Device, configured: Option<&(DeviceConf, Settings)>) -> Check {
    let now = device.moment();
    match TokenCache::read(&device.paths.run_dir()) {
        Some(cache) if configured.is_some_and(|(conf, settings)| !cache.is_of(conf, settings)) => {
            Check::failed("token", "it is another account's, or another policy's; `azaion-agent boot` gets one")
        }
        None => Check::failed("token", "there is none yet; `azaion-agent boot` or the next run of the timer gets one"),
        Some(cache) if cache.left(&now).is_zero() => Check::failed("token", "it has run out; see readiness"),
        Some(cache) => {
            let text = format!("valid for {} s more, signature {}", cache.left(&now).as_secs(), cache.signature);
            Check::ok("token", text)
        }
    }
}

fn readiness(device: &Device) -> (Check, Exit) {
    let check = |check| (check, Exit::Later);
    match Readiness::read(&device.paths.run_dir()) {
        None => {
            check(Check::failed("readiness", "the agent has not run since this boot; is azaion-agent.timer enabled?"))
        }
        Some(Readiness { ready: true, since: Some(since), .. }) => {
            check(Check::ok("readiness", format!("ready since {since}")))
        }
        Some(Readiness { ready: true, .. }) => check(Check::ok("readiness", "ready")),
        Some(Readiness { code, reason, .. }) => {
            let exit = [Exit::Protocol, Exit::Refused, Exit::Config, Exit::Internal];
            let exit = exit.into_iter().find(|exit| Some(exit.code()) == code).unwrap_or(Exit::Later);
            (Check::failed("readiness", reason.unwrap_or_default()), exit)
        }
    }
}
