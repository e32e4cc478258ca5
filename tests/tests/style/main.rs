//! Checks of the source code itself: no import cycles, and a maximum file length.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod layout;
