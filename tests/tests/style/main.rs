//! Checks of the source code itself: no import cycles, a maximum file length, and the words of its prose.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod layout;
mod prose;
