//! The device's job: `device.conf` → login → claims → cache → readiness, once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::device_conf::{DeviceConf, DeviceConfError};
use crate::exit::Exit;
use crate::fault::{Class, Fault, Problem, chain};
use crate::http::{Answer, Http, HttpError};
use crate::keys;
use crate::retry::{POLICY, Retry};
use crate::session::{self, Tokens};
use crate::token::{self, Accepted, Expected};

use super::backoff::{AFTER_REFUSAL, Backoff};
use super::cache::{self, BootMoment, TokenCache};
use super::files::{FileError, Folder, token_group};
use super::paths::Paths;
use super::readiness::{FirstBoot, Readiness};
use super::settings::{Settings, SettingsError};
use super::true_time::TrueTime;

/// The machine that the agent runs on.
#[derive(Debug)]
pub struct Device {
    /// Where its files lie.
    pub paths: Paths,
    /// Its clocks.
    pub clock: Arc<dyn Clock>,
    boot_id: String,
}

impl Device {
    /// This machine, with its files under `root`.
    pub fn here(root: &Path) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { paths: Paths::under(root), clock: Arc::new(SystemClock), boot_id: boot_id.trim().to_owned() }
    }

    /// Now, on the boot clock.
    pub fn moment(&self) -> BootMoment {
        BootMoment { boot_id: self.boot_id.clone(), since_boot: self.clock.boot() }
    }

    /// What time it is, as far as is known without asking the server.
    pub fn true_time(&self, conf: Option<&DeviceConf>) -> TrueTime {
        let remembered = FirstBoot::read(&self.paths.state_dir()).and_then(|known| known.highest_time);
        let provisioned = conf.and_then(|conf| conf.provisioned_at);
        TrueTime::new(Arc::clone(&self.clock), remembered.into_iter().chain(provisioned))
    }

    /// The client for this device's API.
    ///
    /// # Errors
    /// The CA file that `agent.toml` names can't be used.
    pub fn http(&self, conf: &DeviceConf, settings: &Settings, time: Arc<TrueTime>) -> Result<Http, HttpError> {
        let ca_file = settings.ca_file.as_ref().map(|file| self.paths.place(file));
        Http::new(&conf.api_url, ca_file.as_deref(), time)
    }
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// How long to try, where not as `agent.toml` says.
    pub deadline: Option<Duration>,
    /// Whether a person asks, who knows better than the wait in `backoff.json`.
    pub now: bool,
}

/// The unit is ready.
#[derive(Debug)]
pub struct Ready {
    /// The token.
    pub cache: TokenCache,
    /// What `ready.json` says.
    pub readiness: Readiness,
    /// Whether it was not before this run.
    pub is_news: bool,
    /// What kept the token from being renewed, though it is still valid.
    pub trouble: Option<String>,
}

