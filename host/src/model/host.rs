//! Executes the real provisioning code on the observations of a run so far, and remembers the next effect of each run.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;

use azaion_agent::api::retry::{Budget, POLICY, Policy};
use azaion_agent::common::exit::Exit;
use log::{LevelFilter, Log, Metadata, Record};

use super::effects::{Op, Seen};
use super::flaws::Flaw;
use super::memory::{ADMIN, ADMIN_PASSWORD, MemoryTarget, Script, Stop};
use super::world::{Password, Reply, SERIAL};
use crate::admin_api::Admin;
use crate::admin_api::connection::AdminCredentials;
use crate::admin_api::login::AdminLogin;
use crate::cli::{ApiOptions, OnExisting};
use crate::error;
use crate::error::{Result, report};
use crate::provision::by_serial::Provisioning;
use crate::provision::job::{Job, Outcome};
use crate::provision::server_assigned;
use crate::target::{self, Owner, Target};

/// Mode of provisioning on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    Update,
    Refuse,
    Recreate,
    Assigned,
}

/// The job of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pub(super) mode: Mode,
    pub(super) targets: usize,
    /// Whether it is a batch, which writes confirmation comments.
    pub(super) is_batch: bool,
    pub(super) flaw: Option<Flaw>,
}

/// What a run does at the end of its log.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) next: Next,
    pub(super) notices: Vec<Notice>,
    /// A log line that contains a secret.
    pub(super) leak: Option<String>,
}

/// A kind of log message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Devices that were flashed earlier can no longer log in.
    LockedOut,
    /// An earlier run has left an intent.
    Intent,
    /// The API may have a user that no device has.
    Orphan,
    /// A target could not be restored.
    NotRestored,
}

/// A part of the message for each notice.
const NOTICES: [(Notice, &str); 4] = [
    (Notice::LockedOut, "flashed earlier with AZJN"),
    (Notice::Intent, "between requesting an identity and writing it"),
    (Notice::Orphan, "orphaned account"),
    (Notice::NotRestored, "could not be restored"),
];

impl Execution {
    pub(super) fn has(&self, notice: Notice) -> bool {
        self.notices.contains(&notice)
    }
}

#[derive(Debug)]
pub(super) enum Next {
    Op(Op),
    End { exit: Exit, outcome: Option<Outcome> },
}

/// All executions by number, one for each sequence of observations.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    nodes: Vec<Node>,
    begins: HashMap<Program, usize>,
}

#[derive(Debug)]
struct Node {
    program: Program,
    before: Option<(usize, Seen)>,
    execution: Rc<Execution>,
    after: HashMap<Seen, usize>,
}

impl Hosts {
    /// Returns a run without observations.
    pub(super) fn begin(&mut self, program: Program) -> usize {
        if let Some(node) = self.begins.get(&program) {
            return *node;
        }
        let node = self.add(program, None);
        self.begins.insert(program, node);
        node
    }

    /// Returns the run `node` after one more observation.
    pub(super) fn observe(&mut self, node: usize, seen: Seen) -> usize {
        if let Some(next) = self.nodes[node].after.get(&seen) {
            return *next;
        }
        let next = self.add(self.nodes[node].program, Some((node, seen.clone())));
        self.nodes[node].after.insert(seen, next);
        next
    }

    pub(super) fn execution(&self, node: usize) -> Rc<Execution> {
        Rc::clone(&self.nodes[node].execution)
    }

    /// Returns the number of executions.
    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    fn add(&mut self, program: Program, before: Option<(usize, Seen)>) -> usize {
        let mut log = Vec::new();
        let mut node_before = before.as_ref();
        while let Some((node, seen)) = node_before {
            log.push(seen.clone());
            node_before = self.nodes[*node].before.as_ref();
        }
        log.reverse();
        let execution = Rc::new(execute(program, log));
        self.nodes.push(Node { program, before, execution, after: HashMap::new() });
        self.nodes.len() - 1
    }
}

