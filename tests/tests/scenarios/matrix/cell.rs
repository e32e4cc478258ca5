//! One cell: a device that starts with this clock, and its result.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use azaion_agent::api::fault::chain;
use azaion_agent::common::clock::{Clock, Timestamp};
use azaion_agent::device::machine::Machine;
use azaion_agent::device::run::{Caller, Device, How, NotReady, Ready, run};
use azaion_agent::device::true_time::build_time;
use azaion_tests::dev_api::{BadToken, Body, Fault, Generation, Intermediary, Tls};
use azaion_tests::station::{EMAIL, SERIAL};
use tempfile::TempDir;

use super::Wall;
use super::place::{NAME, PASSWORD, Place, Server};

/// When name resolution starts to work, if it is late.
const NAMES_COME: Duration = Duration::from_secs(45);
/// How long a device that must not become ready is run.
const LONGEST_TRY: Duration = Duration::from_secs(3);
/// The longest wait between two tries of a run, see `azaion_agent::api::retry::POLICY`.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Time from the end of a run of the timer to the next.
const TIMER: Duration = Duration::from_mins(1);
/// Maximum number of the timer's runs.
const MOST_RUNS: usize = 10;

/// What is between device and API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    Nothing,
    LateNames,
    PageFirst,
    Proxy,
}

impl Between {
    /// Returns the possible intermediaries of this place.
    pub(super) fn all(place: &Place) -> impl Iterator<Item = Self> {
        let has_names = place.has_names();
        [Self::Nothing, Self::LateNames, Self::PageFirst, Self::Proxy]
            .into_iter()
            .filter(move |between| has_names || *between != Self::LateNames)
    }
}

/// What is wrong with the server, or with the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Forged,
    Foreign,
    Ended,
    Token(usize),
}

impl Flaw {
    /// Returns the flaws tested in a cell: each certificate, and one of the bad tokens in turn.
    pub(super) fn all(generation: Generation, turn: usize) -> [Self; 4] {
        [Self::Forged, Self::Foreign, Self::Ended, Self::Token(turn % tokens(generation).len())]
    }

    fn certificate(self, server: &Server) -> Tls {
        match self {
            Self::Forged => server.forged(),
            Self::Foreign => server.foreign(),
            Self::Ended => server.ended(),
            Self::Token(_) => server.genuine(),
        }
    }
}

/// Returns bad tokens; for G1 those that are detected without a signature.
fn tokens(generation: Generation) -> Vec<BadToken> {
    let claims = [
        BadToken::Expired(3600),
        BadToken::FromFuture(3600),
        BadToken::NoExp,
        BadToken::WrongIssuer,
        BadToken::WrongRole("ApiAdmin".into()),
        BadToken::WrongEmail("azaion-jetson-0043@azaion.com".into()),
        BadToken::NotAJwt,
    ];
    let signatures = [
        BadToken::AlgNone,
        BadToken::ForeignKey,
        BadToken::KeyConfusionPem,
        BadToken::TamperedPayload,
        BadToken::TamperedSignature,
        BadToken::OtherAlgorithm,
    ];
    let signatures = signatures.into_iter().filter(|_| generation != Generation::G1);
    claims.into_iter().chain(signatures).collect()
}

/// A clock that advances when the agent waits, and the events that depend on it.
#[derive(Debug)]
struct VirtualClock {
    start: Timestamp,
    passed: Mutex<Duration>,
    cell: Cell,
}

impl VirtualClock {
    fn passed(&self) -> Duration {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for VirtualClock {
    fn wall(&self) -> Timestamp {
        self.start.plus(self.passed())
    }

    fn boot(&self) -> Duration {
        Duration::from_secs(20) + self.passed()
    }

    fn sleep(&self, time: Duration) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *passed;
        *passed += time;
        let Cell { place, server, between, .. } = &self.cell;
        server.set_clock(server.now.plus(*passed)).expect("a time that i64 can hold");
        if *between == Between::LateNames && before < NAMES_COME && *passed >= NAMES_COME {
            place.name_server(true).expect("writing the test's own hosts file");
        }
    }
}

/// One cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) place: Arc<Place>,
    pub(super) server: Arc<Server>,
    pub(super) wall: Wall,
    pub(super) between: Between,
}

impl Cell {
    /// Returns the virtual time until a device is ready.
    pub(super) fn becomes_ready(&self) -> anyhow::Result<Duration> {
        let server = &self.server;
        server.api.serve_certificate(server.genuine())?;
        let device = self.device()?;
        if self.between == Between::PageFirst {
            let page = Intermediary { status: 403, body: Body::Page, retry_after: None };
            server.api.inject("POST", "/login", page.fault(), 1);
        }
        let how = How { caller: Caller::Unit, ..How::default() };
        let mut last = None;
        for _ in 0..MOST_RUNS {
            match device.run(how) {
                Ok(ready) => return self.check(&device, &ready),
                Err(error) => last = Some(error),
            }
            device.clock.sleep(TIMER);
        }
        bail!(
            "not ready after {:?}: {}",
            device.clock.passed(),
            last.as_ref().map_or(String::new(), |error| chain(error))
        )
    }

