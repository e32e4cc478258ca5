//! `azaion-agent status`: where on the way from `device.conf` to readiness it fails, one line a check.
//!
//! Without root it checks what everybody may read, and gives a warning for each check that needs root.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::api::fault::{Class, Problem, chain};
use crate::api::keys;
use crate::api::token::Keys;
use crate::api::transport::Transport;
use crate::api::url::ApiUrl;
use crate::common::check::{self, Check};
use crate::common::device_conf::DeviceConf;
use crate::common::exit::Exit;

use super::board::{self, Board};
use super::cache::TokenCache;
use super::files::GROUP;
use super::hold::held;
use super::paths::TOKEN_FILE;
use super::readiness::{self, Readiness};
use super::run::{Device, How, NotReady, Ready, run};
use super::settings::Settings;

const CONFIGURATION: &str = "configuration";
const CLOCK: &str = "clock";
const TOKEN: &str = "token";
const READINESS: &str = "readiness";
/// The checks of the network, in the order of the way.
const NETWORK: [&str; 3] = ["name-lookup", "connection", "tls"];
/// How long a look-up or a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a check needs that the caller may not read.
const NEEDS_ROOT: &str = "run this as root";

/// What is known of the configuration.
enum Known {
    /// All of it, and it can be used.
    Whole(DeviceConf, Settings),
    /// The caller may not read `device.conf`; the API is the one that `ready.json` names, if it names one.
    Public(Option<ApiUrl>, Settings),
    /// It can't be used.
    Unusable,
}

impl Known {
    fn settings(&self) -> Option<&Settings> {
        match self {
            Self::Whole(_, settings) | Self::Public(_, settings) => Some(settings),
            Self::Unusable => None,
        }
    }

    fn conf(&self) -> Option<&DeviceConf> {
        match self {
            Self::Whole(conf, _) => Some(conf),
            Self::Public(..) | Self::Unusable => None,
        }
    }
}

/// The ids of all checks, in their order.
#[cfg(feature = "schema")]
pub(super) fn ids() -> Vec<&'static str> {
    [CONFIGURATION, CLOCK].into_iter().chain(NETWORK).chain([TOKEN, READINESS]).collect()
}

/// Prints all checks, a line each; the exit code of the first that failed.
pub fn print(device: &Device, login: bool, json: bool) -> Exit {
    let (checks, exit) = report(device, login);
    check::print(&checks, json).map_or(Exit::Internal, |()| exit)
}

/// All checks, and the exit code of the first that failed.
fn report(device: &Device, login: bool) -> (Vec<Check>, Exit) {
    let (known, configuration) = configuration(device);
    let mut checks = vec![(configuration, Exit::Config), (clock(device, known.conf()), Exit::Later)];
    checks.extend(network(device, &known).map(|check| (check, Exit::Later)));
    let logged_in = login.then(|| run(device, How { now: true, is_forced: true, ..How::default() }));
    checks.push(match logged_in {
        Some(Err(error)) => (Check::failed(TOKEN, chain(&error)), error.exit()),
        Some(Ok(Ready { renewal_error: Some(renewal_error), .. })) => {
            (Check::failed(TOKEN, renewal_error), Exit::Later)
        }
        _ => (token(device, &known), Exit::Later),
    });
    checks.push(readiness_check(device));
    let failed = checks.iter().find(|(check, _)| check.status == check::Status::Failed);
    let exit = failed.map_or(Exit::Done, |(_, exit)| *exit);
    (checks.into_iter().map(|(check, _)| check).collect(), exit)
}

