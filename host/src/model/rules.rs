//! The promises of provisioning, and the checks of each.

use azaion_agent::common::exit::Exit;

use super::actions;
use super::host::{Hosts, Mode, Program};
use super::sizes::Size;
use super::state::{Report, State, Work};
use super::world::{Account, File, Password, Request};
use crate::provision::job::Outcome;

/// A broken promise, with the reason.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

fn check(holds: bool, why: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(why())) }
}

/// Promise: a host does not delete an account that a device has and that accepts the password in one of the host's targets.
pub(super) fn before_call(state: &State, size: &Size, host: usize, request: Request) -> Result<(), Broken> {
    let Request::Delete(account) = request else { return Ok(()) };
    let before = state.hosts[host].work.iter().flat_map(|work| &work.before);
    let targets = size.hosts[host].targets.iter().map(|&target| &state.targets[target]);
    let mut passwords = before.chain(targets).filter_map(|file| file.as_ref()?.password());
    let works = |password: Password| {
        let is_reported = state.reports.iter().any(|report| report.password == password && report.lost_to.is_none());
        is_reported && state.api.lets_in(account, password)
    };
    check(!passwords.any(works), || "an account is deleted that accepts the password in the target".to_owned())
}

/// Promise: with exit code 0 all targets hold the same identity, and the API accepts its password at that moment, unless another run has
/// changed the account since the last reply, or, in a batch, since an earlier run has confirmed it.
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
    // A batch trusts the confirmation comment in its target and does not log in again.
    let is_same = |report: &&Report| (report.account, report.password) == (account, password);
    let is_confirmed = size.hosts[host].program.is_batch && outcome == Outcome::Reused;
    let confirmed = state.reports.iter().filter(is_same).find_map(|report| report.lost_to).filter(|_| is_confirmed);
    let lost_to = if works { None } else { work.overtaken.or(confirmed) };
    check(works || lost_to.is_some(), || {
        format!("{:?} ends with {outcome}, and the API does not accept the password in its target", work.run)
    })?;
    state.reports.push(Report { run: work.run, account, password, lost_to });
    Ok(())
}

/// Promise: a failed run leaves its targets unchanged, unless the API may have the password in them.
pub(super) fn at_failure(state: &State, size: &Size, host: usize, work: &Work, exit: Exit) -> Result<(), Broken> {
    let may_stay = |file: &File| match (file.account(), file.password()) {
        (Some(account), Some(password)) => {
            work.may_be_set || state.api.lets_in(account, password) || !state.api.users.contains_key(&account)
        }
        _ => work.may_be_set,
    };
    for (&target, before) in size.hosts[host].targets.iter().zip(&work.before) {
        let now = &state.targets[target];
        let is_valid = now == before || now.as_ref().is_some_and(may_stay) || work.overtaken.is_some();
        check(is_valid, || {
            let code = exit.code();
            format!("{:?} ends with {code} and leaves {now:?} in target {target}, where {before:?} was", work.run)
        })?;
    }
    Ok(())
}

/// Checks the promises for states without a running run.
pub(super) fn when_quiet(state: &State, size: &Size, hosts: &mut Hosts) -> Result<(), Broken> {
    for report in &state.reports {
        let Some(other) = report.lost_to else { continue };
        check(state.announced & other.bit() != 0, || {
            format!("the device of {:?} is locked out by {other:?} without a warning", report.run)
        })?;
    }
    users_are_known(state, size)?;
    for host in 0..size.hosts.len() {
        a_run_without_faults_succeeds(state, size, hosts, host)?;
    }
    Ok(())
}

/// Promise: the password of each created user is in a target or in a device. The password of a user created by the server may be lost, at
/// most one for each fault, and a message reports it.
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
        check(is_intended || state.reported_orphans & maker.bit() != 0, || {
            format!("{account:?} of {maker:?} has no device, and no message reports it")
        })?;
    }
    check(orphans <= state.faults.1, || format!("{orphans} orphaned accounts after {} faults", state.faults.1))
}

/// Promise: after any history, one more run without faults succeeds, and changes nothing if nothing was wrong.
fn a_run_without_faults_succeeds(state: &State, size: &Size, hosts: &mut Hosts, host: usize) -> Result<(), Broken> {
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
    // A person must first clear files that this tool has not written, and devices of the other scheme.
    let is_assigned = mode == Mode::Assigned;
    let must_be_cleared = |file: &File| {
        file.is_doubtful && mode == Mode::Recreate
            || file.account().is_some_and(|account| (account != Account::Serial) != is_assigned)
    };
    if plan.targets.iter().filter_map(|&target| state.targets[target].as_ref()).any(must_be_cleared) {
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
        format!("the targets of host {name} are right, but one more run changes the API")
    })
}
