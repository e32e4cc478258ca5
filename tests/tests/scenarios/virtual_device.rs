//! A device in this process, on a clock that moves only when somebody waits; the development API's clock moves with it.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use azaion_agent::clock::{Clock, Timestamp};
use azaion_agent::device::run::{Caller, Device, How, NotReady, Ready, run};
use azaion_tests::dev_api::Options;
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::Value;

pub(crate) const TOKEN: &str = "run/azaion/token.json";
pub(crate) const READY: &str = "run/azaion/ready.json";
pub(crate) const PASSWORD: &str = "device-password-0042";

/// From the end of a run of the timer to the next.
pub(crate) const TIMER: Duration = Duration::from_mins(1);

/// A run of the timer.
pub(crate) const BY_TIMER: How = How { caller: Caller::Unit, deadline: None, now: false, anew: false };

#[derive(Debug)]
struct VirtualClock {
    station: Arc<Station>,
    start: SystemTime,
    /// Since the start, and when the last boot was.
    passed: Mutex<(Duration, Duration)>,
}

impl VirtualClock {
    fn passed(&self) -> (Duration, Duration) {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for VirtualClock {
    fn wall(&self) -> Timestamp {
        (self.start + self.passed().0).into()
    }

    fn boot(&self) -> Duration {
        let (now, booted) = self.passed();
        now.saturating_sub(booted)
    }

    fn sleep(&self, time: Duration) {
        let before = self.passed().0.as_secs();
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.0 += time;
        self.station.api.shift_clock((passed.0.as_secs() - before).try_into().unwrap_or(i64::MAX));
    }
}

/// A provisioned device that has been running for a minute, with the station that it came from.
pub(crate) struct VirtualDevice {
    pub(crate) station: Arc<Station>,
    clock: Arc<VirtualClock>,
}

impl VirtualDevice {
    /// With an account and a `device.conf`, and a policy with these lines.
    pub(crate) fn new(options: Options, policy: &str) -> anyhow::Result<Self> {
        let station = Arc::new(Station::new(options)?);
        station.api.add_user(EMAIL, PASSWORD, "CompanionPC");
        let clock = Arc::new(VirtualClock {
            station: Arc::clone(&station),
            start: SystemTime::now(),
            passed: Mutex::new((Duration::from_mins(1), Duration::ZERO)),
        });
        let device = Self { station, clock };
        device.put_conf(PASSWORD)?;
        device.station.put_policy(policy)?;
        Ok(device)
    }

    /// One that is ready, and whose API has forgotten how that came about.
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

    /// What a run of the agent makes of it now.
    pub(crate) fn run(&self, how: How) -> Result<Ready, NotReady> {
        let mut device = Device::here(&self.station.rootfs());
        device.clock = Arc::<VirtualClock>::clone(&self.clock);
        run(&device, how)
    }

    /// The exit code of a run.
    pub(crate) fn exit(&self, how: How) -> i32 {
        self.run(how).map_or_else(|error| error.exit().code().into(), |_| 0)
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, time: Duration) {
        self.clock.sleep(time);
    }

    /// The runs of the timer in this time; whether all of them left the device ready.
    pub(crate) fn timer_for(&self, time: Duration) -> bool {
        let end = self.clock.passed().0 + time;
        let mut is_ready = true;
        while self.clock.passed().0 < end {
            self.wait(TIMER);
            is_ready &= self.run(BY_TIMER).is_ok();
        }
        is_ready
    }

    /// Power off, and on again.
    pub(crate) fn reboot(&self) -> anyhow::Result<()> {
        let run_dir = self.station.inside("run");
        if Path::new(&run_dir).exists() {
            fs::remove_dir_all(run_dir)?;
        }
        let mut passed = self.clock.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.1 = passed.0;
        Ok(())
    }

    /// A field of one of the agent's files; null where there is none.
    pub(crate) fn field(&self, file: &str, name: &str) -> Value {
        self.station.json(file).and_then(|content| content.get(name).cloned()).unwrap_or_default()
    }

    /// How many logins and refreshes there were.
    pub(crate) fn calls(&self) -> [usize; 2] {
        ["/login", "/token/refresh"].map(|path| self.station.api.calls("POST", path))
    }
}
