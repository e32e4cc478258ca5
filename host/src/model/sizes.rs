//! What is explored: which hosts, what they are asked to do, and how much goes wrong.

use std::env;

use super::explore::{explore, replay};
use super::flaws::Flaw;
use super::host::{Mode, Program};

/// One exploration.
#[derive(Clone, Debug)]
pub(super) struct Size {
    pub(super) name: String,
    pub(super) hosts: Vec<Plan>,
    /// Whether the API has `PATCH /users/password`.
    pub(super) sets_passwords: bool,
    pub(super) start: Start,
    /// How many runs each host makes.
    pub(super) runs: u8,
    /// How many faults and crashes a history has at most.
    pub(super) faults: u8,
    /// How often a person clears a target.
    pub(super) clears: u8,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) program: Program,
    /// The targets, by their numbers; two hosts may share one.
    pub(super) targets: Vec<usize>,
}

/// What was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Empty,
    /// The user exists with a password that nobody knows.
    LostUser,
    /// A device has the user's password, and so has each target, in a file that this tool can't have written.
    Doubtful,
}

/// One host with a deliberate fault.
pub(super) fn flawed(flaw: Flaw, mode: Mode, start: Start, sets_passwords: bool) -> Size {
    let program = Program { mode, targets: 1, is_batch: false, flaw: Some(flaw) };
    Size {
        name: format!("{flaw:?}"),
        hosts: vec![Plan { program, targets: vec![0] }],
        sets_passwords,
        start,
        runs: 2,
        faults: 2,
        clears: 1,
    }
}

/// Pairs of hosts: their modes, targets, and whether they are batches.
fn sizes(is_all: bool) -> Vec<Size> {
    const MODES: [Mode; 4] = [Mode::Update, Mode::Refuse, Mode::Recreate, Mode::Assigned];
    let mut all = Vec::new();
    let mut add = |name: String, programs: &[(Mode, bool, &[usize])], start: Start, sets_passwords, faults| {
        let plan = |&(mode, is_batch, targets): &(Mode, bool, &[usize])| Plan {
            program: Program { mode, targets: targets.len(), is_batch, flaw: None },
            targets: targets.to_vec(),
        };
        let hosts: Vec<Plan> = programs.iter().map(plan).collect();
        let name = format!("{name} {start:?}{}", if sets_passwords { "" } else { " without PATCH" });
        all.push(Size { name, hosts, sets_passwords, start, runs: 2, faults, clears: 1 });
    };
    for (first, &mode) in MODES.iter().enumerate() {
        for (start, sets) in [
            (Start::Empty, true),
            (Start::LostUser, true),
            (Start::LostUser, false),
            (Start::Doubtful, true),
            (Start::Doubtful, false),
        ] {
            if mode == Mode::Assigned && start != Start::Empty {
                continue;
            }
            let deep = if is_all { 3 } else { 2 };
            let wide = if is_all { 2 } else { 1 };
            for is_batch in [false, true].into_iter().take(if mode == Mode::Assigned { 1 } else { 2 }) {
                let batch = if is_batch { " batch" } else { "" };
                add(format!("{mode:?}{batch}"), &[(mode, is_batch, &[0])], start, sets, deep);
                add(format!("{mode:?}{batch} two targets"), &[(mode, is_batch, &[0, 1])], start, sets, deep);
            }
            for &other in MODES.iter().skip(first) {
                let name = format!("{mode:?}+{other:?}");
                if other == Mode::Assigned && mode != Mode::Assigned {
                    continue;
                }
                add(name.clone(), &[(mode, false, &[0]), (other, false, &[1])], start, sets, wide);
                add(format!("{name} shared"), &[(mode, false, &[0]), (other, false, &[0])], start, sets, wide);
                add(format!("{name} two targets"), &[(mode, false, &[0, 1]), (other, false, &[2, 3])], start, sets, wide);
            }
        }
    }
    all
}

fn is_all() -> bool {
    env::var("AZAION_MODEL").is_ok_and(|value| value == "all")
}

// Promise: in all interleavings of these hosts, with all faults at all moments, no promise is broken.
#[test]
fn no_promise_is_broken() {
    let only = env::var("AZAION_MODEL_SIZE").ok();
    let mut broken = Vec::new();
    for size in sizes(is_all()) {
        if only.as_ref().is_some_and(|only| *only != size.name) {
            continue;
        }
        match explore(&size) {
            Ok(explored) => println!("{}, at most {} faults: {explored}", size.name, size.faults),
            Err(violation) => broken.push(violation.report(&size)),
        }
    }
    assert!(broken.is_empty(), "{} sizes break a promise:\n{}", broken.len(), broken.join("\n\n"));
}

// Promise: a trace that was printed can be walked again.
#[test]
fn replay_a_trace() {
    let Ok(trace) = env::var("AZAION_MODEL_REPLAY") else { return };
    let (name, choices) = trace.split_once(':').expect("SIZE:CHOICES");
    let choices: Vec<usize> = choices.split('.').map(|choice| choice.parse().unwrap()).collect();
    let all = [sizes(true), sizes(false)].concat();
    let size = all.iter().find(|size| size.name == name).expect("the name of a size");
    let (lines, end) = replay(size, &choices);
    println!("{}", lines.join("\n"));
    if let Err(broken) = end {
        panic!("{}", broken.0);
    }
}
