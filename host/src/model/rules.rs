//! The promises of provisioning, each checked at the moment that it is about.

use azaion_agent::common::exit::Exit;

use super::actions;
use super::host::{Hosts, Mode, Program};
use super::sizes::Size;
use super::state::{Report, State, Work};
use super::world::{Account, File, Password, Request};
use crate::provision::job::Outcome;

/// A promise that does not hold, and why.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

fn check(holds: bool, why: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(why())) }
}

/// Promise: a host does not delete an account that one of its targets lets in and that a device has.
pub(super) fn before_call(state: &State, size: &Size, host: usize, request: Request) -> Result<(), Broken> {
    let Request::Delete(account) = request else { return Ok(()) };
    let before = state.hosts[host].work.iter().flat_map(|work| &work.before);
    let targets = size.hosts[host].targets.iter().map(|&target| &state.targets[target]);
    let mut passwords = before.chain(targets).filter_map(|file| file.as_ref()?.password());
    let works = |password: Password| {
        let is_reported = state.reports.iter().any(|report| report.password == password && report.lost_to.is_none());
        is_reported && state.api.lets_in(account, password)
    };
    check(!passwords.any(works), || "an account is deleted that the password in the target lets in".to_owned())
}

/// Promise: with exit code 0 all targets hold one identity, and the API takes its password at that moment, unless another run has changed
/// the account since the API has answered last, or, in a batch, since an earlier run has confirmed it.
pub(super) fn at_success(
    state: &mut State,
    size: &Size,
    host: usize,
    work: &Work,
    outcome: Outcome,
) -> Result<(), Broken> {
    let identity = |&target: &usize| {
        let file = state.targets[target].as_ref();
        file.and_then(|file| file.account().zip(file.password()))
    };
    let identities: Vec<_> = size.hosts[host].targets.iter().map(identity).collect();
    let Some(&Some((account, password))) = identities.first() else {
        return Err(Broken(format!("{:?} ends with {outcome}, and its target holds no identity", work.run)));
    };
    check(identities.iter().all(|other| *other == Some((account, password))), || {
        format!("{:?} ends with {outcome}, and its targets differ", work.run)
    })?;
    let works = state.api.lets_in(account, password);
    // A batch believes the confirmation comment in its target, and does not log in again.
    let is_same = |report: &&Report| (report.account, report.password) == (account, password);
    let is_confirmed = size.hosts[host].program.is_batch && outcome == Outcome::Reused;
    let confirmed = state.reports.iter().filter(is_same).find_map(|report| report.lost_to).filter(|_| is_confirmed);
    let lost_to = if works { None } else { work.overtaken.or(confirmed) };
    check(works || lost_to.is_some(), || {
        format!("{:?} ends with {outcome}, and the API does not take the password in its target", work.run)
    })?;
    state.reports.push(Report { run: work.run, account, password, lost_to });
    Ok(())
}

/// Promise: a run that fails leaves its targets as they were, unless the API may have the password in them.
pub(super) fn at_failure(state: &State, size: &Size, host: usize, work: &Work, exit: Exit) -> Result<(), Broken> {
    let is_theirs = |file: &File| match (file.account(), file.password()) {
        (Some(account), Some(password)) => {
            work.may_be_set || state.api.lets_in(account, password) || !state.api.users.contains_key(&account)
        }
        _ => work.may_be_set,
    };
    for (&target, before) in size.hosts[host].targets.iter().zip(&work.before) {
        let now = &state.targets[target];
        let is_right = now == before || now.as_ref().is_some_and(is_theirs) || work.overtaken.is_some();
        check(is_right, || {
            let code = exit.code();
            format!("{:?} ends with {code} and leaves {now:?} in target {target}, where {before:?} was", work.run)
        })?;
    }
    Ok(())
}

/// What holds whenever no run is going on.
pub(super) fn when_quiet(state: &State, size: &Size, hosts: &mut Hosts) -> Result<(), Broken> {
    for report in &state.reports {
        let Some(other) = report.lost_to else { continue };
        check(state.announced & other.bit() != 0, || {
            format!("the device of {:?} is put out by {other:?}, and nobody was told", report.run)
        })?;
    }
    users_are_known(state, size)?;
    for host in 0..size.hosts.len() {
        a_clean_run_ends_well(state, size, hosts, host)?;
    }
    Ok(())
}

/// Promise: the password of each user that was made is in a target or in a device; of a user that the server has made it may be lost, at
/// most one for each fault, and people are told.
fn users_are_known(state: &State, size: &Size) -> Result<(), Broken> {
    let mut orphans = 0;
    for (&account, user) in &state.api.users {
        let Some(maker) = user.maker else { continue };
        let holds = |file: &File| (file.account(), file.password()) == (Some(account), Some(user.password));
        let is_known = state.targets.iter().flatten().any(holds)
            || state.reports.iter().any(|report| (report.account, report.password) == (account, user.password))
            || state.given_up.contains(&user.password);
        if is_known {
            continue;
        }
        check(account != Account::Serial, || {
            format!("the user of {maker:?} has {:?}, which is nowhere else", user.password)
        })?;
        orphans += 1;
        let targets = &size.hosts[usize::from(maker.host)].targets;
        let is_intent = |file: &File| file.password().is_none();
        let is_intended = targets.iter().any(|&target| state.targets[target].as_ref().is_some_and(is_intent));
        check(is_intended || state.told & maker.bit() != 0, || {
            format!("{account:?} of {maker:?} has no device, and nobody was told")
        })?;
    }
    check(orphans <= state.faults.1, || format!("{orphans} orphaned accounts after {} faults", state.faults.1))
}

/// Promise: after any history one more run without faults ends well, and changes nothing where nothing was wrong.
fn a_clean_run_ends_well(state: &State, size: &Size, hosts: &mut Hosts, host: usize) -> Result<(), Broken> {
    let plan = &size.hosts[host];
    let mode = match plan.program.mode {
        Mode::Update | Mode::Refuse if !size.sets_passwords => Mode::Recreate,
        Mode::Refuse => Mode::Update,
        mode => mode,
    };
    let is_working = |target: &usize| {
        let file = state.targets[*target].as_ref().filter(|file| !file.is_doubtful);
        let identity = file.and_then(|file| file.account().zip(file.password()));
        identity.is_some_and(|(account, password)| state.api.lets_in(account, password))
    };
    let is_done = plan.targets.iter().all(is_working);
    // Which a person has to clear first: what this tool has not written, and the device of the other scheme.
    let is_assigned = mode == Mode::Assigned;
    let has_to_be_cleared = |file: &File| {
        file.is_doubtful && mode == Mode::Recreate
            || file.account().is_some_and(|account| (account != Account::Serial) != is_assigned)
    };
    if plan.targets.iter().filter_map(|&target| state.targets[target].as_ref()).any(has_to_be_cleared) {
        return Ok(());
    }
    let mut after = state.clone();
    let reports = after.reports.len();
    let begun = after.begin(size, hosts, host, Program { mode, ..plan.program });
    let mut ended = begun;
    while ended.is_ok() && after.hosts[host].work.is_some() {
        ended = actions::act(&mut after, host, size, hosts);
    }
    ended.map_err(|Broken(why)| Broken(format!("one more run without faults: {why}")))?;
    let name = char::from(b'A' + u8::try_from(host).unwrap_or(25));
    check(after.reports.len() > reports, || format!("one more run of host {name} without faults fails"))?;
    check(!is_done || after.api == state.api, || {
        format!("the targets of host {name} are right, and one more run changes the API all the same")
    })
}
