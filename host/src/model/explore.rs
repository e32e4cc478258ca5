//! Visits all reachable states, each once, breadth first.
//!
//! Why not `stateright`, `loom` or `shuttle`: the last two run schedules of threads and can't skip a state that they have visited, so the
//! sizes here would not finish. The first could do it, but would only replace this file, at the cost of many dependencies.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use super::actions::{apply, describe, possible};
use super::host::Hosts;
use super::rules::Broken;
use super::sizes::Size;
use super::state::State;

/// Statistics of a complete exploration.
#[derive(Debug)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) steps: usize,
    pub(super) executions: usize,
    took: Duration,
}

/// A broken promise, with the choices that lead to it.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) why: String,
    pub(super) choices: Vec<usize>,
}

/// Explores a size.
///
/// # Errors
/// A shortest sequence of choices that breaks a promise.
pub(super) fn explore(size: &Size) -> Result<Explored, Violation> {
    let begin = Instant::now();
    let mut hosts = Hosts::default();
    let first = State::new(size);
    let mut seen = HashSet::from([fingerprint(&first)]);
    // For each state, by its number: the previous state and the choice that leads from it.
    let mut origins: Vec<(usize, usize)> = vec![(0, 0)];
    let mut waiting = VecDeque::from([(first, 0)]);
    let mut steps = 0;
    while let Some((state, number)) = waiting.pop_front() {
        for (choice, action) in possible(&state, size, &hosts).into_iter().enumerate() {
            steps += 1;
            match apply(&state, action, size, &mut hosts) {
                Ok(next) => {
                    if seen.insert(fingerprint(&next)) {
                        origins.push((number, choice));
                        waiting.push_back((next, origins.len() - 1));
                    }
                }
                Err(Broken(why)) => return Err(Violation { why, choices: choices_to(&origins, number, choice) }),
            }
        }
    }
    Ok(Explored { states: seen.len(), steps, executions: hosts.count(), took: begin.elapsed() })
}

/// Hashes a state to 64 bits. The probability that any two of a million states share a hash is 3 in 10⁸.
fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn choices_to(origins: &[(usize, usize)], mut number: usize, last: usize) -> Vec<usize> {
    let mut choices = vec![last];
    while number != 0 {
        let (before, choice) = origins[number];
        choices.push(choice);
        number = before;
    }
    choices.reverse();
    choices
}

/// Replays a sequence of choices. Returns the described steps, and the final state or the broken promise.
pub(super) fn replay(size: &Size, choices: &[usize]) -> (Vec<String>, Result<State, Broken>) {
    let mut hosts = Hosts::default();
    let mut state = State::new(size);
    let mut lines = Vec::new();
    for choice in choices {
        let actions = possible(&state, size, &hosts);
        let action = *actions.get(*choice).unwrap_or_else(|| panic!("there is no choice {choice}: {actions:?}"));
        lines.push(describe(&state, action, &hosts));
        state = match apply(&state, action, size, &mut hosts) {
            Ok(state) => state,
            Err(broken) => return (lines, Err(broken)),
        };
    }
    (lines, Ok(state))
}

impl Violation {
    /// Returns the broken promise, the trace, and the command that replays it.
    pub(super) fn report(&self, size: &Size) -> String {
        let (lines, _) = replay(size, &self.choices);
        let choices: Vec<String> = self.choices.iter().map(ToString::to_string).collect();
        format!(
            "{}: {}\n  {}\nreplay it with: AZAION_MODEL_REPLAY='{}:{}' cargo test -p azaion-provision --lib model::sizes::replay -- \
             --nocapture",
            size.name,
            self.why,
            lines.join("\n  "),
            size.name,
            choices.join(".")
        )
    }
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { states, steps, executions, took } = self;
        write!(f, "{states} states, {steps} steps, {executions} executions of provisioning, {} ms", took.as_millis())
    }
}
