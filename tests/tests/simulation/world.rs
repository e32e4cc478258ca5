//! The machine and its surroundings, on a clock that advances only during waits and calls.

use std::cell::Cell;
use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use azaion_agent::api::http::{ApiClient, HttpError, Options, Overtaken};
use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::clock::{Clock, Timestamp};
use azaion_agent::device::machine::Machine;
use azaion_agent::device::run::{Caller, How};
use azaion_agent::device::surroundings::Surroundings;
use azaion_agent::simulation::{Effect, Simulation};

use super::api::{Api, time_at};
use super::client::Client;
use super::dice::Dice;
use super::disk::Disk;
use super::events::Event;
use super::invariants;
use super::weather::Weather;

/// What ends a run from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    PowerCut,
    Killed,
}

/// A repeated wait lasts at least the idle time so far divided by this: a run that waits for an hour wakes up forty times,
/// not fourteen thousand.
const OVERSLEEP: u32 = 10;

pub(crate) struct World {
    pub(crate) root: PathBuf,
    /// Whether each line of the history is printed at once.
    is_told: bool,
    state: Mutex<State>,
    /// How many runs are in progress, one inside the wait of the other.
    pub(crate) depth: Mutex<usize>,
}

pub(crate) struct State {
    pub(crate) dice: Dice,
    pub(crate) now: Duration,
    pub(crate) booted: Duration,
    pub(crate) boot: u32,
    /// The wall clock: its value, and the virtual time at which it had that value.
    pub(crate) wall: (Timestamp, Duration),
    pub(crate) is_synchronised: bool,
    /// The number of the present network; 0 is none.
    pub(crate) network: u32,
    /// The number of the last network.
    pub(crate) last_network: u32,
    /// The pending events, the next one last.
    pub(crate) events: Vec<(Duration, Event)>,
    pub(crate) api: Api,
    pub(crate) weather: Weather,
    pub(crate) disk: Disk,
    pub(crate) password: String,
    /// Whether there were answers without a `Date`.
    pub(crate) has_said_no_date: bool,
    /// Effects on files until the run ends from outside.
    pub(crate) end_after: Option<(u64, End)>,
    /// When the current run began to wait idle.
    pub(crate) idle_since: Duration,
    /// The time until which the API asked not to be called.
    pub(crate) asked_until: Duration,
    /// Refusals that runs have had the time to record.
    pub(crate) noted_refusals: usize,
    /// The versions of `device.conf` and of the directory, and those with which each run began.
    pub(crate) conf: u32,
    pub(crate) how: (How, u32),
    /// Since when there are no faults, and how long the device may take to become ready.
    pub(crate) bound: Option<(Duration, Duration)>,
    pub(crate) calls: u64,
    pub(crate) violations: Vec<String>,
}

impl World {
    pub(crate) fn new(root: &Path, seed: u64, is_told: bool, make: impl FnOnce(&mut Dice) -> (Api, String)) -> Self {
        let mut dice = Dice::new(seed);
        let (api, password) = make(&mut dice);
        let state = State {
            dice,
            now: Duration::ZERO,
            booted: Duration::ZERO,
            boot: 0,
            wall: (time_at(Duration::ZERO), Duration::ZERO),
            is_synchronised: true,
            network: 1,
            last_network: 1,
            events: Vec::new(),
            api,
            weather: Weather::Fine,
            disk: Disk::new(&root.join("var/lib/azaion")),
            password,
            has_said_no_date: false,
            end_after: None,
            idle_since: Duration::ZERO,
            asked_until: Duration::ZERO,
            noted_refusals: 0,
            conf: 0,
            how: (How::default(), 0),
            bound: None,
            calls: 0,
            violations: Vec::new(),
        };
        Self { root: root.to_owned(), is_told, state: Mutex::new(state), depth: Mutex::new(0) }
    }

