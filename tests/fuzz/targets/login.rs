//! Fuzzes the parser of login answers: it never panics, and its messages never contain a token.
#![no_main]

use azaion_agent::api::session::tokens_of;
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;

fuzz_target!(|input: &[u8]| {
    let Ok(tokens) = tokens_of(input) else { return };
    let access = tokens.access.expose_secret();
    // Shorter tokens occur in any text.
    assert!(access.len() < 16 || !format!("{tokens:?}").contains(access));
});
