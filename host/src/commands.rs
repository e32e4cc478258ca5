//! The commands, one file each: from the parsed options to the output.

pub(crate) mod batch;
pub(crate) mod check;
pub(crate) mod clear;
pub(crate) mod device;
pub(crate) mod inspect;
mod module_serial;
