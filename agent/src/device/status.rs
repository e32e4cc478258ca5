//! `azaion-agent status`: checks each step from `device.conf` to readiness, and prints one line per check.
//!
//! Without root it checks what everybody may read, and prints a warning for each check that needs root.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::api::fault::chain;
use crate::api::url::ApiUrl;
use crate::common::check::{self, Check};
use crate::common::device_conf::DeviceConf;
use crate::common::exit::Exit;

use super::board::{self, Board};
use super::cache::TokenCache;
use super::files::GROUP;
use super::paths::TOKEN_FILE;
use super::readiness::{self, Readiness};
use super::run::{Device, How, NotReady, Ready, run};
use super::settings::Settings;

mod network;

const CONFIGURATION: &str = "configuration";
const CLOCK: &str = "clock";
const TOKEN: &str = "token";
const READINESS: &str = "readiness";
/// The checks of the network, in the order in which a call needs them.
const NETWORK: [&str; 3] = ["name-lookup", "connection", "tls"];
/// The advice in the message of a check that needs files which only root can read.
const NEEDS_ROOT: &str = "run this as root";

/// The part of the configuration that the caller can read.
enum Known {
    /// All of it, and it is valid.
    Whole(DeviceConf, Settings),
    /// `agent.toml` alone, because the caller may not read `device.conf`; and the API that `ready.json` names, if any.
    Public(Option<ApiUrl>, Settings),
    /// It is not valid.
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

/// Returns the ids of all checks, in their order.
#[cfg(feature = "schema")]
pub(super) fn ids() -> Vec<&'static str> {
    [CONFIGURATION, CLOCK].into_iter().chain(NETWORK).chain([TOKEN, READINESS]).collect()
}

/// Prints all checks, one line each, and returns the exit code of the first that failed.
pub fn print(device: &Device, login: bool, json: bool) -> Exit {
    let (checks, exit) = report(device, login);
    check::print(&checks, json).map_or(Exit::Internal, |()| exit)
}

/// Runs all checks. Returns them with the exit code of the first that failed.
fn report(device: &Device, login: bool) -> (Vec<Check>, Exit) {
    let (known, configuration) = configuration(device);
    let mut checks = vec![(configuration, Exit::Config), (clock(device, known.conf()), Exit::Later)];
    checks.extend(network::checks(device, &known).map(|check| (check, Exit::Later)));
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

/// Reads the configuration. Returns what the caller can read of it, and the check of it.
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
    let Some(conf) = conf else { return public_configuration(device, settings) };
    let serial = conf.serial.as_deref().unwrap_or("a device without serial");
    let who = format!("{serial}, {} at {}", conf.email, conf.api_url);
    let check = match board::check(&device.paths, &conf) {
        Err(error) => return failed(&NotReady::from(error)),
        Ok(Board::Any) => Check::ok(CONFIGURATION, who),
        Ok(Board::Right(module)) => Check::ok(CONFIGURATION, format!("{who}, on the module {module}")),
        Ok(Board::Unknown(why)) => {
            Check::warning(CONFIGURATION, format!("{who}; cannot check that this is the module in device.conf: {why}"))
        }
    };
    (Known::Whole(conf, settings), check)
}

/// Returns the same for a caller who may not read `device.conf`: what `ready.json` says of the last run.
fn public_configuration(device: &Device, settings: Settings) -> (Known, Check) {
    let file = device.paths.device_conf();
    let Readiness { serial, email, api_url, .. } = Readiness::read(&device.paths.run_dir()).unwrap_or_default();
    let who = [serial.as_deref(), email.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let at = api_url.as_deref().map(|api| format!(" at {api}")).unwrap_or_default();
    let last = if who.is_empty() { String::new() } else { format!("; according to the last run it is {who}{at}") };
    let message = format!("only root can read {}; {NEEDS_ROOT}{last}", file.display());
    let api = api_url.and_then(|api| api.parse().ok());
    (Known::Public(api, settings), Check::warning(CONFIGURATION, message))
}

/// Checks the system clock against the time floor.
fn clock(device: &Device, conf: Option<&DeviceConf>) -> Check {
    let (wall, floor) = (device.machine.wall(), device.true_time(conf).floor());
    if wall < floor {
        return Check::warning(
            CLOCK,
            format!(
                "the clock says {wall}, but the true time is later than {floor}; the agent uses the time of the API's answers"
            ),
        );
    }
    if device.machine.is_synchronised() {
        return Check::ok(CLOCK, format!("{wall}, synchronised"));
    }
    Check::ok(CLOCK, format!("{wall}, not synchronised; the agent uses the time of the API's answers"))
}

/// Checks the cached token.
fn token(device: &Device, known: &Known) -> Check {
    let (now, directory) = (device.moment(), device.paths.run_dir());
    match TokenCache::read(&directory) {
        Some(cache) if matches!(known, Known::Whole(conf, settings) if !cache.is_of(conf, settings)) => Check::failed(
            TOKEN,
            "the token belongs to another account, or does not agree with agent.toml; run `azaion-agent boot` to get a new one",
        ),
        None if is_denied(&directory.join(TOKEN_FILE)) => {
            let message = format!("only root and the group {GROUP} can read the token; {NEEDS_ROOT}");
            Check::warning(TOKEN, message)
        }
        None => Check::failed(
            TOKEN,
            "there is no token yet; wait for the next run of azaion-agent.timer, or run `azaion-agent boot`",
        ),
        Some(cache) if cache.left(&now).is_zero() => {
            Check::failed(TOKEN, "the token has expired; see the check readiness for the reason")
        }
        Some(cache) => {
            let user = cache.user_id.as_ref().map(|id| format!(", user {id}")).unwrap_or_default();
            let text = format!("valid for {} s more, signature {}{user}", cache.left(&now).as_secs(), cache.signature);
            Check::ok(TOKEN, text)
        }
    }
}

/// Returns whether the file exists, but the caller may not read it.
fn is_denied(path: &Path) -> bool {
    File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Checks what the last run wrote to `ready.json`.
fn readiness_check(device: &Device) -> (Check, Exit) {
    let check = |check| (check, Exit::Later);
    match Readiness::read(&device.paths.run_dir()) {
        None => check(Check::failed(
            READINESS,
            "the agent has not run since this boot; check `systemctl status azaion-agent.timer`",
        )),
        Some(Readiness { ready: true, since, held, .. }) => {
            let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
            let held = if held { ", held: tokens are not renewed" } else { "" };
            check(Check::ok(READINESS, format!("ready{since}{held}")))
        }
        Some(Readiness { code, reason, .. }) => {
            let exit = code.map_or(Exit::Later, readiness::exit_of);
            (Check::failed(READINESS, reason.unwrap_or_default()), exit)
        }
    }
}
