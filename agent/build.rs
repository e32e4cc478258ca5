//! Tells the agent when it was built: a time that has certainly passed when it runs (its clock floor).
//!
//! `SOURCE_DATE_EPOCH` decides where it is set, so that a build can be reproduced; else the time of the last
//! commit; else, outside a checkout, the time of the manifest.

use std::process::Command;
use std::time::UNIX_EPOCH;

fn main() {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=Cargo.toml");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| std::path::Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let epoch = given.or_else(|| git(&["log", "-1", "--format=%ct"])).and_then(|text| text.trim().parse().ok());
    println!("cargo:rustc-env=AZAION_BUILD_EPOCH={}", epoch.unwrap_or_else(manifest_time));
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn manifest_time() -> u64 {
    let modified = std::fs::metadata("Cargo.toml").and_then(|m| m.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |age| age.as_secs())
}
