//! The device: its files, and the machine that it is.

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

/// The machine that the agent runs on, but for its files: clocks, boot and network. A test may have one of its own.
pub trait Machine: Clock {
    /// Which boot this is.
    fn boot_id(&self) -> String {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    }

    /// What a call to the API needs of the machine, as it is now.
    fn surroundings(&self) -> Surroundings {
        Surroundings::read(self.is_synchronised())
    }

    /// A client for the API; it gives calls up that are `overtaken`.
    ///
    /// # Errors
    /// The client can't be made.
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
    /// Where its files lie.
    pub paths: Paths,
    /// Its clocks and its network.
    pub machine: Arc<dyn Machine>,
    boot_id: String,
    /// `device.conf`, and whether it was root that opened it.
    conf_file: Result<ConfFile, DeviceConfError>,
    is_opened_by_root: bool,
}

/// `device.conf` and `agent.toml`, or what is wrong with each.
pub type Configuration = (Result<DeviceConf, DeviceConfError>, Result<Settings, SettingsError>);

impl Device {
    /// This machine, with its files under `root`. Of these only `device.conf` is opened here, so that the caller can
    /// give up root before anything is read.
    pub fn here(root: &Path) -> Self {
        Self::on(Arc::new(DeviceClock::new(&Paths::under(root))), root)
    }

    /// The same on another machine.
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

    /// Reads the configuration: `device.conf`, as it was opened at the start, and the fleet's policy, which may name the API.
    /// Each of them can be wrong without the other.
    pub fn configuration(&self) -> Configuration {
        let settings = Settings::read(&self.paths);
        let default_api = settings.as_ref().ok().and_then(|settings| settings.api_url.as_ref());
        let conf = self.conf_file.as_ref().map_err(Clone::clone).and_then(|file| file.read(default_api));
        (conf, settings)
    }

    /// Which `device.conf` was opened, as [`ConfFile::fingerprint`]; empty if it could not be opened.
    pub fn conf_fingerprint(&self) -> &str {
        self.conf_file.as_ref().map_or("", ConfFile::fingerprint)
    }

    /// Whether `device.conf` could not be read only because the caller is not root.
    pub fn is_closed_to(&self, error: &DeviceConfError) -> bool {
        error.is_permission_denied() && !self.is_opened_by_root
    }

    /// Now, on the boot clock.
    pub fn moment(&self) -> BootMoment {
        BootMoment { boot_id: self.boot_id.clone(), since_boot: self.machine.boot() }
    }

    /// What time it is, as far as is known without asking the server.
    pub fn true_time(&self, conf: Option<&DeviceConf>) -> TrueTime {
        let remembered = FirstBoot::read(&self.paths.state_dir()).time;
        let clock = Arc::<dyn Machine>::clone(&self.machine);
        TrueTime::new(clock, conf.and_then(|conf| conf.provisioned_at), remembered)
    }

    /// A client for the API; it gives calls up that are `overtaken`.
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
