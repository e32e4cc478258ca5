//! Fuzzes the `history.json` parser with arbitrary bytes: it never panics, and its printed form is bounded and has no
//! control characters.
#![no_main]

use azaion_agent::common::history::{History, LARGEST, MOST};
use azaion_agent::common::plain_text::is_control;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(history) = History::parse(input) else { return };
    assert!(input.len() <= LARGEST && history.changes().len() <= MOST);
    for change in history.changes() {
        let line = change.to_string();
        assert!(line.len() < 1000 && !line.contains(is_control));
    }
});
