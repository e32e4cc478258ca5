//! Finds out what this machine can do, for tests that need more than a plain user has: they are reported as ignored where
//! it is missing, never as passed.
//!
//! - `root`: the tests run as root.
//! - `mounts`: as root, and mounts, loop devices and network namespaces work; in most containers they do not.
//! - `long`: `./tests/run --all`, which sets `AZAION_TESTS=all`.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// In a namespace of its own, so that nothing stays mounted.
const MOUNTS: &str = "
    truncate -s 1M image && /sbin/mkfs.ext4 -q -F image && mkdir -p mounted
    mount -o loop image mounted && mount -t tmpfs none mounted && ip link set lo up";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=AZAION_TESTS");
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mounts = root && works(MOUNTS);
    let long = env::var_os("AZAION_TESTS").is_some_and(|tests| tests == "all");
    for (name, is_set) in [("root", root), ("mounts", mounts), ("long", long)] {
        println!("cargo::rustc-check-cfg=cfg({name})");
        if is_set {
            println!("cargo::rustc-cfg={name}");
        }
    }
    if !root {
        println!("cargo::warning=not root: tests that need root or mounts are ignored");
    } else if !mounts {
        println!("cargo::warning=no mounts, loop devices or network namespaces here: tests that need them are ignored");
    }
}

fn works(script: &str) -> bool {
    let directory = env::var_os("OUT_DIR").unwrap_or_default();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "sh", "-ec", script]).current_dir(directory);
    command.output().is_ok_and(|output| output.status.success())
}
