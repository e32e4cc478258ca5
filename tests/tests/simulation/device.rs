//! A device under systemd: boots, the timer, restarts, and other callers.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use azaion_agent::common::clock::Clock;
use azaion_agent::device::cache::TokenCache;
use azaion_agent::device::run::{Caller, Device, How, run};
use nix::fcntl::{Flock, FlockArg};

use super::api::{EMAIL, time_at};
use super::disk::put;
use super::events::some_clock;
use super::invariants::{self, Before};
use super::secrets::HOST;
use super::world::{End, World};

pub(crate) const HOLD_FILE: &str = "run/azaion/in-flight";
const RUN_DIR: &str = "run/azaion";
/// `RestartSec=` of the unit, after 75 and 76; from the end of any other run to the next of the timer.
const RESTART: Duration = Duration::from_millis(250);
const TIMER: Duration = Duration::from_mins(1);
/// Maximum time for which a device is off.
const MOMENT: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_hours(1);
const SHELF: Duration = Duration::from_hours(24 * 200);
const UNIT: How = How { caller: Caller::Unit, deadline: None, now: false, is_forced: false };
const PROGRAM: How = How { caller: Caller::Program, ..UNIT };

/// Writes `device.conf`, as the host tool does.
pub(crate) fn provision(world: &World) {
    let password = {
        let mut state = world.state();
        state.conf += 1;
        // Its credentials have not been refused yet.
        state.api.refusals.clear();
        state.noted_refusals = 0;
        state.starts_again();
        state.password.clone()
    };
    let text = format!(
        "AZAION_DEVICE_SERIAL=AZJN-0042\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={password}\nAZAION_API_URL=https://{HOST}\n"
    );
    fs::create_dir_all(world.root.join("etc/azaion")).unwrap();
    put(&world.root.join("etc/azaion/device.conf"), text.as_bytes(), 0o600);
}

/// Runs the agent for another caller: between two runs of the unit, or while one waits.
pub(crate) fn asked(world: &Arc<World>, how: How) {
    let depth = *world.depth.lock().unwrap();
    let is_locked = || {
        let file = fs::File::open(world.root.join(RUN_DIR).join("agent.lock"));
        file.is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err())
    };
    // A run that holds the lock cannot continue before this one ends.
    if depth < 2 && !is_locked() {
        let before = world.state().how;
        once(world, how);
        world.state().how = before;
    }
}

/// Runs the agent once, checks all that must hold after it, and returns its exit code.
pub(crate) fn once(world: &Arc<World>, how: How) -> u8 {
    {
        let mut state = world.state();
        state.how = (how, state.conf);
        state.idle_since = state.now;
    }
    world.tell(|| format!("{:?}{}, the clock says {}", how.caller, if how.now { " --now" } else { "" }, world.wall()));
    let device = Device::on(Arc::<World>::clone(world), &world.root);
    let before = Before::of(world, &device);
    *world.depth.lock().unwrap() += 1;
    let ended = catch_unwind(AssertUnwindSafe(|| run(&device, how)));
    *world.depth.lock().unwrap() -= 1;
    let ended = ended.unwrap_or_else(|end| resume_unwind(end));
    let code = ended.as_ref().map_or_else(|error| error.exit().code(), |_| 0);
    world.tell(|| match &ended {
        Ok(ready) => format!("  ready {} {:?}", ready.readiness.ready, ready.renewal_error),
        Err(error) => format!("  {code}: {}", azaion_agent::api::fault::chain(error)),
    });
    invariants::after_run(world, &device, &before, &ended);
    code
}

/// Runs the device until there are no more faults and it is ready.
pub(crate) fn live(world: &Arc<World>) {
    let mut pause = Duration::ZERO;
    loop {
        match catch_unwind(AssertUnwindSafe(|| boot(world, pause))) {
            Ok(()) => return,
            Err(payload) => match payload.downcast_ref::<End>() {
                Some(End::PowerCut) => {
                    power_cut(world);
                    pause = Duration::ZERO;
                }
                // The timer starts it again.
                Some(End::Killed) => {
                    invariants::after_kill(world);
                    pause = TIMER;
                }
                None => resume_unwind(payload),
            },
        }
        *world.depth.lock().unwrap() = 0;
    }
}

/// Runs the unit during one boot.
fn boot(world: &Arc<World>, mut pause: Duration) {
    let (mut runs, start) = (0, world.now());
    loop {
        let next = world.now() + pause;
        world.advance(next);
        let code = once(world, UNIT);
        let (now, bound) = (world.now(), world.state().bound);
        if let Some((since, most)) = bound {
            // With `renew = "on-demand"` the unit leaves the renewal to other callers.
            if code == 0 && !invariants::is_ready(world) {
                once(world, PROGRAM);
            }
            if invariants::is_ready(world) {
                return;
            }
            if now > since + most {
                world.violated(format!("all is well since {since:?}, and the device is not ready after {most:?}"));
                return;
            }
        }
        runs += 1;
        let most = 20 + 4 * now.saturating_sub(start).as_secs() / 60;
        if runs > most {
            world.violated(format!("{runs} runs of the unit in {:?}", now.saturating_sub(start)));
            return;
        }
        pause = match code {
            75 | 76 => RESTART,
            // While a token is fresh, a run of the timer changes nothing.
            0 => TIMER + quiet(world),
            _ => TIMER,
        };
    }
}

/// Returns how long the timer's runs can be skipped: a part of the time until the token must be renewed, or the next
/// event.
fn quiet(world: &World) -> Duration {
    let Some(cache) = TokenCache::read(&world.root.join(RUN_DIR)) else { return Duration::ZERO };
    let device = azaion_agent::device::cache::BootMoment {
        boot_id: azaion_agent::device::machine::Machine::boot_id(world),
        since_boot: world.boot(),
    };
    let left = cache.left(&device);
    let lifetime = cache.expires_at.since(cache.issued_at);
    let fresh = left.saturating_sub(lifetime / 3);
    let state = &mut *world.state();
    let next = state.events.last().map_or(fresh, |(when, _)| when.saturating_sub(state.now));
    let time = fresh.min(next);
    TIMER * u32::try_from(time.as_secs() / 60).unwrap_or_default()
}

/// Power failure and return: `/run` is empty, the disk has the synced data, and the clock is lost.
fn power_cut(world: &Arc<World>) {
    let _ = fs::remove_dir_all(world.root.join("run"));
    {
        let state = &mut *world.state();
        state.disk.cut(&mut state.dice);
        let off = state.dice.pick(&[MOMENT, MOMENT, MOMENT, HOUR, HOUR, SHELF]);
        let off = state.dice.time(off);
        state.now += off;
        // Otherwise it happens while the device is off.
        if state.dice.is(50) {
            state.events.iter_mut().for_each(|(when, _)| *when += off);
        }
        state.boot += 1;
        (state.booted, state.end_after) = (state.now, None);
        state.starts_again();
        if state.dice.is(60) {
            (state.wall, state.is_synchronised) = ((time_at(state.now), state.now), true);
        } else {
            let unix = some_clock(&mut state.dice, state.now);
            state.wall = (azaion_agent::common::clock::Timestamp::from_unix(unix), state.now);
            state.is_synchronised = false;
        }
    }
    world.tell(|| format!("=== another boot, the clock says {}", world.wall()));
    invariants::files(world);
}
