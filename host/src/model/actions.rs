//! The possible actions in a state, and their effects.

use super::effects::{Missing, Op, Seen};
use super::flaws::Flaw;
use super::host::{Hosts, Next};
use super::rules::{self, Broken};
use super::sizes::Size;
use super::state::State;
use super::world::{File, Reply, Request};

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A host begins a run.
    Begin(usize),
    /// A host carries out its next effect.
    Do(usize),
    /// The next write of a host fails.
    NotWritten(usize),
    /// The next call of a host gets no reply.
    Miss { host: usize, why: Missing, effect: Effect, is_last: bool },
    /// A host crashes and loses its memory.
    Crash(usize),
    /// The API carries out a request whose sender has given up.
    Land(usize),
    /// A person clears a target.
    Clear(usize),
}

/// Whether and when a request without a reply is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Never,
    AtOnce,
    Late,
}

/// Returns all possible actions in a state.
pub(super) fn possible(state: &State, size: &Size, hosts: &Hosts) -> Vec<Action> {
    // No other run sees a write to a locked target, so its order among the effects of others does not matter.
    let writing = (0..state.hosts.len()).find(|&host| matches!(next(state, hosts, host), Some(Op::Put(..))));
    if let Some(host) = writing {
        return if state.faults.0 > 0 {
            vec![Action::Do(host), Action::NotWritten(host), Action::Crash(host)]
        } else {
            vec![Action::Do(host)]
        };
    }
    let mut actions = Vec::new();
    for (host, plan) in size.hosts.iter().enumerate() {
        match next(state, hosts, host) {
            Some(Op::Call(request)) => {
                actions.push(Action::Do(host));
                if state.faults.0 > 0 {
                    actions.push(Action::Crash(host));
                    actions.extend(misses(host, request));
                }
            }
            Some(_) => {}
            None if state.hosts[host].runs >= size.runs => {}
            None if plan.targets.iter().any(|&target| state.is_locked(size, target)) => {}
            None => actions.push(Action::Begin(host)),
        }
    }
    actions.extend((0..state.late.len()).map(Action::Land));
    if state.clears > 0 {
        let is_full = |target: &usize| state.targets[*target].is_some() && !state.is_locked(size, *target);
        actions.extend((0..state.targets.len()).filter(is_full).map(Action::Clear));
    }
    actions
}

fn misses(host: usize, request: Request) -> impl Iterator<Item = Action> {
    let all = [
        (Missing::NoConnection, Effect::Never),
        (Missing::Busy, Effect::Never),
        (Missing::Lost, Effect::AtOnce),
        (Missing::Lost, Effect::Late),
    ];
    let count = if request.is_read() { 2 } else { all.len() };
    all.into_iter()
        .take(count)
        .flat_map(move |(why, effect)| [false, true].map(|is_last| Action::Miss { host, why, effect, is_last }))
}

fn next(state: &State, hosts: &Hosts, host: usize) -> Option<Op> {
    match &hosts.execution(state.hosts[host].work.as_ref()?.node).next {
        Next::Op(op) => Some(op.clone()),
        Next::End { .. } => None,
    }
}

/// Returns the state after an action, or the promise that the action breaks.
pub(super) fn apply(state: &State, action: Action, size: &Size, hosts: &mut Hosts) -> Result<State, Broken> {
    let mut state = state.clone();
    match action {
        Action::Begin(host) => state.begin(size, hosts, host, size.hosts[host].program)?,
        Action::Do(host) => act(&mut state, host, size, hosts)?,
        Action::NotWritten(host) => {
            count_fault(&mut state);
            state.observe(size, hosts, host, Seen::NotWritten)?;
        }
        Action::Miss { host, why, effect, is_last } => {
            count_fault(&mut state);
            miss(&mut state, host, why, effect, hosts)?;
            state.observe(size, hosts, host, Seen::Missing { why, is_last })?;
        }
        Action::Crash(host) => {
            count_fault(&mut state);
            state.hosts[host].work = None;
        }
        Action::Land(number) => {
            let (run, request) = state.late.remove(number);
            let reply = state.perform(run, request)?;
            let is_made = matches!(request, Request::Create(..)) && reply == Reply::Done;
            // Another run has deleted the user after this run learned that it exists.
            if let (true, Request::Create(_, password)) = (is_made && state.announced & !run.bit() != 0, request) {
                state.give_up(password);
            }
        }
        Action::Clear(target) => {
            state.clears -= 1;
            let file = state.targets[target].take();
            match file.as_ref().and_then(File::password) {
                Some(password) => state.give_up(password),
                None if size.hosts.iter().any(|plan| plan.program.flaw == Some(Flaw::ClearsSilently)) => {}
                // `clear` reports it.
                None => state.report_intent(size, target, None),
            }
        }
    }
    if state.is_quiet() {
        rules::when_quiet(&state, size, hosts)?;
    }
    Ok(state)
}

