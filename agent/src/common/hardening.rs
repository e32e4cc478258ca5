//! Keeping passwords and tokens in memory from ending up on a disk.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

/// Switches core dumps off for this process, and with them its memory for other processes of the same user
/// (`PR_SET_DUMPABLE`, prctl(2)).
pub fn no_core_dumps() {
    for result in [setrlimit(Resource::RLIMIT_CORE, 0, 0), set_dumpable(false)] {
        if let Err(errno) = result {
            log::warn!("core dumps can't be switched off: {errno}");
        }
    }
}
