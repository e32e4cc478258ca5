//! The environment of one thread's cells: a private network and `/etc/hosts`, servers and a proxy.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use azaion_agent::common::clock::Timestamp;
use azaion_agent::device::true_time::build_time;
use azaion_tests::dev_api::{DevApi, Generation, Options, Tls};
use azaion_tests::netns;
use azaion_tests::proxy::{Mode, Proxy};
use azaion_tests::station::EMAIL;
use nix::unistd::geteuid;
use tempfile::TempDir;

pub(super) const PASSWORD: &str = "device-password-0042";
/// A name that is in the server's certificate.
pub(super) const NAME: &str = "admin.azaion.test";

/// The environment of one thread.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) proxy: Proxy,
    /// When the devices were provisioned, which is their floor.
    pub(super) floor: Timestamp,
    dir: TempDir,
    has_names: bool,
}

impl Place {
    /// Creates the calling thread's environment, which its programs inherit. Names can be resolved as root only.
    pub(super) fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let has_names = geteuid().is_root();
        if has_names {
            let hosts = dir.path().join("hosts");
            File::create(&hosts)?;
            netns::leave_the_network()?;
            netns::find_in_place_of("/etc/hosts", &hosts)?;
        }
        let floor = build_time().plus(Duration::from_hours(10 * 24));
        Ok(Self { proxy: Proxy::start(Mode::Allow)?, floor, dir, has_names })
    }

    /// Returns whether the thread has a private `/etc/hosts`.
    pub(super) fn has_names(&self) -> bool {
        self.has_names
    }

    /// Adds or removes the address of the server's name.
    #[expect(
        clippy::disallowed_methods,
        reason = "a file of the test's own, which is bound to another name: it can't be replaced"
    )]
    pub(super) fn name_server(&self, has_address: bool) -> anyhow::Result<()> {
        let line = if has_address { format!("127.0.0.1 {NAME}\n") } else { String::new() };
        Ok(fs::write(self.dir.path().join("hosts"), line)?)
    }

    /// Starts a server whose certificate was issued so many seconds after the floor, for so many days.
    pub(super) fn server(&self, generation: Generation, (issued, days): (i64, i64)) -> anyhow::Result<Server> {
        let floor = i64::try_from(self.floor.unix())?;
        let at =
            |seconds: i64| anyhow::Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(floor + seconds)?));
        let (not_before, not_after) = (at(issued)?, at(issued + days * super::DAY)?);
        let api = DevApi::start(Options { generation, ..Options::default() })?;
        api.add_user(EMAIL, PASSWORD, "CompanionPC");
        // The floor has passed, whenever the certificate was issued.
        let now = at(issued.max(0) + 3600)?;
        let ended = (at(-91 * super::DAY)?, at(-1)?);
        Ok(Server { api, generation, not_before, not_after, now: now.into(), ended })
    }
}

/// A server, and its possible certificates.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) api: DevApi,
    pub(super) generation: Generation,
    not_before: SystemTime,
    not_after: SystemTime,
    /// The true time when a device starts.
    pub(super) now: Timestamp,
    /// A certificate that expired before the floor.
    ended: (SystemTime, SystemTime),
}

impl Server {
    pub(super) fn genuine(&self) -> Tls {
        Tls::Window { not_before: self.not_before, not_after: self.not_after }
    }

    pub(super) fn forged(&self) -> Tls {
        Tls::ForgedWindow { not_before: self.not_before, not_after: self.not_after }
    }

    pub(super) fn foreign(&self) -> Tls {
        Tls::ForeignWindow { not_before: self.not_before, not_after: self.not_after }
    }

    pub(super) fn ended(&self) -> Tls {
        Tls::Window { not_before: self.ended.0, not_after: self.ended.1 }
    }

    /// Sets the server's clock.
    pub(super) fn set_clock(&self, time: Timestamp) -> anyhow::Result<()> {
        let real = Timestamp::from(SystemTime::now()).unix();
        self.api.set_clock_offset(i64::try_from(time.unix())? - i64::try_from(real)?);
        Ok(())
    }
}
