//! Tests of the Debian packages and their systemd units, on real releases of Debian.
//!
//! Tests that need root (a real systemd in a container) pass without testing anything otherwise.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod boot;
mod container;
mod content;
mod host;
mod lifecycle;
mod migration;
mod sandbox;
mod sbom;
mod socket;
mod tree;
mod units;
