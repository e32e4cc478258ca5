//! Why an archive can't be used.

pub use crate::target::image::problem::Problem;
use Problem::Refused;

pub(in crate::target) const fn damaged(how: &'static str) -> Problem {
    Problem::Damaged { what: "tar archive", how, advice: "generate the images again" }
}

pub(super) const TOO_MANY: Problem =
    Refused("has millions of members, as no root file system does; provision the rootfs directory");
