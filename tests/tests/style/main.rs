//! What holds for the source itself: layers without circles, and files that fit a head.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod layout;
