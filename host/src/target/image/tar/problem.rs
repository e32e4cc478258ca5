//! Errors of archives.

pub use crate::target::image::problem::Problem;
use Problem::Refused;

/// Returns the error for a malformed archive.
pub(in crate::target) const fn damaged(how: &'static str) -> Problem {
    Problem::Damaged { what: "tar archive", how, advice: "generate the images again" }
}

pub(super) const TOO_MANY: Problem =
    Refused("has millions of members, more than any root file system; provision the rootfs directory");
