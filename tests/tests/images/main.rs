//! Images as targets: the real program on images made by mke2fs, debugfs, the kernel and img2simg, checked by debugfs,
//! e2fsck, a loop mount and simg2img; on archives made and unpacked by GNU tar; and on both compressed and decompressed
//! by zstd.
//!
//! Tests that need a loop device pass without testing anything if not run as root.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod archive;
mod assigned;
mod bench;
mod fixtures;
mod good;
mod hostile;
mod killed;
mod life;
mod odd;
mod oracle;
mod pairs;
mod power_cut;
mod recipe;
mod sparse;
mod sums;
mod tar;
mod together;
mod zstd;
