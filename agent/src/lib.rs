//! What a Jetson and the station that provisions it share, and what only the Jetson does.
//!
//! The shared part (always built): the identity derived from a serial, the `device.conf` format, the
//! login client, the token checks, the retry policy, and one helper each for the private atomic write,
//! the HTTP client and the clock. The host tool depends on this part alone, so it writes exactly what
//! the device reads.
//!
//! The device's part (feature `device`): [`device`], which the binary `azaion-agent` dispatches to.

pub mod api_url;
pub mod check;
pub mod clock;
#[cfg(feature = "device")]
pub mod device;
pub mod device_conf;
mod es256;
pub mod exit;
pub mod fault;
pub mod hardening;
pub mod history;
pub mod http;
pub mod identity;
pub mod json;
pub mod keys;
pub mod plain_text;
pub mod private_file;
pub mod proxy_url;
pub mod retry;
#[cfg(feature = "schema")]
pub mod schema;
pub mod session;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod stderr_log;
pub mod token;
pub mod transport;
pub mod usage;
