//! The answer to a login: never a panic, and never a token in what is said of it.
#![no_main]

use azaion_agent::api::session::tokens_of;
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;

fuzz_target!(|input: &[u8]| {
    let Ok(tokens) = tokens_of(input) else { return };
    let access = tokens.access.expose_secret();
    // Shorter ones are part of any text.
    assert!(access.len() < 16 || !format!("{tokens:?}").contains(access));
});
