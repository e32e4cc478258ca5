//! Fuzzes the `token.json` parser with arbitrary bytes: it never panics, and never extends the validity of a token.
#![no_main]

use std::time::Duration;

use azaion_agent::device::cache::{BootMoment, TokenCache};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(cache) = serde_json::from_slice::<TokenCache>(input) else { return };
    let at = |seconds| BootMoment { boot_id: "b".to_owned(), since_boot: Duration::from_secs(seconds) };
    let (early, late) = (cache.left(&at(100)), cache.left(&at(200)));
    assert!(late <= early);
    assert!(!cache.is_fresh(&at(100)) || !early.is_zero());
});
