//! Provisions one device: creates its account on the API, and writes its `device.conf` into each of its targets.
//!
//! The steps are serial → identity → intent in the targets → API → report. [`by_serial`] has them for an identity derived from the serial,
//! [`server_assigned`] for an identity created by the server.

pub(crate) mod adoption;
pub(crate) mod by_serial;
pub(crate) mod intent;
pub(crate) mod job;
pub(crate) mod server_assigned;
mod targets;