    /// Checks that the time that a ready device reports is true.
    fn check(&self, device: &VirtualDevice, ready: &Ready) -> anyhow::Result<Duration> {
        let (since, passed) = (ready.readiness.since.context("it has no time")?, device.clock.passed());
        let now = self.server.now.plus(passed);
        let off = now.since(since).max(since.since(now));
        ensure!(off <= Duration::from_mins(1), "ready since {since}, at {now}");
        if self.between == Between::LateNames {
            ensure!(passed >= NAMES_COME, "ready before names could be resolved");
        }
        Ok(passed)
    }

    /// Checks that a device does not become ready, and sends no password to a server that is not the API.
    pub(super) fn refuses(&self, flaw: Flaw) -> anyhow::Result<()> {
        let api = &self.server.api;
        api.serve_certificate(flaw.certificate(&self.server))?;
        let device = self.device()?;
        if let Flaw::Token(index) = flaw {
            let token = tokens(self.server.generation).get(index).cloned().context("the token exists")?;
            api.inject("POST", "/login", Fault::Token(token), usize::MAX);
        }
        let late = if self.between == Between::LateNames { NAMES_COME + LONGEST_WAIT } else { Duration::ZERO };
        let how = How { deadline: Some(late + LONGEST_TRY), ..How::default() };
        let result = device.run(how);
        api.clear_faults();
        let Err(error) = result else { bail!("it is ready") };
        let code = error.exit().code();
        let is_token = matches!(flaw, Flaw::Token(_));
        ensure!(code == if is_token { 76 } else { 75 }, "{code}: {}", chain(&error));
        ensure!(!device.root.path().join("run/azaion/token.json").exists(), "there is a token");
        let logins = api.calls("POST", "/login");
        ensure!(logins == usize::from(is_token), "{logins} logins");
        Ok(())
    }

    /// Creates a device that has just been switched on for the first time.
    #[expect(clippy::disallowed_methods, reason = "the test's own files")]
    fn device(&self) -> anyhow::Result<VirtualDevice> {
        let Self { place, server, .. } = self;
        server.api.forget_requests();
        server.set_clock(server.now)?;
        let has_names = place.has_names() && self.between == Between::LateNames;
        if has_names {
            place.name_server(false)?;
        }
        let own = server.api.url();
        let url = if has_names { own.replace("127.0.0.1", NAME) } else { own };
        let root = tempfile::tempdir()?;
        let etc = root.path().join("etc/azaion");
        fs::create_dir_all(&etc)?;
        let conf = format!(
            "AZAION_DEVICE_SERIAL={SERIAL}\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={PASSWORD}\nAZAION_API_URL={url}\n\
             AZAION_PROVISIONED_AT={}\n",
            place.floor
        );
        fs::write(etc.join("device.conf"), conf)?;
        fs::set_permissions(etc.join("device.conf"), fs::Permissions::from_mode(0o600))?;
        fs::copy(server.api.ca_file(), etc.join("ca.pem"))?;
        let proxy = format!("proxy = \"{}\"\n", place.proxy.url());
        let proxy = if self.between == Between::Proxy { proxy.as_str() } else { "" };
        fs::write(etc.join("agent.toml"), format!("ca_file = \"/etc/azaion/ca.pem\"\n{proxy}"))?;
        let clock = VirtualClock { start: self.start(), passed: Mutex::default(), cell: self.clone() };
        Ok(VirtualDevice { root, clock: Arc::new(clock) })
    }

    /// Returns the device's clock.
    fn start(&self) -> Timestamp {
        let (now, floor) = (self.server.now, self.place.floor);
        match self.wall {
            Wall::Start1970 => Timestamp::from_unix(20),
            Wall::BuildTime => build_time(),
            Wall::DayBeforeFloor => floor.minus(Duration::from_hours(24)),
            Wall::Right => now,
            Wall::YearAhead => now.plus(Duration::from_hours(365 * 24)),
            Wall::Start2061 => Timestamp::from_unix(2_871_763_200),
        }
    }
}

impl Machine for VirtualClock {}

/// A device of one cell.
struct VirtualDevice {
    root: TempDir,
    clock: Arc<VirtualClock>,
}

impl VirtualDevice {
    fn run(&self, how: How) -> Result<Ready, NotReady> {
        run(&Device::on(Arc::<VirtualClock>::clone(&self.clock), self.root.path()), how)
    }
}
