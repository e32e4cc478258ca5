//! Sets the build time of the agent, a time that has certainly passed when the agent runs (its time floor).
//!
//! The build time is `SOURCE_DATE_EPOCH` if it is set, else the time of the last commit, else, outside a checkout, the
//! release date of the oldest supported compiler. It is never the clock of the build machine, so that builds are
//! reproducible.

use std::process::Command;

/// The day on which Rust 1.95 was made, the oldest supported compiler: 14 April 2026, UTC.
const RUST_1_95: u64 = 1_776_124_800;

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=Cargo.toml");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| std::path::Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().filter(|text| !text.is_empty());
    let text = given.or_else(|| git(&["log", "-1", "--format=%ct"]));
    match text.map_or(Ok(RUST_1_95), |text| text.trim().parse()) {
        Ok(epoch) => println!("cargo::rustc-env=AZAION_BUILD_EPOCH={epoch}"),
        Err(_) => println!("cargo::error=SOURCE_DATE_EPOCH must be seconds since 1970"),
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
