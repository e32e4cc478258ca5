//! Visits all states that can be reached, each once, breadth first.
//!
//! Why not `stateright`, `loom` or `shuttle`: the last two run schedules of threads and can't skip a state that they have seen, so the
//! sizes here would not end; the first could, and would replace this file alone, for a tree of dependencies.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use super::actions::{apply, describe, possible};
use super::host::Hosts;
use super::rules::Broken;
use super::sizes::Size;
use super::state::State;

/// What was explored, all of it.
#[derive(Debug)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) steps: usize,
    pub(super) executions: usize,
    took: Duration,
}

/// How a promise is broken.
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
    // For each state, by its number: the one before, and the choice that leads from there to here.
    let mut ways: Vec<(usize, usize)> = vec![(0, 0)];
    let mut waiting = VecDeque::from([(first, 0)]);
    let mut steps = 0;
    while let Some((state, number)) = waiting.pop_front() {
        for (choice, action) in possible(&state, size, &hosts).into_iter().enumerate() {
            steps += 1;
            match apply(&state, action, size, &mut hosts) {
                Ok(next) => {
                    if seen.insert(fingerprint(&next)) {
                        ways.push((number, choice));
                        waiting.push_back((next, ways.len() - 1));
                    }
                }
                Err(Broken(why)) => return Err(Violation { why, choices: way_to(&ways, number, choice) }),
            }
        }
    }
    Ok(Explored { states: seen.len(), steps, executions: hosts.count(), took: begin.elapsed() })
}

/// 64 bits for a state: that any two of a million states share them has a chance of 3 in 10⁸.
fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn way_to(ways: &[(usize, usize)], mut number: usize, last: usize) -> Vec<usize> {
    let mut choices = vec![last];
    while number != 0 {
        let (before, choice) = ways[number];
        choices.push(choice);
        number = before;
    }
    choices.reverse();
    choices
}

/// Walks a sequence of choices: the steps in words, and the state at the end or the promise that is broken.
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
    /// For people: what is broken, the trace, and the command that walks it again.
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
        write!(f, "{states} states, {steps} steps, {executions} executions of the main job, {} ms", took.as_millis())
    }
}