    /// A power cut unwinds through all of this, so a poisoned lock is expected.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        self.state().now
    }

    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>12.3}  {}", self.now().as_secs_f64(), line());
        }
    }

    pub(crate) fn violated(&self, what: impl AsRef<str>) {
        let what = what.as_ref();
        self.tell(|| format!("VIOLATION: {what}"));
        let mut state = self.state();
        let now = state.now;
        state.violations.push(format!("at {:.3} s: {what}", now.as_secs_f64()));
    }

    /// Advances the time, and runs all events until then.
    pub(crate) fn advance(self: &Arc<Self>, until: Duration) {
        while let Some(event) = self.next_event(until) {
            event.happen(self);
        }
        let mut state = self.state();
        state.now = state.now.max(until);
    }

    fn next_event(&self, until: Duration) -> Option<Event> {
        let mut state = self.state();
        let (when, event) = state.events.pop_if(|(when, _)| *when <= until)?;
        state.now = state.now.max(when);
        Some(event)
    }

    /// Advances the time, but no further than the next event.
    pub(crate) fn pass(self: &Arc<Self>, time: Duration) {
        let until = {
            let state = self.state();
            let next = state.events.last().map_or(Duration::MAX, |(when, _)| (*when).max(state.now));
            (state.now + time).min(next)
        };
        self.advance(until);
    }

    /// Ends the current run.
    pub(crate) fn end(&self, end: End) -> ! {
        self.tell(|| format!("{end:?}"));
        let mut state = self.state();
        let noted = state.noted_refusals;
        state.api.unheard(noted);
        state.noted_refusals = state.api.refusals.len();
        drop(state);
        resume_unwind(Box::new(end))
    }
}

thread_local! {
    /// The world of this thread, for code that has only a reference to it.
    static WORLD: Cell<Option<Arc<World>>> = const { Cell::new(None) };
}

pub(crate) fn set_current(world: Option<Arc<World>>) {
    WORLD.set(world);
}

fn current() -> Arc<World> {
    let world = WORLD.take().expect("a world");
    WORLD.set(Some(Arc::clone(&world)));
    world
}

/// Adds the agent's log to the history, and checks that it contains no secret.
struct Journal;

impl log::Log for Journal {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("azaion") {
            let (world, line) = (current(), record.args().to_string());
            world.tell(|| format!("    {}: {line}", record.level()));
            if invariants::is_secret(&line) {
                world.violated("a secret in the log");
            }
        }
    }

    fn flush(&self) {}
}

/// Makes the agent log into the history of its thread.
pub(crate) fn start_log() {
    static JOURNAL: Journal = Journal;
    if log::set_logger(&JOURNAL).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Clock for World {
    fn wall(&self) -> Timestamp {
        let state = self.state();
        let (shown, then) = state.wall;
        shown.plus(state.now.saturating_sub(then))
    }

    fn boot(&self) -> Duration {
        let state = self.state();
        state.now.saturating_sub(state.booted)
    }

    fn sleep(&self, time: Duration) {
        let idle = {
            let state = self.state();
            state.now.saturating_sub(state.idle_since)
        };
        current().pass(time.max(idle / OVERSLEEP));
    }

    fn is_synchronised(&self) -> bool {
        self.state().is_synchronised
    }
}

impl Machine for World {
    fn boot_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.state().boot)
    }

    fn surroundings(&self) -> Surroundings {
        let state = self.state();
        let network = (state.network > 0).then(|| format!("route eth0 {}", state.network));
        Surroundings::of(network.into_iter().chain(state.is_synchronised.then(|| "clock".to_owned())))
    }

    fn client(
        &self,
        api: &ApiUrl,
        options: Options<'_>,
        overtaken: Option<Overtaken>,
    ) -> Result<Box<dyn ApiClient>, HttpError> {
        Ok(Box::new(Client::new(current(), api, options.clock, overtaken)))
    }
}

/// Decides in place of the machine what happens to a run.
pub(crate) struct Fate(pub(crate) Arc<World>);

impl Simulation for Fate {
    fn random(&self) -> u32 {
        u32::try_from(self.0.state().dice.next() >> 32).unwrap_or_default()
    }

    fn effect(&self, effect: &Effect<'_>) {
        let end = {
            let mut state = self.0.state();
            state.disk.note(effect);
            match state.end_after {
                Some((0, end)) => {
                    state.end_after = None;
                    Some(end)
                }
                Some((effects, end)) => {
                    state.end_after = Some((effects - 1, end));
                    None
                }
                None => None,
            }
        };
        if let Some(end) = end {
            self.0.tell(|| format!("after {effect:?}:"));
            self.0.end(end);
        }
    }
}

impl State {
    /// Returns whether the run in progress began with the present `device.conf` and run directory.
    pub(crate) fn is_run_current(&self) -> bool {
        self.how.1 == self.conf
    }

    /// Records an event after which a device tries again at once.
    pub(crate) fn starts_again(&mut self) {
        self.asked_until = Duration::ZERO;
        self.api.unit_logins.clear();
    }
}

/// Returns whether a run of this caller respects the wait that the API asked for.
pub(crate) fn obeys(how: How) -> bool {
    !(how.now && how.caller == Caller::Person)
}
