//! The network checks of `azaion-agent status`: name lookup, connection and TLS.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::api::fault::{Class, Problem, chain};
use crate::api::keys;
use crate::api::token::Keys;
use crate::api::transport::Transport;
use crate::api::url::ApiUrl;
use crate::common::check::Check;
use crate::common::device_conf::DeviceConf;

use super::{Known, NEEDS_ROOT, NETWORK};
use crate::device::hold::held;
use crate::device::machine::Device;
use crate::device::settings::Settings;

/// The longest time for a name lookup or a connection.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the checks, if the address of the API is known and the device is not held.
pub(super) fn checks(device: &Device, known: &Known) -> [Check; 3] {
    let held = known.settings().and_then(|settings| held(&device.paths, &settings.hold_file));
    if let Some(why) = held {
        let message = format!("not tried: the device is held {why}");
        return NETWORK.map(|id| Check::warning(id, message.as_str()));
    }
    match known {
        Known::Whole(conf, settings) => check_api(&conf.api_url, device, Some(conf), settings),
        Known::Public(Some(api), settings) => check_api(api, device, None, settings),
        Known::Public(None, _) => {
            let message = format!("not tried: only root can read the address of the API; {NEEDS_ROOT}");
            NETWORK.map(|id| Check::warning(id, message.as_str()))
        }
        Known::Unusable => NETWORK.map(|id| Check::failed(id, "not tried: the configuration is not valid")),
    }
}

/// Checks name lookup, connection and TLS, each only if the one before succeeded.
fn check_api(api: &ApiUrl, device: &Device, conf: Option<&DeviceConf>, settings: &Settings) -> [Check; 3] {
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

/// The host to connect to: that of the API, or the proxy.
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

    /// Returns the name for messages.
    fn name(&self) -> String {
        format!("{}{}:{}", if self.is_proxy { "the proxy " } else { "" }, self.host, self.port)
    }
}

/// Looks up the addresses of the host.
fn lookup(server: &Server) -> Result<Vec<SocketAddr>, Check> {
    let (send, found) = mpsc::channel();
    let (host, port) = (server.host.clone(), server.port);
    // getaddrinfo(3) has no timeout, so it runs in its own thread.
    thread::spawn(move || send.send((host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)));
    let failed = |detail: String| {
        Err(Check::failed("name-lookup", format!("{}: {}{detail}", server.host, Transport::NameLookup)))
    };
    match found.recv_timeout(TIMEOUT) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => failed(String::new()),
        Ok(Err(error)) => failed(format!(" ({error})")),
        Err(_) => failed(format!(" (no answer in {} s)", TIMEOUT.as_secs())),
    }
}

/// Connects to all addresses at the same time, so that a network that does not work (often IPv6) does not use up the
/// timeout.
fn connect(server: &Server, addresses: &[SocketAddr]) -> Result<Check, Check> {
    let (send, results) = mpsc::channel();
    for address in addresses.iter().copied() {
        let send = send.clone();
        thread::spawn(move || send.send((address, TcpStream::connect_timeout(&address, TIMEOUT).map(drop))));
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

/// Checks TLS with the one request that needs no credentials. Its answer also gives the time.
fn tls(api: &ApiUrl, device: &Device, conf: Option<&DeviceConf>, settings: &Settings) -> Check {
    let http = match device.client(api, settings, Arc::new(device.true_time(conf)), None) {
        Ok(http) => http,
        Err(error) => return Check::failed("tls", chain(&error)),
    };
    match keys::fetch(http.as_ref(), false, Ok(TIMEOUT)) {
        Ok(_) if !api.is_tls() => Check::warning("tls", "plain http: the identity of the server is not verified"),
        Ok(Keys::Set(keys)) => Check::ok(
            "tls",
            format!("the server's certificate is valid, and the server publishes {} key(s)", keys.len()),
        ),
        Ok(Keys::None) => Check::warning(
            "tls",
            "the server's certificate is valid, but the server publishes no keys: tokens are unverified",
        ),
        Err(fault) if matches!(fault.problem, Problem::Transport { .. }) => Check::failed("tls", chain(&fault)),
        Err(fault) if fault.class() == Class::Later => Check::warning("tls", chain(&fault)),
        Err(fault) => Check::failed("tls", chain(&fault)),
    }
}