/// What is known of the configuration, and the check that says so.
fn configuration(device: &Device) -> (Known, Check) {
    let failed = |error: &(dyn Error + 'static)| (Known::Unusable, Check::failed(CONFIGURATION, chain(error)));
    let (conf, settings) = device.configuration();
    let conf = match conf {
        Ok(conf) => Some(conf),
        Err(error) if device.is_closed_to(&error) || (error.lacks_api_url() && settings.is_err()) => None,
        Err(error) => return failed(&error),
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return failed(&error),
    };
    let Some(conf) = conf else { return public(device, settings) };
    let serial = conf.serial.as_deref().unwrap_or("a unit without serial");
    let who = format!("{serial}, {} at {}", conf.email, conf.api_url);
    let check = match board::check(&device.paths, &conf) {
        Err(error) => return failed(&NotReady::from(error)),
        Ok(Board::Any) => Check::ok(CONFIGURATION, who),
        Ok(Board::Right(module)) => Check::ok(CONFIGURATION, format!("{who}, on the module {module}")),
        Ok(Board::Unknown(why)) => Check::warning(
            CONFIGURATION,
            format!("{who}; whether this is the module that it is for can't be told: {why}"),
        ),
    };
    (Known::Whole(conf, settings), check)
}

/// The same for a caller who may not read `device.conf`.
fn public(device: &Device, settings: Settings) -> (Known, Check) {
    let file = device.paths.device_conf();
    let Readiness { serial, email, api_url, .. } = Readiness::read(&device.paths.run_dir()).unwrap_or_default();
    let who = [serial.as_deref(), email.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let at = api_url.as_deref().map(|api| format!(" at {api}")).unwrap_or_default();
    let last = if who.is_empty() { String::new() } else { format!("; at the last run it was {who}{at}") };
    let message = format!("only root can read {}: {NEEDS_ROOT}{last}", file.display());
    let api = api_url.and_then(|api| api.parse().ok());
    (Known::Public(api, settings), Check::warning(CONFIGURATION, message))
}

fn clock(device: &Device, conf: Option<&DeviceConf>) -> Check {
    let (wall, floor) = (device.machine.wall(), device.true_time(conf).floor());
    if wall < floor {
        return Check::warning(
            CLOCK,
            format!("the clock says {wall}, but it is later than {floor}; the agent copes with it"),
        );
    }
    if device.machine.is_synchronised() {
        return Check::ok(CLOCK, format!("{wall}, synchronised"));
    }
    Check::ok(CLOCK, format!("{wall}, not synchronised: the agent takes the time from the API's answers"))
}

/// The checks of the network, as far as the API is known and calls may be made.
fn network(device: &Device, known: &Known) -> [Check; 3] {
    let held = known.settings().and_then(|settings| held(&device.paths, &settings.hold_file));
    if let Some(why) = held {
        let message = format!("not tried: the device is held {why}");
        return NETWORK.map(|id| Check::warning(id, message.as_str()));
    }
    match known {
        Known::Whole(conf, settings) => way_to(&conf.api_url, device, Some(conf), settings),
        Known::Public(Some(api), settings) => way_to(api, device, None, settings),
        Known::Public(None, _) => {
            let message = format!("not tried: only root can read the address of the API; {NEEDS_ROOT}");
            NETWORK.map(|id| Check::warning(id, message.as_str()))
        }
        Known::Unusable => NETWORK.map(|id| Check::failed(id, "not tried: there is no usable configuration")),
    }
}

/// Name lookup, connection and TLS, each only where the one before held.
fn way_to(api: &ApiUrl, device: &Device, conf: Option<&DeviceConf>, settings: &Settings) -> [Check; 3] {
    let not_tried = |id, before: &str| Check::failed(id, format!("not tried: {before} failed"));
    let [name_lookup, connection, tls_id] = NETWORK;
    let server = Server::of(api, settings);
    let addresses = match lookup(&server) {
        Ok(addresses) => addresses,
        Err(check) => return [check, not_tried(connection, name_lookup), not_tried(tls_id, name_lookup)],
    };
    let list = addresses.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", ");
    let found = Check::ok(name_lookup, format!("{} is {list}", server.host));
    match connect(&server, &addresses) {
        Ok(check) => [found, check, tls(api, device, conf, settings)],
        Err(check) => [found, check, not_tried(tls_id, connection)],
    }
}

/// The machine that is connected to: the API's, or the proxy before it.
struct Server {
    host: String,
    port: u16,
    is_proxy: bool,
}

impl Server {
    fn of(api: &ApiUrl, settings: &Settings) -> Self {
        let proxy = settings.proxy.as_ref().filter(|_| api.is_tls());
        let (host, port) = proxy.map_or((api.host(), api.port()), |proxy| (proxy.host(), proxy.port()));
        Self { host: host.to_owned(), port, is_proxy: proxy.is_some() }
    }

    /// As messages name it.
    fn name(&self) -> String {
        format!("{}{}:{}", if self.is_proxy { "the proxy " } else { "" }, self.host, self.port)
    }
}

fn lookup(server: &Server) -> Result<Vec<SocketAddr>, Check> {
    let (send, found) = mpsc::channel();
    let (host, port) = (server.host.clone(), server.port);
    // In a thread of its own, for getaddrinfo(3) has no time limit.
    thread::spawn(move || send.send((host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)));
    let failed = |detail: String| {
        Err(Check::failed("name-lookup", format!("{}: {}{detail}", server.host, Transport::NameLookup)))
    };
    match found.recv_timeout(PATIENCE) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => failed(String::new()),
        Ok(Err(error)) => failed(format!(" ({error})")),
        Err(_) => failed(format!(" (no answer in {} s)", PATIENCE.as_secs())),
    }
}

