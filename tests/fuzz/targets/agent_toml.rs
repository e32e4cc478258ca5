//! Fuzzes the `agent.toml` parser with arbitrary bytes: it never panics, and every accepted deadline is within bounds.
#![no_main]

use std::path::Path;
use std::time::Duration;

use azaion_agent::device::settings::Settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    if let Ok(settings) = Settings::parse(input, Path::new("agent.toml")) {
        assert!((Duration::from_secs(1)..=Duration::from_hours(1)).contains(&settings.deadline()));
    }
});
