//! The scenarios: both programs with the development API, each test with the promise that it checks.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a scenario that can't go on has failed"
)]

mod acceptance;
mod agent_paths;
mod agent_time;
mod arm64;
mod assigned;
mod bad_answers;
mod bad_conf;
mod bad_serials;
mod batch;
mod check;
mod container;
mod crash;
mod every_api;
mod explain;
mod fleet;
mod history;
mod host_paths;
mod host_verbs;
mod hostile_tree;
mod journal;
mod kills;
mod loader;
mod loader_page;
mod matrix;
mod memory;
mod migration;
mod missions;
mod mixed_up;
mod network;
mod old_conf;
mod plain_text;
mod proxy;
mod readers;
mod refusals;
mod root;
mod rotated_keys;
mod schemas;
mod shared_directory;
mod slow;
mod socket;
mod virtual_device;
