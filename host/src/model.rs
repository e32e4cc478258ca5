//! A model check of provisioning: all interleavings of a few hosts, one serial, faults and crashes, on the real code.
//!
//! [`host`] executes the real provisioning code on targets and an API in memory. An execution is a function from the observations of a
//! run so far to its next effect. So a state of the world is small, and [`explore`] visits each state once, breadth first, so the first
//! trace to a violation is a shortest one. [`rules`] has the promises, [`flaws`] has deliberate faults that must break them.
//!
//! `AZAION_MODEL=all cargo test -p azaion-provision --lib model -- --nocapture` explores all sizes with more faults; without the variable,
//! a bounded part runs. A violation prints its trace and the value of `AZAION_MODEL_REPLAY` that replays it.

mod actions;
mod effects;
mod explore;
mod flaws;
mod host;
mod memory;
mod rules;
mod sizes;
mod state;
mod world;
