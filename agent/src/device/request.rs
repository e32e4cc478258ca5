//! What a run is asked for, and by whom.

use std::time::Duration;

/// Who asks for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// `azaion-agent.service`: waits until another try may succeed.
    Unit,
    /// A program that needs a token: it is told at once to come back later.
    Program,
    /// A person, who may just have mended what was wrong.
    #[default]
    Person,
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Who asks.
    pub caller: Caller,
    /// How long to try, where not as `agent.toml` says.
    pub deadline: Option<Duration>,
    /// Whether to try at once, whatever `backoff.json` says.
    pub now: bool,
    /// Whether to get a new token even while there is a fresh one.
    pub is_forced: bool,
}
