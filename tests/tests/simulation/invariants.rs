//! What must hold, whatever happens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use azaion_agent::api::http::{Answer, Call};
use azaion_agent::api::token::SKEW;
use azaion_agent::common::exit::Exit;
use azaion_agent::device::cache::TokenCache;
use azaion_agent::device::readiness::Readiness;
use azaion_agent::device::run::{Caller, Device, NotReady, Ready};
use azaion_tests::schemas;
use secrecy::{ExposeSecret, SecretString};

use super::api::{PASSWORD, REFRESH, time_at};
use super::device::HOLD_FILE;
use super::events::AFTER_OUTAGE;
use super::world::{World, obeys};

const SECOND: Duration = Duration::from_secs(1);
/// Consecutive refusals within a time, after which no more logins are made (`docs/contracts.md`).
const REFUSALS: [(usize, Duration); 2] = [(5, Duration::from_mins(5)), (9, Duration::from_hours(1))];
/// Maximum logins of the unit: its schedule begins with short waits of random length. The API's own limit is ten.
const LOGINS: (usize, Duration) = (20, Duration::from_mins(1));

/// Files with their modes.
const MODES: [(&str, u32); 6] = [
    ("run/azaion/token.json", 0o640),
    ("run/azaion/refresh.json", 0o600),
    ("run/azaion/ready.json", 0o644),
    ("run/azaion/backoff.json", 0o600),
    ("var/lib/azaion/first-boot.json", 0o644),
    ("var/lib/azaion/history.json", 0o644),
];

/// The state before a run.
pub(crate) struct Before {
    /// A token that is valid.
    valid: Option<SecretString>,
    is_unit: bool,
}

fn cache(world: &World) -> Option<TokenCache> {
    TokenCache::read(&world.root.join("run/azaion"))
}

fn is_accepted(world: &World, cache: &TokenCache) -> bool {
    let state = world.state();
    // `Date` has whole seconds; without it, the device's clock may differ by the permitted skew.
    let tolerance = if state.has_said_no_date { SKEW + SECOND } else { SECOND };
    state.api.accepts(cache.access_token.expose_secret(), time_at(state.now).minus(tolerance))
}

impl Before {
    pub(crate) fn of(world: &World, device: &Device) -> Self {
        let valid = cache(world).filter(|cache| !cache.left(&device.moment()).is_zero() && is_accepted(world, cache));
        let state = world.state();
        let is_unit = state.how.0.caller == Caller::Unit;
        Self { valid: valid.map(|cache| cache.access_token), is_unit }
    }
}

/// Returns whether `ready.json` says so, and the token exists.
pub(crate) fn is_ready(world: &World) -> bool {
    Readiness::read(&world.root.join("run/azaion")).is_some_and(|ready| ready.ready)
        && cache(world).is_some_and(|cache| is_accepted(world, &cache))
}

pub(crate) fn before_call(world: &World, call: &Call<'_>) {
    if world.root.join(HOLD_FILE).symlink_metadata().is_ok() {
        world.violated(format!("{} while the device is held", call.step()));
    }
    let (now, until, how) = {
        let mut state = world.state();
        state.calls += 1;
        let until = if state.is_run_current() { state.asked_until } else { Duration::ZERO };
        (state.now, until, state.how.0)
    };
    if call.path == "/login" {
        for (most, window) in REFUSALS {
            // The device counts whole seconds.
            let is_recent = |at: &&Duration| now + SECOND < **at + window;
            let refused = world.state().api.refusals.iter().filter(is_recent).count();
            if refused >= most {
                world.violated(format!("a login after {refused} refusals within {window:?}"));
            }
        }
    }
    // A run that started earlier may still request the keys.
    if now < until && obeys(how) && call.body.is_some() {
        world.violated(format!("{} {:?} before the API asked for it", call.step(), until.saturating_sub(now)));
    }
}

pub(crate) fn after_call(world: &World, answer: &Answer) {
    let state = &mut *world.state();
    let is_transient = matches!(answer.status, 401 | 407 | 408 | 423 | 425 | 429 | 500..=599);
    if let Some(wait) = answer.retry_after.filter(|_| is_transient && state.is_run_current()) {
        state.asked_until = state.now + wait;
        let (now, late) = (state.now, wait + wait / 5 + AFTER_OUTAGE);
        state.bound = state.bound.map(|(since, most)| (since, most.max((now + late).saturating_sub(since))));
    } else if state.api.refusals.last() == Some(&state.now) {
        state.asked_until = Duration::ZERO;
    }
}

