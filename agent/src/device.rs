//! What only the Jetson does: from `device.conf` to a token that the loader can read.
//!
//! `device.conf` → login → claims → cache → readiness. [`run`] is that way; the other modules are its stations.

pub mod announce;
pub mod backoff;
pub mod board;
pub mod cache;
pub mod files;
pub mod floor;
pub mod history;
pub mod paths;
pub mod privileges;
pub mod readiness;
pub mod run;
pub mod settings;
pub mod status;
pub mod token;
pub mod true_time;
