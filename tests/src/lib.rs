//! Whole-system tests of the Azaion device programs, and what they need around them.
//!
//! [`dev_api`] is a development admin API: a real HTTPS server with a real user database, which
//! the tests, the demo and the benchmarks run against.

pub mod dev_api;