fn execute(program: Program, log: Vec<Seen>) -> Execution {
    let known: Vec<Password> = log
        .iter()
        .filter_map(|seen| match seen {
            Seen::File(Some(file)) => file.password(),
            Seen::Drawn(password) => Some(*password),
            Seen::Reply(Reply::Identity(number)) => Some(Password(Password::SERVERS + number)),
            _ => None,
        })
        .collect();
    let script = Script::new(log, program.flaw, "https://api.azaion.com".parse().unwrap());
    Captured::begin();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let done = run(program, &script);
        let exit = done.as_ref().map_or_else(report, |_| Exit::Done);
        Next::End { exit, outcome: done.ok() }
    }));
    let lines = Captured::end();
    let next = match ended {
        Ok(end) => end,
        Err(payload) if payload.is::<Stop>() => Next::Op(script.next().unwrap()),
        Err(payload) => resume_unwind(payload),
    };
    let mut secrets = script.drawn();
    secrets.extend(known.into_iter().map(Password::text));
    secrets.push(ADMIN_PASSWORD.to_owned());
    let is_logged = |notice: Notice| match program.flaw {
        Some(Flaw::WarnsNever) => notice != Notice::LockedOut,
        Some(Flaw::WarnsAfterwards) => {
            notice != Notice::LockedOut || matches!(next, Next::End { outcome: Some(_), .. })
        }
        _ => true,
    };
    let is_in_lines = |text: &str| lines.iter().any(|line| line.contains(text));
    let notices = NOTICES.iter().filter(|(notice, text)| is_logged(*notice) && is_in_lines(text));
    Execution {
        notices: notices.map(|(notice, _)| *notice).collect(),
        leak: lines.iter().find(|line| secrets.iter().any(|secret| line.contains(secret))).cloned(),
        next,
    }
}

fn run(program: Program, script: &Arc<Script>) -> Result<Outcome> {
    let targets: Vec<Box<dyn Target>> = (0..program.targets)
        .map(|index| {
            let path = format!("target-{index}").into();
            Box::new(MemoryTarget { script: Arc::clone(script), index, path }) as Box<dyn Target>
        })
        .collect();
    let options = ApiOptions {
        api_url: "https://api.azaion.com".to_owned(),
        ca_file: None,
        proxy: None,
        admin_email: Some(ADMIN.to_owned()),
        admin_password_file: None,
        admin_token_file: None,
        deadline: None,
    };
    let credentials = AdminCredentials::Password { email: ADMIN.to_owned(), password: ADMIN_PASSWORD.into() };
    // Without waits, because their length is random.
    let policy = Policy { first: Duration::ZERO, cap: Duration::ZERO, ..POLICY };
    let budget = Budget::new(Duration::from_secs(30), policy, &script.clock);
    let login = AdminLogin::with_credentials(&options, &script.clock, credentials);
    let job = Job {
        targets: &targets,
        owner: Owner::Root,
        replace: false,
        module_serial: None,
        http: script.as_ref(),
        budget: &budget,
        admin: Admin::new(script.as_ref(), &budget, &login),
        clock: &script.clock,
    };
    let on_existing = match program.mode {
        Mode::Assigned => return server_assigned::assign(&job).map(|(_, outcome)| outcome),
        Mode::Update => OnExisting::Update,
        Mode::Refuse => OnExisting::Refuse,
        Mode::Recreate => OnExisting::Recreate,
    };
    let serial = SERIAL.parse().map_err(|_| error::failure(Exit::Internal, "the serial"))?;
    let provisioning = Provisioning { job: &job, serial: &serial, on_existing, uses_confirmations: program.is_batch };
    match program.flaw {
        Some(Flaw::AlwaysRestores) => clearing(&targets, &provisioning),
        Some(Flaw::ForgetsRequest) => restoring(&targets, &provisioning),
        _ => provisioning.run(),
    }
}

/// Runs with [`Flaw::AlwaysRestores`].
fn clearing(targets: &[Box<dyn Target>], provisioning: &Provisioning<'_>) -> Result<Outcome> {
    let result = provisioning.run();
    if result.is_err() {
        for target in targets {
            drop(target.clear());
        }
    }
    result
}

/// Runs with [`Flaw::ForgetsRequest`].
fn restoring(targets: &[Box<dyn Target>], provisioning: &Provisioning<'_>) -> Result<Outcome> {
    let before: Vec<_> = targets.iter().map(|target| target.read_conf()).collect::<target::Result<_>>()?;
    let result = provisioning.run();
    if result.as_ref().is_err_and(|error| error.line().contains("deleting the account")) {
        targets.iter().zip(before).for_each(|(target, before)| drop(target.restore(before.as_ref())));
    }
    result
}

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Captures the log of this thread.
struct Captured;

impl Captured {
    fn begin() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            log::set_logger(&Self).unwrap();
            log::set_max_level(LevelFilter::Info);
        });
        LINES.take();
    }

    fn end() -> Vec<String> {
        LINES.take()
    }
}

impl Log for Captured {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(format!("{}: {}", record.level(), record.args())));
    }

    fn flush(&self) {}
}
