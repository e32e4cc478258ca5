//! `azaion-agent token`: a valid access token on standard output.

use std::io::{self, Write};

use secrecy::ExposeSecret;

use crate::exit::Exit;
use crate::fault::chain;
use crate::plain_text::write_json;

use super::cache::TokenCache;
use super::run::{Caller, Device, How, NotReady, run};

/// Prints the token, or all of the cache as JSON.
pub fn print(device: &Device, json: bool) -> Exit {
    let cache = match cached(device).map_or_else(|| renewed(device), Ok) {
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

/// The token of a run, which renews it if needed.
fn renewed(device: &Device) -> Result<TokenCache, NotReady> {
    let how = How { caller: Caller::Program, ..How::default() };
    run(device, how)?.cache.ok_or(NotReady::Busy)
}

/// The token in the cache, if it will do: fresh, or at least valid for a caller who may read it but not renew it.
fn cached(device: &Device) -> Option<TokenCache> {
    let now = device.moment();
    let cache = TokenCache::read(&device.paths.run_dir())?;
    let (conf, settings) = device.configuration();
    let settings = settings.ok()?;
    let enough = match conf {
        Ok(conf) => cache.is_of(&conf, &settings) && cache.is_fresh(&now),
        Err(error) if error.is_permission_denied() => !cache.left(&now).is_zero(),
        Err(_) => false,
    };
    enough.then_some(cache)
}
