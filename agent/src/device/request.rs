//! The options of a run and its caller.

use std::time::Duration;

/// The caller of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// `azaion-agent.service`, which waits until another try may succeed.
    Unit,
    /// A program that needs a token. It does not wait; it gets the error and tries again later.
    Program,
    /// A person, who may just have repaired the cause of the failure.
    #[default]
    Person,
}

/// The options of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// The caller.
    pub caller: Caller,
    /// How long to try. `None`: as `agent.toml` sets it.
    pub deadline: Option<Duration>,
    /// Whether to try at once, whatever `backoff.json` says.
    pub now: bool,
    /// Whether to get a new token even while there is a fresh one.
    pub is_forced: bool,
}