/// Tries all addresses at once: those of a network that does not work (IPv6 mostly) would take up the time of the others.
fn connect(server: &Server, addresses: &[SocketAddr]) -> Result<Check, Check> {
    let (send, results) = mpsc::channel();
    for address in addresses.iter().copied() {
        let send = send.clone();
        thread::spawn(move || send.send((address, TcpStream::connect_timeout(&address, PATIENCE).map(drop))));
    }
    drop(send);
    let mut last = Transport::Other;
    for (address, result) in results {
        match result {
            Ok(()) if server.is_proxy => return Ok(Check::ok("connection", format!("the proxy {address} answers"))),
            Ok(()) => return Ok(Check::ok("connection", format!("{address} answers"))),
            Err(error) => last = Transport::of_io(error.kind()).unwrap_or(Transport::Other),
        }
    }
    Err(Check::failed("connection", format!("{}: {last}", server.name())))
}

/// TLS, tried with the one request that needs no credentials; its answer also tells the time.
fn tls(api: &ApiUrl, device: &Device, conf: Option<&DeviceConf>, settings: &Settings) -> Check {
    let http = match device.client(api, settings, Arc::new(device.true_time(conf)), None) {
        Ok(http) => http,
        Err(error) => return Check::failed("tls", chain(&error)),
    };
    match keys::fetch(http.as_ref(), false, Ok(PATIENCE)) {
        Ok(_) if !api.is_tls() => Check::warning("tls", "plain http: nothing proves who the server is"),
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

fn token(device: &Device, known: &Known) -> Check {
    let (now, folder) = (device.moment(), device.paths.run_dir());
    match TokenCache::read(&folder) {
        Some(cache) if matches!(known, Known::Whole(conf, settings) if !cache.is_of(conf, settings)) => {
            Check::failed(TOKEN, "it is another account's, or another policy's; `azaion-agent boot` gets one")
        }
        None if is_denied(&folder.join(TOKEN_FILE)) => {
            let message = format!("only root and the group {GROUP} can read the token: {NEEDS_ROOT}");
            Check::warning(TOKEN, message)
        }
        None => Check::failed(TOKEN, "there is none yet; `azaion-agent boot` or the next run of the timer gets one"),
        Some(cache) if cache.left(&now).is_zero() => Check::failed(TOKEN, "it has run out; see readiness"),
        Some(cache) => {
            let user = cache.user_id.as_ref().map(|id| format!(", user {id}")).unwrap_or_default();
            let text = format!("valid for {} s more, signature {}{user}", cache.left(&now).as_secs(), cache.signature);
            Check::ok(TOKEN, text)
        }
    }
}

/// Whether a file is there that the caller may not read.
fn is_denied(path: &Path) -> bool {
    File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn readiness_check(device: &Device) -> (Check, Exit) {
    let check = |check| (check, Exit::Later);
    match Readiness::read(&device.paths.run_dir()) {
        None => {
            check(Check::failed(READINESS, "the agent has not run since this boot; is azaion-agent.timer enabled?"))
        }
        Some(Readiness { ready: true, since, held, .. }) => {
            let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
            let held = if held { ", held: no token is renewed" } else { "" };
            check(Check::ok(READINESS, format!("ready{since}{held}")))
        }
        Some(Readiness { code, reason, .. }) => {
            let exit = code.map_or(Exit::Later, readiness::exit_of);
            (Check::failed(READINESS, reason.unwrap_or_default()), exit)
        }
    }
}