/// Carries out the next effect of a host, without a fault.
pub(super) fn act(state: &mut State, host: usize, size: &Size, hosts: &mut Hosts) -> Result<(), Broken> {
    let Some(op) = next(state, hosts, host) else { return Ok(()) };
    let seen = match op {
        Op::Put(target, file) => {
            state.targets[size.hosts[host].targets[target]] = file;
            Seen::Written
        }
        Op::Call(request) => {
            rules::before_call(state, size, host, request)?;
            let Some(run) = state.hosts[host].work.as_ref().map(|work| work.run) else { return Ok(()) };
            let reply = state.perform(run, request)?;
            if let Some(work) = &mut state.hosts[host].work {
                work.overtaken = None;
                work.may_be_set |=
                    !request.is_read() && matches!(reply, Reply::Done | Reply::Identity(_) | Reply::NoSuchUser);
            }
            Seen::Reply(reply)
        }
        Op::Read(_) | Op::Draw => return Ok(()),
    };
    state.observe(size, hosts, host, seen)
}

fn miss(state: &mut State, host: usize, why: Missing, effect: Effect, hosts: &Hosts) -> Result<(), Broken> {
    let (Some(Op::Call(request)), Some(work)) = (next(state, hosts, host), &mut state.hosts[host].work) else {
        return Ok(());
    };
    // After "exists", a login decides whether this run has created the user.
    work.may_be_set |= why != Missing::NoConnection || request.is_read();
    let run = work.run;
    match effect {
        Effect::Never => {}
        Effect::AtOnce => drop(state.perform(run, request)?),
        Effect::Late => {
            state.late.push((run, request));
            state.late.sort_unstable();
        }
    }
    Ok(())
}

fn count_fault(state: &mut State) {
    state.faults.0 -= 1;
    state.faults.1 += 1;
}

/// Returns a description of an action.
pub(super) fn describe(state: &State, action: Action, hosts: &Hosts) -> String {
    let name = |host: usize| char::from(b'A' + u8::try_from(host).unwrap_or(25));
    let op = |host: usize| next(state, hosts, host).map_or(String::new(), |op| op.to_string());
    match action {
        Action::Begin(host) => format!("host {}: begins a run", name(host)),
        Action::Do(host) => match next(state, hosts, host) {
            Some(Op::Call(request)) => {
                let reply = state.api.clone().perform(request, None);
                format!("host {}: {request} -> {reply:?}", name(host))
            }
            _ => format!("host {}: {} -> done", name(host), op(host)),
        },
        Action::NotWritten(host) => format!("host {}: {} -> I/O error", name(host), op(host)),
        Action::Miss { host, why, effect, is_last } => {
            let effect = match effect {
                Effect::Never => "never carried out",
                Effect::AtOnce => "carried out",
                Effect::Late => "carried out later",
            };
            format!("host {}: {} -> {}; {effect}", name(host), op(host), Seen::Missing { why, is_last })
        }
        Action::Crash(host) => format!("host {}: crashes before {}", name(host), op(host)),
        Action::Land(number) => format!("the API carries out {} of {:?}", state.late[number].1, state.late[number].0),
        Action::Clear(target) => format!("a person clears target {target}"),
    }
}
