//! Images as targets: the real program against images made by mke2fs, debugfs, the kernel and img2simg, with debugfs,
//! e2fsck, a loop mount and simg2img as witnesses; archives made by GNU tar, which unpacks them, too; and both compressed with
//! zstd, which decompresses them.
//!
//! What needs a loop device passes with nothing tried for those who are not root.
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
