//! The history that follows from a seed.

use std::cmp::Reverse;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use azaion_agent::device::run::{Caller, How};
use azaion_agent::simulation::Running;

use super::api::{Api, Generation, PASSWORD};
use super::device;
use super::dice::Dice;
use super::disk::put;
use super::events::Event;
use super::invariants;
use super::weather::Weather;
use super::world::{End, Fate, World, set_current, start_log};

/// Event counts of all histories.
static TOTALS: [(&str, AtomicU64); 4] = [
    ("hours", AtomicU64::new(0)),
    ("calls", AtomicU64::new(0)),
    ("boots", AtomicU64::new(0)),
    ("refusals", AtomicU64::new(0)),
];

/// Returns the totals as text.
pub(crate) fn totals() -> String {
    TOTALS.iter().map(|(what, sum)| format!("{} {what}", sum.load(Ordering::Relaxed))).collect::<Vec<_>>().join(", ")
}

/// Runs the history of a seed, and returns its violations.
pub(crate) fn violations(seed: u64, root: &Path, is_told: bool) -> Option<String> {
    for entry in fs::read_dir(root).unwrap().flatten() {
        fs::remove_dir_all(entry.path()).unwrap();
    }
    let world = Arc::new(World::new(root, seed, is_told, |dice| {
        let password = format!("{PASSWORD}{:024x}", dice.next());
        (Api::new(dice.pick(&[Generation::G1, Generation::G2, Generation::G2b]), &password), password)
    }));
    start_log();
    set_current(Some(Arc::clone(&world)));
    let running = Running::start(Rc::new(Fate(Arc::clone(&world))));
    let ended = catch_unwind(AssertUnwindSafe(|| play(&world)));
    drop(running);
    set_current(None);
    let mut wrong = world.state().violations.clone();
    if ended.is_err() {
        wrong.push("it panics".to_owned());
    }
    (!wrong.is_empty()).then(|| {
        format!(
            "seed {seed}: {}\nreplay: AZAION_SEED={seed} cargo test -p azaion-tests --test simulation whatever -- --nocapture",
            wrong.join("; ")
        )
    })
}

fn prepare(world: &World) {
    fs::create_dir_all(world.root.join("etc/azaion")).unwrap();
    fs::create_dir_all(world.root.join("run")).unwrap();
    put(&world.root.join("etc/group"), b"azaion:x:987:\n", 0o644);
    device::provision(world);
    if world.state().dice.is(20) {
        put(&world.root.join("etc/azaion/agent.toml"), b"renew = \"on-demand\"\n", 0o644);
    }
}

/// Returns events that are rare by chance: the same one repeated within a short time, perhaps with wrong credentials;
/// or an outage from a boot on, in which the keys are rotated.
fn burst(dice: &mut Dice, length: Duration) -> Vec<(Duration, Event)> {
    let kind = dice.below(5);
    if kind == 4 {
        // Until the end, and not so long that a cache would have dropped the old list.
        let start = length.saturating_sub(Duration::from_mins(1) + dice.time(Duration::from_mins(50)));
        let rotated = start + dice.time(length.saturating_sub(start).saturating_sub(Duration::from_secs(1)));
        let outage = [(start, Event::Weather(Weather::Refused)), (start, Event::End(End::PowerCut))];
        return outage.into_iter().chain([(rotated, Event::KeyRotated { is_old_listed: true })]).collect();
    }
    let start = Duration::from_secs(dice.below(length.as_secs() / 2));
    let wrong = [Event::AccountGone, Event::PasswordChanged, Event::Disabled(true), Event::Weather(Weather::Fine)];
    let before = dice.pick(&wrong);
    let any = Event::any(dice, start);
    let pause = Duration::from_millis(500) + dice.time(Duration::from_mins(2));
    let mut again = |_| match kind {
        0 => Event::End(End::PowerCut),
        1 => Event::Ask(How { caller: Caller::Person, now: true, ..How::default() }),
        2 => Event::EndAfter(dice.below(8), End::Killed),
        _ => any,
    };
    let events = (0..12_u32).map(|number| (start + pause * number, again(number)));
    [(start, before)].into_iter().chain(events).filter(|(when, _)| *when < length).collect()
}

/// Returns the events up to the moment from which there are no faults; the first event is the last one.
fn plan(dice: &mut Dice) -> Vec<(Duration, Event)> {
    let longest = Duration::from_hours(if dice.is(5) { 60 } else { 5 });
    let length = Duration::from_mins(5) + dice.time(longest);
    let count = 1 + dice.below(9);
    let mut events: Vec<_> = (0..count)
        .map(|_| {
            let when = Duration::from_millis(dice.below(u64::try_from(length.as_millis()).unwrap()));
            // Some are at the start, and some soon after another one.
            let when = if dice.is(30) { dice.time(Duration::from_mins(3)) } else { when };
            (when, Event::any(dice, when))
        })
        .collect();
    if dice.is(30) {
        events.extend(burst(dice, length));
    }
    events.push((length, Event::Mended));
    events.sort_by_key(|(when, _)| Reverse(*when));
    events
}

fn play(world: &Arc<World>) {
    prepare(world);
    {
        let state = &mut *world.state();
        state.events = plan(&mut state.dice);
    }
    device::live(world);
    {
        let state = world.state();
        TOTALS[0].1.fetch_add(state.now.as_secs() / 3600, Ordering::Relaxed);
        TOTALS[1].1.fetch_add(state.calls, Ordering::Relaxed);
        TOTALS[2].1.fetch_add(u64::from(state.boot), Ordering::Relaxed);
        TOTALS[3].1.fetch_add(state.api.refusals.len() as u64, Ordering::Relaxed);
    }
    invariants::files(world);
    invariants::secrets(world);
}
