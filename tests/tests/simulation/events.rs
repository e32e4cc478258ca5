//! The events that may happen to a device.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use azaion_agent::common::clock::{Clock, Timestamp};
use azaion_agent::device::run::{Caller, How};

use super::api::{PASSWORD, time_at};
use super::device::{self, HOLD_FILE};
use super::dice::Dice;
use super::disk::put;
use super::weather::Weather;
use super::world::{End, World};

/// How long a device takes to become ready after the last fault is gone: if the API has not refused its credentials,
/// and if it has.
pub(crate) const AFTER_OUTAGE: Duration = Duration::from_mins(8);
const AFTER_REFUSAL: Duration = Duration::from_mins(70);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The run or the power ends now.
    End(End),
    /// The same after so many effects on files.
    EndAfter(u64, End),
    Weather(Weather),
    /// The network disappears, or another one appears.
    Network(bool),
    /// The wall clock is set to this time.
    ClockSet(u64),
    /// A time server sets it.
    ClockSynchronised,
    Hold(bool),
    Ask(How),
    KeyRotated {
        is_old_listed: bool,
    },
    Disabled(bool),
    AccountGone,
    /// The account gets another password, `device.conf` does not.
    PasswordChanged,
    /// The account and `device.conf` match again.
    Repaired,
    SessionsEnded,
    /// Another program removes the directory in `/run`.
    DirectoryRemoved,
    /// From now on there are no faults.
    Mended,
}

/// Returns a clock that a Jetson may have: 1970, 2061, or years off.
pub(crate) fn some_clock(dice: &mut Dice, now: Duration) -> u64 {
    match dice.below(5) {
        0 => 20,
        1 => 2_871_763_200,
        2 => time_at(now).unix() + dice.time(Duration::from_hours(24 * 400)).as_secs(),
        3 => time_at(now).unix() - dice.time(Duration::from_hours(24 * 400)).as_secs(),
        _ => time_at(now).unix(),
    }
}

impl Event {
    /// Returns an event that repairs nothing.
    pub(crate) fn any(dice: &mut Dice, now: Duration) -> Self {
        let end = if dice.is(70) { End::PowerCut } else { End::Killed };
        let ask = |caller, now| Self::Ask(How { caller, now, deadline: None, is_forced: false });
        match dice.below(31) {
            0 | 1 => Self::End(end),
            2..=5 => Self::EndAfter(dice.below(14), end),
            6..=10 => Self::Weather(Weather::bad(dice)),
            11 => Self::Weather(Weather::Fine),
            12 => Self::Network(false),
            13 => Self::Network(true),
            14 => Self::ClockSet(some_clock(dice, now)),
            15 => Self::ClockSynchronised,
            16 => Self::Hold(true),
            17 => Self::Hold(false),
            18 | 19 => ask(Caller::Program, false),
            20 => ask(Caller::Person, false),
            21 | 22 => ask(Caller::Person, true),
            23 | 30 => Self::KeyRotated { is_old_listed: dice.is(50) },
            24 => Self::Disabled(dice.is(60)),
            25 => Self::AccountGone,
            26 => Self::PasswordChanged,
            27 => Self::Repaired,
            28 => Self::SessionsEnded,
            _ => Self::DirectoryRemoved,
        }
    }

    pub(crate) fn happen(self, world: &Arc<World>) {
        if !matches!(self, Self::Ask(_)) {
            world.tell(|| format!("* {self:?}"));
        }
        match self {
            Self::End(end) => world.end(end),
            Self::EndAfter(effects, end) => world.state().end_after = Some((effects, end)),
            Self::Weather(weather) => {
                let mut state = world.state();
                state.weather = weather;
                state.has_said_no_date |= weather == Weather::NoDate;
            }
            Self::Network(is_there) => network(world, is_there),
            Self::ClockSet(unix) => {
                let state = &mut *world.state();
                (state.wall, state.is_synchronised) = ((Timestamp::from_unix(unix), state.now), false);
            }
            Self::ClockSynchronised => {
                let state = &mut *world.state();
                let was_synchronised = state.is_synchronised;
                (state.wall, state.is_synchronised) = ((time_at(state.now), state.now), true);
                if !was_synchronised {
                    state.starts_again();
                }
            }
            Self::Hold(true) => hold(world),
            Self::Hold(false) => drop(fs::remove_file(world.root.join(HOLD_FILE))),
            Self::Ask(how) => device::asked(world, how),
            Self::KeyRotated { is_old_listed } => world.state().api.rotate(is_old_listed),
            Self::Disabled(is_disabled) => world.state().api.is_disabled = is_disabled,
            Self::AccountGone => world.state().api.password = None,
            Self::PasswordChanged => world.state().api.password = Some(format!("{PASSWORD}another-0042-0042-0042-0")),
            Self::Repaired => repair(world),
            Self::SessionsEnded => world.state().api.end_all_sessions(),
            Self::DirectoryRemoved => {
                let _ = fs::remove_dir_all(world.root.join("run/azaion"));
                // The record that a run in progress writes is not found by later runs.
                let mut state = world.state();
                state.conf += 1;
                state.starts_again();
            }
            Self::Mended => mend(world),
        }
    }
}

fn network(world: &World, is_there: bool) {
    let state = &mut *world.state();
    if is_there {
        // Another one than before, as its route shows.
        state.last_network = state.last_network % 7 + 1;
        state.network = state.last_network;
        state.starts_again();
    } else {
        state.network = 0;
    }
}

fn hold(world: &World) {
    let _ = fs::create_dir_all(world.root.join("run/azaion"));
    put(&world.root.join(HOLD_FILE), b"", 0o644);
}

/// Makes the account work again, at the API or by a new `device.conf`.
fn repair(world: &World) {
    let mut state = world.state();
    state.api.is_disabled = false;
    if state.dice.is(50) {
        state.api.password = Some(state.password.clone());
        return;
    }
    let random = state.dice.next();
    let password = state.api.password.get_or_insert_with(|| format!("{PASSWORD}{random:024x}")).clone();
    state.password.clone_from(&password);
    drop(state);
    device::provision(world);
}

fn mend(world: &World) {
    if world.state().network == 0 {
        network(world, true);
    }
    let is_wrong = {
        let mut state = world.state();
        (state.weather, state.end_after) = (Weather::Fine, None);
        state.api.is_disabled || state.api.password.as_deref() != Some(state.password.as_str())
    };
    if is_wrong {
        repair(world);
    }
    let _ = fs::remove_file(world.root.join(HOLD_FILE));
    world.tell(|| format!("the clock says {}", world.wall()));
    let state = &mut *world.state();
    // Counted while the device runs, which may not be for long.
    let is_refused =
        !state.api.refusals.is_empty() || state.api.last_refusal.is_some_and(|last| state.now < last + AFTER_REFUSAL);
    let asked = state.asked_until.saturating_sub(state.now);
    let most = if is_refused { AFTER_REFUSAL } else { asked + asked / 5 + AFTER_OUTAGE };
    state.bound = Some((state.now, most));
}
