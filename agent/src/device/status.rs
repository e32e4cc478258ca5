//! `azaion-agent status`: where on the way from `device.conf` to readiness it fails, one line a station.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crate::api_url::ApiUrl;
use crate::check::{self, Check};
use crate::device_conf::DeviceConf;
use crate::exit::Exit;
use crate::fault::{Class, Problem, chain};
use crate::keys;
use crate::transport::Transport;

use super::cache::TokenCache;
use super::readiness::Readiness;
use super::run::{Device, How, run};
use super::settings::Settings;

/// How long a look-up or a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints all checks, a line each; the exit code of the first that failed.
pub fn print(device: &Device, login: bool, json: bool) -> Exit {
    let (checks, exit) = report(device, login);
    check::print(&checks, json).map_or(Exit::Internal, |()| exit)
}

/// All checks, and the exit code of the first that failed. Logs in only where `login` says so.
fn report(device: &Device, login: bool) -> (Vec<Check>, Exit) {
    let mut checks = Vec::new();
    let conf = match configuration(device) {
        Ok((conf, settings, check)) => {
            checks.push((check, Exit::Config));
            Some((conf, settings))
        }
        Err(check) => {
            checks.push((check, Exit::Config));
            None
        }
    };
    checks.push((clock(device, conf.as_ref().map(|(conf, _)| conf)), Exit::Later));
    if let Some((conf, settings)) = &conf {
        checks.extend(network(device, conf, settings).into_iter().map(|check| (check, Exit::Later)));
    }
    let logged_in = login.then(|| run(device, How { now: true, ..How::default() }));
    checks.push(match logged_in {
        Some(Err(error)) => (Check::failed("token", chain(&error)), error.exit()),
        _ => (token(device), Exit::Later),
    });
    checks.push(readiness(device));
    let failed = checks.iter().find(|(check, _)| check.status == check::Status::Failed);
    let exit = failed.map_or(Exit::Done, |(_, exit)| *exit);
    (checks.into_iter().map(|(check, _)| check).collect(), exit)
}

fn configuration(device: &Device) -> Result<(DeviceConf, Settings, Check), Check> {
    let conf = DeviceConf::read(&device.paths.device_conf()).map_err(|e| Check::failed("configuration", chain(&e)))?;
    let settings = Settings::read(&device.paths.settings()).map_err(|e| Check::failed("configuration", chain(&e)))?;
    let serial = conf.serial.as_deref().unwrap_or("a unit without serial");
    let check = Check::ok("configuration", format!("{serial}, {} at {}", conf.email, conf.api_url));
    Ok((conf, settings, check))
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
fn network(device: &Device, conf: &DeviceConf, settings: &Settings) -> Vec<Check> {
    let addresses = match lookup(&conf.api_url) {
        Ok(addresses) => addresses,
        Err(check) => return vec![check],
    };
    let list = addresses.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", ");
    let mut checks = vec![Check::ok("name-lookup", format!("{} is {list}", conf.api_url.host()))];
    match connect(&conf.api_url, &addresses) {
        Ok(check) => checks.push(check),
        Err(check) => {
            checks.push(check);
            return checks;
        }
    }
    checks.push(tls(device, conf, settings));
    checks
}

fn lookup(api: &ApiUrl) -> Result<Vec<SocketAddr>, Check> {
    let found = (api.host(), api.port()).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    match found {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Ok(_) => Err(Check::failed("name-lookup", format!("{}: {}", api.host(), Transport::NameLookup))),
        Err(error) => Err(Check::failed("name-lookup", format!("{}: {} ({error})", api.host(), Transport::NameLookup))),
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
    match keys::fetch(&http, PATIENCE) {
        Ok(keys::Keys::Set(keys)) => {
            Check::ok("tls", format!("the server is who it says, and publishes {} key(s)", keys.len()))
        }
        Ok(keys::Keys::None) => {
            Check::warning("tls", "the server is who it says, but publishes no keys: tokens are unverified")
        }
        Err(fault) if matches!(fault.problem, Problem::Transport { .. }) => Check::failed("tls", chain(&fault)),
        Err(fault) if fault.class() == Class::Later => Check::warning("tls", chain(&fault)),
        Err(fault) => Check::failed("tls", chain(&fault)),
    }
}

fn token(device: &Device) -> Check {
    let now = device.moment();
    match TokenCache::read(&device.paths.run_dir()) {
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
