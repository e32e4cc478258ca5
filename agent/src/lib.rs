//! What a Jetson and the host that provisions it share, and what only the Jetson does.
//!
//! [`common`] and [`api`] are the shared part: the identity that follows from a serial, the `device.conf` format, the client of the
//! admin API. The host tool depends on this part alone, so it writes exactly what the device reads.
//!
//! [`device`] (feature `device`) is what the binary `azaion-agent` dispatches to.

pub mod api;
#[cfg(feature = "device")]
pub mod cli;
pub mod common;
#[cfg(feature = "device")]
pub mod device;
#[cfg(feature = "simulation")]
pub mod simulation;
