//! The part of the agent that runs on the Jetson only: it turns `device.conf` into a token that the loader can read.
//!
//! `device.conf` → login → claims → cache → readiness. [`run`] makes attempts (`attempt`) at that, and waits between them.

pub mod announce;
mod attempt;
pub mod backoff;
pub mod board;
pub mod cache;
pub mod files;
pub mod history;
pub mod hold;
pub mod machine;
pub mod outcome;
pub mod paths;
pub mod privileges;
pub mod readiness;
pub mod refusals;
pub mod request;
pub mod run;
pub mod schedule;
#[cfg(feature = "schema")]
pub mod schema;
pub mod settings;
pub mod states;
pub mod status;
pub mod surroundings;
pub mod time_floor;
pub mod time_sync;
pub mod token;
pub mod true_time;
pub mod wait;
