//! The device that the agent runs on: its files, its configuration and its machine (clocks, boot, network).

use std::path::Path;
use std::sync::Arc;

use nix::unistd::geteuid;

use crate::api::http::{ApiClient, CaFile, Http, HttpError, Options, Overtaken};
use crate::api::url::ApiUrl;
use crate::common::clock::Clock;
use crate::common::device_conf::{ConfFile, DeviceConf, DeviceConfError};

use super::cache::BootMoment;
use super::paths::Paths;
use super::readiness::FirstBoot;
use super::settings::{Settings, SettingsError};
use super::surroundings::Surroundings;
use super::time_sync::DeviceClock;
use super::true_time::TrueTime;

/// The machine that the agent runs on, without its files: clocks, boot and network. Tests supply their own.
pub trait Machine: Clock {
    /// Returns the id of this boot.
    fn boot_id(&self) -> String {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    }

    /// Reads the state of the network, and whether the clock is synchronised.
    fn surroundings(&self) -> Surroundings {
        Surroundings::read(self.is_synchronised())
    }

    /// Returns a client for the API, which gives up calls that are `overtaken`.
    ///
    /// # Errors
    /// The client can't be created.
    fn client(
        &self,
        api: &ApiUrl,
        options: Options<'_>,
        overtaken: Option<Overtaken>,
    ) -> Result<Box<dyn ApiClient>, HttpError> {
        let http = Http::new(api, options)?;
        Ok(Box::new(match overtaken {
            Some(overtaken) => http.given_up_when(overtaken),
            None => http,
        }))
    }
}

impl Machine for DeviceClock {}

/// The device that the agent runs on.
#[derive(Debug)]
pub struct Device {
    /// The paths of its files.
    pub paths: Paths,
    /// Its clocks and its network.
    pub machine: Arc<dyn Machine>,
    boot_id: String,
    /// The open `device.conf`, or why it can't be opened.
    conf_file: Result<ConfFile, DeviceConfError>,
    /// Whether the process was root when it opened `device.conf`.
    is_opened_by_root: bool,
}

/// The content of `device.conf` and of `agent.toml`, or the error of each.
pub type Configuration = (Result<DeviceConf, DeviceConfError>, Result<Settings, SettingsError>);

impl Device {
    /// Returns this machine, with its files below `root`. This opens `device.conf` only, so that the caller can give up
    /// root before anything is read.
    pub fn here(root: &Path) -> Self {
        Self::on(Arc::new(DeviceClock::new(&Paths::under(root))), root)
    }

    /// Returns another machine, with its files below `root`.
    pub fn on(machine: Arc<dyn Machine>, root: &Path) -> Self {
        let paths = Paths::under(root);
        Self {
            conf_file: ConfFile::open(&paths.device_conf()),
            is_opened_by_root: geteuid().is_root(),
            boot_id: machine.boot_id(),
            machine,
            paths,
        }
    }

    /// Reads the configuration: `device.conf`, which was opened at the start, and `agent.toml`, which may name the API.
    /// Each has its own error.
    pub fn configuration(&self) -> Configuration {
        let settings = Settings::read(&self.paths);
        let default_api = settings.as_ref().ok().and_then(|settings| settings.api_url.as_ref());
        let conf = self.conf_file.as_ref().map_err(Clone::clone).and_then(|file| file.read(default_api));
        (conf, settings)
    }

    /// Returns the fingerprint of `device.conf` ([`ConfFile::fingerprint`]); empty if the file could not be opened.
    pub fn conf_fingerprint(&self) -> &str {
        self.conf_file.as_ref().map_or("", ConfFile::fingerprint)
    }

    /// Returns whether reading `device.conf` failed only because the caller is not root.
    pub fn is_closed_to(&self, error: &DeviceConfError) -> bool {
        error.is_permission_denied() && !self.is_opened_by_root
    }

    /// Returns the present time on the boot clock.
    pub fn moment(&self) -> BootMoment {
        BootMoment { boot_id: self.boot_id.clone(), since_boot: self.machine.boot() }
    }

    /// Returns the true time, as far as it is known without an answer of the server.
    pub fn true_time(&self, conf: Option<&DeviceConf>) -> TrueTime {
        let remembered = FirstBoot::read(&self.paths.state_dir()).time;
        let clock = Arc::<dyn Machine>::clone(&self.machine);
        TrueTime::new(clock, conf.and_then(|conf| conf.provisioned_at), remembered)
    }

    /// Returns a client for the API, which gives up calls that are `overtaken`.
    ///
    /// # Errors
    /// The CA file that `agent.toml` names can't be used.
    pub fn client(
        &self,
        api: &ApiUrl,
        settings: &Settings,
        time: Arc<TrueTime>,
        overtaken: Option<Overtaken>,
    ) -> Result<Box<dyn ApiClient>, HttpError> {
        let ca_file = settings.ca_file.as_ref().map(|file| self.paths.under_root(file));
        let ca = ca_file.as_deref().map(CaFile::read).transpose()?;
        let options = Options { ca: ca.as_ref(), proxy: settings.proxy.as_ref(), clock: time };
        self.machine.client(api, options, overtaken)
    }
}
