//! Prevents passwords and tokens in memory from being written to a disk.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

/// Disables core dumps of this process, and access to its memory by other processes of the same user
/// (`PR_SET_DUMPABLE`, prctl(2)).
pub fn no_core_dumps() {
    for result in [setrlimit(Resource::RLIMIT_CORE, 0, 0), set_dumpable(false)] {
        if let Err(errno) = result {
            log::warn!("core dumps can't be switched off: {errno}");
        }
    }
}