/// The unit is not ready.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum NotReady {
    #[error("the device's configuration can't be used")]
    Conf(#[from] DeviceConfError),
    #[error("the fleet's policy can't be used")]
    Settings(#[from] SettingsError),
    #[error("the HTTP client can't be made")]
    Http(#[from] HttpError),
    #[error("no token from the admin API")]
    Fault(#[from] Fault),
    #[error("no login is tried for another {} s, `azaion-agent boot --now` tries at once; the last run said: {reason}", left.as_secs())]
    Waiting { exit: Exit, left: Duration, reason: String },
    #[error("a file of the agent's own can't be used")]
    File(#[from] FileError),
}

impl NotReady {
    /// Whether a token that is still valid may be used on: what is wrong is not the account or the configuration.
    fn spares_a_valid_token(&self) -> bool {
        matches!(self.exit(), Exit::Later | Exit::Protocol)
    }

    /// The exit code that tells why.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Http(HttpError::Client(_)) | Self::File(_) => Exit::Internal,
            Self::Conf(_) | Self::Settings(_) | Self::Http(_) => Exit::Config,
            Self::Fault(fault) => fault.class().on_device(),
            Self::Waiting { exit, .. } => *exit,
        }
    }
}

/// Makes the unit ready, or says why it is not; `ready.json` says the same afterwards.
///
/// A token that is fresh is left alone without a call. While a token is still valid, a failed renewal leaves the
/// unit ready, unless the account itself is refused.
///
/// # Errors
/// Why the unit is not ready.
pub fn run(device: &Device, how: How) -> Result<Ready, NotReady> {
    let folder = Folder::open(&device.paths.run_dir(), token_group(&device.paths))?;
    let _one_at_a_time = folder.lock()?;
    let conf = match DeviceConf::read(&device.paths.device_conf()) {
        Ok(conf) => conf,
        Err(error) => return Err(give_up(&folder, None, error.into())),
    };
    let settings = match Settings::read(&device.paths.settings()) {
        Ok(settings) => settings,
        Err(error) => return Err(give_up(&folder, Some(&conf), error.into())),
    };
    let attempt = Attempt { device, how, folder: &folder, conf: &conf, settings: &settings };
    let now = device.moment();
    let cached =
        TokenCache::read(&device.paths.run_dir()).filter(|cache| cache.is_of(&conf) && !cache.left(&now).is_zero());
    match cached {
        Some(cache) if cache.is_fresh(&now) => attempt.ready(cache, None),
        Some(cache) => match attempt.new_token() {
            Err(error) if error.spares_a_valid_token() => attempt.ready(cache, Some(chain(&error))),
            renewed => attempt.settle(renewed),
        },
        None => attempt.settle(attempt.new_token()),
    }
}

/// What `ready.json` and the loader see when a unit is not ready: the reason, and no token.
fn give_up(folder: &Folder, conf: Option<&DeviceConf>, error: NotReady) -> NotReady {
    let readiness = Readiness::not_ready(conf, error.exit(), chain(&error));
    let recorded = cache::clear(folder).and_then(|()| readiness.write(folder));
    if let Err(other) = recorded {
        log::error!("{}", chain(&other));
    }
    error
}

struct Attempt<'a> {
    device: &'a Device,
    how: How,
    folder: &'a Folder,
    conf: &'a DeviceConf,
    settings: &'a Settings,
}

impl Attempt<'_> {
    fn settle(&self, token: Result<TokenCache, NotReady>) -> Result<Ready, NotReady> {
        match token {
            Ok(cache) => self.ready(cache, None),
            Err(error) => Err(give_up(self.folder, Some(self.conf), error)),
        }
    }

    /// Writes that the unit is ready.
    fn ready(&self, cache: TokenCache, trouble: Option<String>) -> Result<Ready, NotReady> {
        let before = Readiness::read(&self.device.paths.run_dir()).filter(|before| before.ready);
        let since = before.as_ref().and_then(|before| before.since);
        let readiness = Readiness {
            ready: true,
            since: since.or_else(|| Some(self.device.true_time(Some(self.conf)).now().max(cache.issued_at))),
            expires_at: Some(cache.expires_at),
            signature: Some(cache.signature),
            ..Readiness::of(self.conf)
        };
        readiness.write(self.folder)?;
        Ok(Ready { cache, readiness, is_news: before.is_none(), trouble })
    }

    /// A token from the server, judged and in the cache; or a note for later runs that they must wait.
    fn new_token(&self) -> Result<TokenCache, NotReady> {
        let conf_file = self.device.paths.device_conf();
        let moment = self.device.moment();
        let waiting = Backoff::in_force(&self.device.paths.run_dir(), &moment, &conf_file);
        if let Some(waiting) = waiting.filter(|_| !self.how.now) {
            let left = waiting.left(&moment);
            return Err(NotReady::Waiting { exit: waiting.exit(), left, reason: waiting.reason });
        }
        let result = self.ask();
        match &result {
            Ok(_) => Backoff::clear(self.folder)?,
            Err(NotReady::Fault(fault)) => {
                let refused = (fault.class() == Class::Refused).then_some(AFTER_REFUSAL);
                if let Some(wait) = refused.or(fault.retry_after.filter(|_| fault.class().is_transient())) {
                    let exit = fault.class().on_device();
                    Backoff::new(&self.device.moment(), wait, exit, chain(fault), &conf_file).write(self.folder)?;
                }
            }
            Err(_) => {}
        }
        result
    }

    /// Keys, then login: while the keys are out of reach, no login of the ten a minute is spent.
    fn ask(&self) -> Result<TokenCache, NotReady> {
        let time = Arc::new(self.device.true_time(Some(self.conf)));
        let http = self.device.http(self.conf, self.settings, Arc::clone(&time))?;
        let deadline = self.how.deadline.unwrap_or(self.settings.deadline());
        let retry = Retry::within(deadline, POLICY, self.device.clock.as_ref());
        let keys = retry.run(|limit| keys::fetch(&http, limit))?;
        let (tokens, answer) = match self.refreshed(&http)? {
            Some(refreshed) => refreshed,
            None => retry.run(|limit| session::login(&http, &self.conf.email, &self.conf.password, limit))?,
        };
        time.learn(&answer);
        let expected = Expected {
            email: &self.conf.email,
            issuer: &self.settings.issuer,
            audience: self.settings.audience.as_deref(),
            signature: self.settings.signature,
        };
        let accepted = token::judge(&tokens.access, &keys, expected, time.now())
            .map_err(|error| answer.fault(Problem::Token(error)))?;
        self.keep(tokens, &answer, &accepted, &time)
    }

    /// A session renewed without the password, where there is one. Tried once: a refresh token works once, and
    /// whatever goes wrong, a login puts it right.
    fn refreshed(&self, http: &Http) -> Result<Option<(Tokens, Answer)>, NotReady> {
        let run_dir = self.device.paths.run_dir();
        let now = self.device.moment();
        let ours = TokenCache::read(&run_dir).is_some_and(|cache| cache.is_of(self.conf) && cache.is_of_boot(&now));
        let Some(refresh) = cache::take_refresh(self.folder, &run_dir)?.filter(|_| ours) else {
            return Ok(None);
        };
        let result = session::refresh(http, &refresh, POLICY.call);
        if let Err(fault) = &result {
            log::info!("the session can't be renewed, logging in again: {}", chain(fault));
        }
        Ok(result.ok())
    }

    fn keep(
        &self,
        tokens: Tokens,
        answer: &Answer,
        accepted: &Accepted,
        time: &TrueTime,
    ) -> Result<TokenCache, NotReady> {
        let now = time.now();
        let cache = TokenCache::new(self.conf, tokens.access, accepted, now, self.device.moment());
        let state_dir = self.device.paths.state_dir();
        let known = FirstBoot::read(&state_dir);
        FirstBoot::after(known, now, time.sure_of(answer, accepted)).write(&Folder::open(&state_dir, None)?)?;
        cache::write(self.folder, &cache, tokens.refresh)?;
        Ok(cache)
    }
}
