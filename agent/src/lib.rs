//! Library of the Jetson agent; its shared modules are also used by the host tool.
//!
//! [`common`] and [`api`] are shared with the host tool: the identity derived from a serial, the `device.conf` format, the client
//! of the admin API. The host tool depends only on these two modules, so it writes exactly what the device reads.
//!
//! [`device`] (feature `device`) implements the commands of the binary `azaion-agent`.

pub mod api;
#[cfg(feature = "device")]
pub mod cli;
pub mod common;
#[cfg(feature = "device")]
pub mod device;
#[cfg(feature = "simulation")]
pub mod simulation;