/// Returns the most events within a time.
fn most(events: &[Duration], window: Duration) -> usize {
    let within = |start: Duration| events.iter().filter(|&&at| at >= start && at < start + window).count();
    events.iter().map(|&start| within(start)).max().unwrap_or_default()
}

pub(crate) fn after_run(world: &World, device: &Device, before: &Before, ended: &Result<Ready, NotReady>) {
    let readiness = Readiness::read(&world.root.join("run/azaion"));
    let cache = cache(world);
    let valid = cache.as_ref().is_some_and(|cache| !cache.left(&device.moment()).is_zero());
    let (accepted, is_ended) = cache.as_ref().map_or((false, false), |cache| {
        let is_ended = world.state().api.has_ended(cache.access_token.expose_secret());
        (is_accepted(world, cache), is_ended)
    });
    let is_asked = ended.as_ref().is_ok_and(|ready| ready.cache.is_some());
    if readiness.as_ref().is_some_and(|readiness| readiness.ready) {
        if !accepted && !is_ended && (is_asked || ended.is_err()) {
            world.violated(format!("ready.json says ready, and the API does not accept the token ({valid})"));
        }
    } else if is_asked {
        world.violated("a run ends ready, and ready.json does not say so");
    }
    let is_gone = |error: &NotReady| matches!(error, NotReady::File(error) if error.is_gone());
    let was_valid = before.valid.as_ref().is_some_and(|token| {
        let state = world.state();
        let token = token.expose_secret();
        state.api.accepts(token, time_at(state.now + SECOND)) && !state.api.has_refused_since(token)
    });
    if was_valid && !valid && !ended.as_ref().is_err_and(is_gone) && world.root.join("run/azaion").exists() {
        let reason = ended.as_ref().err().map(|error| azaion_agent::api::fault::chain(error));
        world.violated(format!("a valid token is lost without the API's refusal: {reason:?}"));
    }
    if ended.as_ref().is_err_and(|error| error.exit() == Exit::Internal) {
        world.violated("a run ends with 70");
    }
    limits(world, before.is_unit);
    let mut state = world.state();
    if ended.as_ref().is_ok_and(|ready| ready.is_renewed) {
        state.asked_until = Duration::ZERO;
    }
    state.noted_refusals = state.api.refusals.len();
}

fn limits(world: &World, is_unit: bool) {
    let found = {
        let state = world.state();
        let api = &state.api;
        // A person or a program may ask repeatedly.
        let recent = &api.unit_logins[api.unit_logins.len().saturating_sub(40)..];
        let logins = most(recent, LOGINS.1);
        let many = (is_unit && logins > LOGINS.0).then(|| format!("{logins} logins of the unit in {:?}", LOGINS.1));
        let reused = (api.reuses > 0).then(|| "a refresh token is used twice".to_owned());
        many.into_iter().chain(reused).collect::<Vec<String>>()
    };
    for what in found {
        world.violated(what);
    }
}

/// Checks that every file is complete and private.
pub(crate) fn files(world: &World) {
    if let Err(error) = schemas::check_files(&world.root, |_, _| false) {
        world.violated(format!("{error:#}"));
    }
    for (file, mode) in MODES {
        let path = world.root.join(file);
        if let Ok(metadata) = path.metadata()
            && metadata.permissions().mode() & 0o7777 != mode
        {
            world.violated(format!("{file} has mode {:o}", metadata.permissions().mode() & 0o7777));
        }
    }
}

/// Checks after a kill that `ready.json` and the token that it refers to both exist.
pub(crate) fn after_kill(world: &World) {
    files(world);
    let readiness = Readiness::read(&world.root.join("run/azaion"));
    if readiness.is_some_and(|readiness| readiness.ready)
        && cache(world).is_none()
        && world.root.join("run/azaion").exists()
    {
        world.violated("ready.json says ready, and there is no token");
    }
}

/// Returns whether a text contains a password, a token or a refresh token of a history.
pub(crate) fn is_secret(text: &str) -> bool {
    [PASSWORD, "eyJ", REFRESH].iter().any(|begin| text.contains(begin))
}

/// Checks that no secret is outside its file.
pub(crate) fn secrets(world: &World) {
    for path in all_files(&world.root) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_theirs = ["device.conf", "token.json", "refresh.json"].contains(&name);
        if !is_theirs && is_secret(&fs::read_to_string(&path).unwrap_or_default()) {
            world.violated(format!("a secret in {}", path.display()));
        }
    }
}

fn all_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}
