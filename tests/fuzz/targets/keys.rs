//! Fuzzes the key set parser: it never panics, and returns only keys for ES256.
#![no_main]

use azaion_agent::api::keys::usable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(keys) = usable(input) {
        assert!(!keys.is_empty());
    }
});
