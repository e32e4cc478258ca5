//! The program; what it does is in the library.

use std::process::ExitCode;

use azaion_agent::exit::exit_on_panic;
use azaion_agent::hardening::no_core_dumps;

fn main() -> ExitCode {
    exit_on_panic();
    no_core_dumps();
    azaion_provision::run().into()
}
