//! A device in this process, on a clock that advances only during waits; the development API's clock advances with it.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use azaion_agent::common::clock::{Clock, Timestamp};
use azaion_agent::device::machine::Machine;
use azaion_agent::device::run::{Caller, Device, How, NotReady, Ready, run};
use azaion_tests::dev_api::Options;
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::Value;

pub(crate) const TOKEN: &str = "run/azaion/token.json";
pub(crate) const READY: &str = "run/azaion/ready.json";
const FIRST_BOOT: &str = "var/lib/azaion/first-boot.json";
pub(crate) const PASSWORD: &str = "device-password-0042";

/// `RestartSec=` of the unit, after 75 and 76.
const RESTART: Duration = Duration::from_millis(250);
/// Time from the end of a run of the timer to the next.
pub(crate) const TIMER: Duration = Duration::from_mins(1);

/// A run of the unit, started by the timer.
pub(crate) const BY_TIMER: How = by(Caller::Unit);
/// A run for a program that needs a token.
pub(crate) const BY_PROGRAM: How = by(Caller::Program);
/// A manual run, `azaion-agent boot`.
pub(crate) const BY_PERSON: How = by(Caller::Person);

const fn by(caller: Caller) -> How {
    How { caller, deadline: None, now: false, is_forced: false }
}

/// The least time by which a wait advances the clock: a run that waits for an hour checks its state four times a
/// second.
const SHORTEST: Duration = Duration::from_secs(2);

type Event = (Duration, Box<dyn FnOnce(&Station) + Send>);

struct VirtualClock {
    station: Arc<Station>,
    start: SystemTime,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Time since the start.
    now: Duration,
    /// The time of the last boot.
    booted: Duration,
    boots: u32,
    /// The pending events in chronological order.
    events: Vec<Event>,
}

impl VirtualClock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.state().now
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualClock").finish_non_exhaustive()
    }
}

impl Clock for VirtualClock {
    fn wall(&self) -> Timestamp {
        (self.start + self.now()).into()
    }

    fn boot(&self) -> Duration {
        let state = self.state();
        state.now.saturating_sub(state.booted)
    }

    fn sleep(&self, time: Duration) {
        let mut state = self.state();
        let before = state.now.as_secs();
        state.now += time.max(SHORTEST);
        let now = state.now;
        let due: Vec<Event> = state.events.extract_if(.., |(when, _)| *when <= now).collect();
        drop(state);
        self.station.api.shift_clock((now.as_secs() - before).try_into().unwrap_or(i64::MAX));
        for (_, event) in due {
            event(&self.station);
        }
    }
}

impl Machine for VirtualClock {}

/// A provisioned device that has been running for a minute, with its host.
pub(crate) struct VirtualDevice {
    pub(crate) station: Arc<Station>,
    clock: Arc<VirtualClock>,
}

impl VirtualDevice {
    /// Creates it with an account and a `device.conf`, and a policy with these lines.
    pub(crate) fn new(options: Options, policy: &str) -> anyhow::Result<Self> {
        let station = Arc::new(Station::new(options)?);
        station.api.add_user(EMAIL, PASSWORD, "CompanionPC");
        let clock = Arc::new(VirtualClock {
            station: Arc::clone(&station),
            start: SystemTime::now(),
            state: Mutex::new(State { now: Duration::from_mins(1), ..State::default() }),
        });
        let device = Self { station, clock };
        device.put_conf(PASSWORD)?;
        device.station.put_policy(policy)?;
        Ok(device)
    }

    /// Creates one that is ready, with the API's records cleared.
    pub(crate) fn ready(options: Options, policy: &str) -> anyhow::Result<Self> {
        let device = Self::new(options, policy)?;
        device.run(BY_TIMER)?;
        device.station.api.forget_requests();
        Ok(device)
    }

    /// Writes `device.conf` with this password.
    pub(crate) fn put_conf(&self, password: &str) -> anyhow::Result<()> {
        let lines = format!(
            "AZAION_DEVICE_SERIAL={SERIAL}\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={password}\nAZAION_API_URL={}\n",
            self.station.api.url()
        );
        self.station.put("rootfs/etc/azaion/device.conf", lines, 0o600)
    }

    /// Runs the agent once and returns its result.
    pub(crate) fn run(&self, how: How) -> Result<Ready, NotReady> {
        let device = Device::on(Arc::<VirtualClock>::clone(&self.clock), &self.station.rootfs());
        let ended = run(&device, how);
        self.station.check_json().expect("files match their schemas");
        ended
    }

    /// Returns the exit code of a run.
    pub(crate) fn exit(&self, how: How) -> i32 {
        self.run(how).map_or_else(|error| error.exit().code().into(), |_| 0)
    }

    /// Advances the clock.
    pub(crate) fn wait(&self, time: Duration) {
        self.clock.sleep(time);
    }

    /// Schedules an event after this time, whichever run is waiting then.
    pub(crate) fn after(&self, time: Duration, event: impl FnOnce(&Station) + Send + 'static) {
        let when = self.clock.now() + time;
        self.clock.state().events.push((when, Box::new(event)));
    }

    /// Runs the unit for this time, as its timer and `Restart=` start it; returns whether all runs left the device
    /// ready. A unit that is started more often than four times a minute is in a loop.
    pub(crate) fn timer_for(&self, time: Duration) -> bool {
        let end = self.clock.now() + time;
        let (mut pause, mut is_ready, mut runs) = (TIMER, true, 0);
        while self.clock.now() < end {
            self.wait(pause);
            let code = self.exit(BY_TIMER);
            pause = if [75, 76].contains(&code) { RESTART } else { TIMER };
            is_ready &= code == 0;
            runs += 1;
            assert!(runs <= 10 + 4 * time.as_secs() / 60, "{runs} runs");
        }
        is_ready
    }

    /// Power off, and on again: another boot, without the files in `/run`.
    pub(crate) fn reboot(&self) -> anyhow::Result<()> {
        let run_dir = self.station.inside("run");
        if run_dir.exists() {
            fs::remove_dir_all(run_dir)?;
        }
        let mut state = self.clock.state();
        (state.booted, state.boots) = (state.now, state.boots + 1);
        // This machine's boot id stays the same: change the agent's record to that of an earlier boot.
        if let Some(record) = self.station.json(FIRST_BOOT) {
            let this_boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
            let earlier = record.to_string().replace(this_boot.trim(), &format!("boot-{}", state.boots));
            self.station.put(&format!("rootfs/{FIRST_BOOT}"), earlier, 0o644)?;
        }
        Ok(())
    }

    /// Returns a field of one of the agent's files; null if there is none.
    pub(crate) fn field(&self, file: &str, name: &str) -> Value {
        self.station.json(file).and_then(|content| content.get(name).cloned()).unwrap_or_default()
    }

    /// Returns the numbers of logins and refreshes.
    pub(crate) fn calls(&self) -> [usize; 2] {
        ["/login", "/token/refresh"].map(|path| self.station.api.calls("POST", path))
    }
}
