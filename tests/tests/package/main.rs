//! The Debian packages and the units, on real releases of Debian.
//!
//! What needs root (systemd's own manager in a container) passes without having tried anything for others.
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
