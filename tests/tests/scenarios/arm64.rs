//! The shipped binary.

use std::fs;
use std::process::Command;

use azaion_tests::programs::arm64_agent;

/// Maximum size of the agent in bytes.
const LARGEST: u64 = 2_600_000;

// Promise: one static file, for aarch64, small enough for any image.
#[test]
fn the_agent_is_static_and_small() -> anyhow::Result<()> {
    let agent = arm64_agent()?;
    let size = fs::metadata(&agent)?.len();
    println!("azaion-agent for aarch64: {size} bytes of {LARGEST}");
    assert!(size <= LARGEST, "{size} bytes");
    let headers = Command::new("readelf").args(["-hlW"]).arg(&agent).output()?.stdout;
    let headers = String::from_utf8(headers)?;
    assert!(headers.contains("AArch64"), "{headers}");
    assert!(!headers.contains("INTERP"), "it wants a dynamic linker: {headers}");
    Ok(())
}
