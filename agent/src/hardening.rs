//! Keeping passwords and tokens in memory from ending up on a disk, and from staying there.

use std::alloc::System;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is given back, in every program that this library is a part of. What is secret in our own
/// values wipes itself; but the libraries for HTTP, TLS and JSON copy it into buffers of theirs, which nobody else wipes.
#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);

/// Switches core dumps off for this process, and with them its memory for other processes of the same user
/// (`PR_SET_DUMPABLE`, prctl(2)).
pub fn no_core_dumps() {
    for result in [setrlimit(Resource::RLIMIT_CORE, 0, 0), set_dumpable(false)] {
        if let Err(errno) = result {
            log::warn!("core dumps can't be switched off: {errno}");
        }
    }
}
