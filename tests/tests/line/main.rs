//! The production line, device after device: the exact command lines of `docs/line.md` and `docs/runbook.md`, run in a
//! miniature `Linux_for_Tegra` whose flash scripts are stand-ins: they read, check and write what the real ones of a
//! release do.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod docs;
mod factory;
mod flows;
mod images;
mod mistakes;
mod runbook;
