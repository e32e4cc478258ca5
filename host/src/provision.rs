//! Provisions one device: an account on the API, and its `device.conf` in each of the device's targets.
//!
//! serial → identity → intent in the targets → API → report. [`by_serial`] has that order for an identity that follows from the serial,
//! [`server_assigned`] the one for an identity that the server makes.

pub(crate) mod adoption;
pub(crate) mod by_serial;
pub(crate) mod intent;
pub(crate) mod job;
pub(crate) mod server_assigned;
mod targets;
