//! The explorations: their hosts, jobs, and numbers of faults.

use std::env;

use super::explore::{explore, replay};
use super::flaws::Flaw;
use super::host::{Mode, Program};

/// Parameters of one exploration.
#[derive(Clone, Debug)]
pub(super) struct Size {
    pub(super) name: String,
    pub(super) hosts: Vec<Plan>,
    /// Whether the API has `PATCH /users/password`.
    pub(super) sets_passwords: bool,
    pub(super) start: Start,
    /// Number of runs of each host.
    pub(super) runs: u8,
    /// Largest number of faults and crashes in a history.
    pub(super) faults: u8,
    /// Number of times that a person clears a target.
    pub(super) clears: u8,
}

/// A host with its job and targets.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) program: Program,
    /// Numbers of its targets; two hosts may share one.
    pub(super) targets: Vec<usize>,
}

/// State before the first run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Empty,
    /// The user exists with a password that nobody knows.
    LostUser,
    /// A device and each target have the user's password; the targets have it in a file that this tool can't have written.
    Doubtful,
}

/// Returns an exploration of one host with a deliberate fault.
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

const MODES: [Mode; 4] = [Mode::Update, Mode::Refuse, Mode::Recreate, Mode::Assigned];

/// States before the first run, and whether the API has `PATCH /users/password`.
const STARTS: [(Start, bool); 5] = [
    (Start::Empty, true),
    (Start::LostUser, true),
    (Start::LostUser, false),
    (Start::Doubtful, true),
    (Start::Doubtful, false),
];

/// Returns explorations of one host, and of two hosts with their own or shared targets: all of them, or those for every commit.
fn sizes(is_all: bool) -> Vec<Size> {
    let mut all = Vec::new();
    for start in STARTS {
        for (first, &mode) in MODES.iter().enumerate().filter(|(_, mode)| begins_at(**mode, start.0)) {
            for is_batch in [false, true].into_iter().filter(|is_batch| !is_batch || mode != Mode::Assigned) {
                let (of_one, of_two) = if is_all { (3, 3) } else { (2, 1) };
                all.push(Size::new(start, of_one, &[(mode, is_batch, &[0])]));
                all.push(Size::new(start, of_two, &[(mode, is_batch, &[0, 1])]));
            }
            for &other in MODES.iter().skip(first).filter(|other| begins_at(**other, start.0)) {
                let pair = |own: &'static [usize], others: &'static [usize], faults| {
                    Size::new(start, faults, &[(mode, false, own), (other, false, others)])
                };
                if is_all {
                    all.extend([pair(&[0], &[1], 2), pair(&[0], &[0], 2), pair(&[0, 1], &[2, 3], 1)]);
                } else if start.0 == Start::LostUser || mode == other {
                    all.extend([pair(&[0], &[1], 0), pair(&[0], &[0], 1)]);
                }
            }
        }
    }
    all
}

/// Returns whether a mode can begin in a state: the serial's account is irrelevant for `--server-assigned`.
fn begins_at(mode: Mode, start: Start) -> bool {
    mode != Mode::Assigned || start == Start::Empty
}

impl Size {
    fn new((start, sets_passwords): (Start, bool), faults: u8, programs: &[(Mode, bool, &[usize])]) -> Self {
        let hosts: Vec<Plan> = programs
            .iter()
            .map(|&(mode, is_batch, targets)| Plan {
                program: Program { mode, targets: targets.len(), is_batch, flaw: None },
                targets: targets.to_vec(),
            })
            .collect();
        let name_of = |plan: &Plan| {
            let batch = if plan.program.is_batch { " batch" } else { "" };
            format!("{:?}{batch} into {:?}", plan.program.mode, plan.targets)
        };
        let names: Vec<String> = hosts.iter().map(name_of).collect();
        let api = if sets_passwords { "" } else { ", no PATCH" };
        let name = format!("{}, {start:?}{api}", names.join(" and "));
        Self { name, hosts, sets_passwords, start, runs: 2, faults, clears: 1 }
    }
}

fn is_all() -> bool {
    env::var("AZAION_MODEL").is_ok_and(|value| value == "all")
}

// Promise: no promise is broken in any interleaving of these hosts, with any fault at any step.
#[test]
fn no_promise_is_broken() {
    let (mut broken, mut totals) = (Vec::new(), [0; 3]);
    let all = sizes(is_all());
    for size in &all {
        match explore(size) {
            Ok(explored) => {
                println!("{}, at most {} faults: {explored}", size.name, size.faults);
                for (total, part) in totals.iter_mut().zip([explored.states, explored.steps, explored.executions]) {
                    *total += part;
                }
            }
            Err(violation) => broken.push(violation.report(size)),
        }
    }
    let [states, steps, executions] = totals;
    println!("{} sizes: {states} states, {steps} steps, {executions} executions of provisioning", all.len());
    assert!(broken.is_empty(), "{} sizes break a promise:\n{}", broken.len(), broken.join("\n\n"));
}

// Promise: a printed trace can be replayed.
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
