//! Entry point of `azaion-provision`; the implementation is in the library.

use std::alloc::System;
use std::process::ExitCode;

use azaion_agent::common::exit::exit_on_panic;
use azaion_agent::common::hardening::no_core_dumps;
use zeroizing_alloc::ZeroAlloc;

/// Zeroes all memory when it is freed. Our own types for secrets zero themselves; the libraries for HTTP, TLS and JSON copy secrets
/// into buffers that nothing else zeroes.
#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    exit_on_panic();
    no_core_dumps();
    azaion_provision::run().into()
}
