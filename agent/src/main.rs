//! The program; what it does is in the library.

use std::alloc::System;
use std::process::ExitCode;

use azaion_agent::common::exit::exit_on_panic;
use azaion_agent::common::hardening::no_core_dumps;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is freed. Secrets in our own values wipe themselves; the libraries for HTTP, TLS and JSON copy them into
/// buffers that nobody else wipes.
#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    exit_on_panic();
    no_core_dumps();
    azaion_agent::cli::run_command_line().into()
}
