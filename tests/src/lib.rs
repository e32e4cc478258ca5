//! Whole-system tests: the development admin API, and what the scenarios, the demo and the benchmarks share.

pub mod bsp;
pub mod completions;
pub use azaion_dev_api as dev_api;
pub mod generated;
pub mod machine;
pub mod netns;
pub mod pages;
pub mod programs;
pub mod provoked;
pub mod proxy;
pub mod record;
pub mod schemas;
pub mod station;
