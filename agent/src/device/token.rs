//! `azaion-agent token`: prints a valid access token to standard output, for a person or for a client of the socket.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::api::fault::chain;
use crate::common::exit::Exit;
use crate::common::plain_text::write_json;

use super::announce;
use super::cache::{BootMoment, TokenCache};
use super::run::{Caller, Device, How, NotReady, Ready, run};
use super::settings::{DEFAULT_DEADLINE, Settings};

/// The longest that a client of the socket waits for a renewal; less where `agent.toml` has a shorter deadline.
/// `RuntimeMaxSec=` of the unit allows for it.
const LONGEST_RENEWAL: Duration = Duration::from_mins(1);
/// The timeout of one write to a client. An answer fits into the buffer of a new connection, so that the write does not
/// block even if the client does not read, unless an admin has set very small buffers.
const LONGEST_WRITE: Duration = Duration::from_secs(5);

/// The answer to a client of the socket for whom there is no token.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Refusal {
    /// Exit code that says why, as those of `azaion-agent`.
    code: u8,
    /// Why, for people.
    reason: String,
}

/// Prints the token, or the whole cache as JSON.
pub fn print(device: &Device, json: bool) -> Exit {
    let found = cached(device).map_or_else(|| renewed(device, None).map(|(cache, _)| cache), Ok);
    let cache = match found.or_else(|error| still_valid(device, &error).ok_or(error)) {
        Ok(cache) => cache,
        Err(error) => {
            log::error!("{}", chain(&error));
            return error.exit();
        }
    };
    let mut out = io::stdout().lock();
    let written = if json {
        write_json(&mut out, &cache).and_then(|()| writeln!(out))
    } else {
        writeln!(out, "{}", cache.access_token.expose_secret())
    };
    written.map_or(Exit::Internal, |()| Exit::Done)
}

/// Answers one client of the socket with the cache, renewed first if needed, or with the reason why there is none.
///
/// The exit code is 0 for every answer, also for one without a token. Nothing is read from the client.
pub fn answer(device: &Device) -> Exit {
    if let Some(cache) = cached(device) {
        return send(&cache);
    }
    let settings = device.configuration().1;
    let deadline = settings.as_ref().map_or(DEFAULT_DEADLINE, Settings::deadline).min(LONGEST_RENEWAL);
    match renewed(device, Some(deadline)) {
        Ok((cache, ready)) => {
            announce::renewal(&ready);
            send(&cache)
        }
        Err(error) => still_valid(device, &error).map_or_else(|| refuse(&error), |cache| send(&cache)),
    }
}

/// Runs the agent, which renews the token if needed, and returns the token.
fn renewed(device: &Device, deadline: Option<Duration>) -> Result<(TokenCache, Ready), NotReady> {
    let mut ready = run(device, How { caller: Caller::Program, deadline, ..How::default() })?;
    let cache = ready.cache.take().ok_or(NotReady::Busy)?;
    Ok((cache, ready))
}

/// Returns a cached token that is still valid, if another run is renewing it or the renewal failed.
fn still_valid(device: &Device, error: &NotReady) -> Option<TokenCache> {
    error.keeps_valid_token().then(|| cached_if(device, |cache, now| !cache.left(now).is_zero())).flatten()
}

/// Answers one client of the socket with the reason why there is no token.
pub fn refuse(error: &NotReady) -> Exit {
    // The client reports the error. A log line per request would fill the journal while the API is down.
    log::debug!("{}", chain(error));
    send(&Refusal { code: error.exit().code(), reason: chain(error) })
}

/// Writes one JSON object, then end of file.
fn send(answer: &impl Serialize) -> Exit {
    let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
    let sent = write_json(&mut *bytes, answer).and_then(|()| {
        bytes.push(b'\n');
        write_to_client(&bytes)
    });
    if let Err(error) = sent {
        log::debug!("cannot send the answer to the client: {error}");
    }
    Exit::Done
}

fn write_to_client(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let client = UnixStream::from(out.as_fd().try_clone_to_owned()?);
    // Standard output is no socket if a person runs this. Then no timeout is needed.
    let is_socket = client.set_write_timeout(Some(LONGEST_WRITE)).is_ok();
    out.write_all(bytes).and_then(|()| out.flush())?;
    // systemd keeps the connection open until this process has ended, so the client needs the shutdown to see end of
    // file.
    if is_socket { client.shutdown(Shutdown::Write) } else { Ok(()) }
}

/// Returns the cached token if it is fresh; for a caller who may not read `device.conf`, if it is valid.
fn cached(device: &Device) -> Option<TokenCache> {
    cached_if(device, TokenCache::is_fresh)
}

/// Returns the cached token if it belongs to this account and `is_usable`; for a caller who may not read `device.conf`,
/// if it is valid.
fn cached_if(device: &Device, is_usable: fn(&TokenCache, &BootMoment) -> bool) -> Option<TokenCache> {
    let now = device.moment();
    let cache = TokenCache::read(&device.paths.run_dir())?;
    let (conf, settings) = device.configuration();
    let settings = settings.ok()?;
    let accepted = match conf {
        Ok(conf) => cache.is_of(&conf, &settings) && is_usable(&cache, &now),
        Err(error) if error.is_permission_denied() => !cache.left(&now).is_zero(),
        Err(_) => false,
    };
    accepted.then_some(cache)
}
