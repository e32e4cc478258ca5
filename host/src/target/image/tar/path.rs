//! The paths of members and of link targets.

use super::problem::Problem::{self, Refused};
use super::problem::damaged;

/// The most bytes of a name, and of a path or a symlink target, on Linux.
const MOST_NAME: usize = 255;
pub(super) const MOST_PATH: usize = 4095;

pub(super) const BAD_PATH: Problem = damaged("the path or link target of a member is not valid on Linux");

/// Splits a path into its names, as tar reads it: empty names and `.` are skipped.
///
/// # Errors
/// There is a `..` in it, or a name or the path is too long.
pub(super) fn names(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let names: Vec<_> = path.split(|&byte| byte == b'/').filter(|&name| !matches!(name, b"" | b".")).collect();
    if names.contains(&&b".."[..]) {
        return Err(Refused("is a tar archive with `..` in a name; pack it with plain `tar -cpf`"));
    }
    if path.len() > MOST_PATH || names.iter().any(|name| name.len() > MOST_NAME) {
        return Err(BAD_PATH);
    }
    Ok(names)
}

/// Removes all slashes at the end of a path.
pub(super) fn without_slashes(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    path
}

/// Returns whether a path can only be that of a directory: it ends with a slash or with `.`.
pub(super) fn is_directory_path(path: &[u8]) -> bool {
    matches!(path.rsplit(|&byte| byte == b'/').next(), Some(b"" | b"."))
}
