//! A model check of provisioning: all interleavings of a few hosts, one serial, faults and crashes, on the real code.
//!
//! [`host`] executes the real main job over targets and an API that exist in memory only. The execution is a function: from what a
//! run has observed so far to what it does next. So a state of the world is small, and [`explore`] visits each state once, breadth
//! first, which makes the first trace to a violation a shortest one. [`rules`] has the promises, [`flaws`] deliberate faults that
//! must break them.
//!
//! `AZAION_MODEL=all cargo test -p azaion-provision --lib model -- --nocapture` explores all sizes with more faults; without
//! the variable a bounded part runs. A violation prints its trace, and `AZAION_MODEL_REPLAY`, which walks it again.

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
