//! The device's job: `device.conf` → login → claims → cache → readiness, once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;

use crate::api_url::ApiUrl;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::device_conf::{ConfFile, DeviceConf, DeviceConfError};
use crate::exit::Exit;
use crate::fault::{Class, Fault, Problem, chain};
use crate::http::{Answer, CaFile, Http, HttpError};
use crate::keys;
use crate::private_file::Lifetime;
use crate::retry::{Budget, POLICY};
use crate::session::{self, Tokens};
use crate::token::{self, Accepted};

use super::backoff::{AFTER_REFUSAL, AFTER_UNACCEPTABLE, Backoff, Patience};
use super::board::{self, Board, WrongBoard};
use super::cache::{self, BootMoment, TokenCache};
use super::files::{FileError, Folder, token_group};
use super::floor::Memory;
use super::history;
use super::paths::Paths;
use super::privileges::PrivilegesError;
use super::readiness::{FirstBoot, Readiness};
use super::settings::{DEFAULT_DEADLINE, Settings, SettingsError};
use super::true_time::TrueTime;

/// The machine that the agent runs on.
#[derive(Debug)]
pub struct Device {
    /// Where its files lie.
    pub paths: Paths,
    /// Its clocks.
    pub clock: Arc<dyn Clock>,
    boot_id: String,
    /// `device.conf`, and whether it was root that opened it.
    conf_file: Result<ConfFile, DeviceConfError>,
    is_opened_by_root: bool,
}

impl Device {
    /// This machine, with its files under `root`. Of these only `device.conf` is opened here, so that the caller can
    /// give up root before anything is read.
    pub fn here(root: &Path) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let paths = Paths::under(root);
        Self {
            conf_file: ConfFile::open(&paths.device_conf()),
            is_opened_by_root: geteuid().is_root(),
            paths,
            clock: Arc::new(SystemClock),
            boot_id: boot_id.trim().to_owned(),
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

    /// Whether `device.conf` could not be read only because the caller is not root.
    pub fn is_closed_to(&self, error: &DeviceConfError) -> bool {
        error.is_permission_denied() && !self.is_opened_by_root
    }

    /// Now, on the boot clock.
    pub fn moment(&self) -> BootMoment {
        BootMoment { boot_id: self.boot_id.clone(), since_boot: self.clock.boot() }
    }

    /// What time it is, as far as is known without asking the server.
    pub fn true_time(&self, conf: Option<&DeviceConf>) -> TrueTime {
        let remembered = FirstBoot::read(&self.paths.state_dir()).map(|known| known.time).unwrap_or_default();
        TrueTime::new(Arc::clone(&self.clock), conf.and_then(|conf| conf.provisioned_at), remembered)
    }

    /// A client for the API.
    ///
    /// # Errors
    /// The CA file that `agent.toml` names can't be used.
    pub fn http(&self, api: &ApiUrl, settings: &Settings, time: Arc<TrueTime>) -> Result<Http, HttpError> {
        let ca_file = settings.ca_file.as_ref().map(|file| self.paths.place(file));
        let ca = ca_file.as_deref().map(CaFile::read).transpose()?;
        Http::new(api, ca.as_ref(), time)
    }
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// How long to try, where not as `agent.toml` says.
    pub deadline: Option<Duration>,
    /// Whether a person asks, who knows better than the wait in `backoff.json`.
    pub now: bool,
    /// Whether to get a new token even while there is a fresh one.
    pub anew: bool,
    /// Whether the timer asks, which comes again in a minute; a person who has just mended the server need not wait.
    pub by_timer: bool,
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
    /// Whether the token is a new one.
    pub is_renewed: bool,
    /// What kept the token from being renewed, though it is still valid.
    pub trouble: Option<String>,
}

/// The unit is not ready.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum NotReady {
    #[error("the device's configuration can't be used")]
    Conf(#[from] DeviceConfError),
    #[error("this unit was flashed with another unit's image")]
    Board(#[from] WrongBoard),
    #[error("the fleet's policy can't be used")]
    Settings(#[from] SettingsError),
    #[error("the HTTP client can't be made")]
    Http(#[from] HttpError),
    #[error("no token from the admin API")]
    Fault(#[from] Fault),
    #[error("no login is tried for another {} s, `azaion-agent boot --now` tries at once; the last run said: {reason}", left.as_secs())]
    Waiting { exit: Exit, left: Duration, reason: String },
    #[error("another run of the agent is at it and did not end in time")]
    Busy,
    #[error("only root can renew the token; run this as root, or wait for azaion-agent.timer")]
    NotRoot(#[source] DeviceConfError),
    #[error("a file of the agent's own can't be used")]
    File(#[from] FileError),
    #[error("the agent does not go on as root")]
    Privileges(#[from] PrivilegesError),
}

impl NotReady {
    /// Whether a token that is still valid may be used on: what is wrong is not the account or the configuration.
    fn spares_a_valid_token(&self) -> bool {
        matches!(self.exit(), Exit::Later | Exit::Protocol)
    }

    /// The exit code that tells why.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Http(HttpError::Client(_)) | Self::File(_) | Self::Privileges(_) => Exit::Internal,
            Self::Conf(_) | Self::Board(_) | Self::Settings(_) | Self::Http(_) => Exit::Config,
            Self::Fault(fault) => fault.class().on_device(),
            Self::Waiting { exit, .. } => *exit,
            Self::Busy | Self::NotRoot(_) => Exit::Later,
        }
    }

    /// Whether this run has found out something; the others repeat what an earlier one did.
    pub fn is_news(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Busy | Self::NotRoot(_))
    }
}

/// Logs what a device is ready without: a device with a token and a full disk, or without a usable /var, is ready all the same.
fn or_warn(done: Result<(), FileError>) {
    done.unwrap_or_else(|error| log::warn!("{}", chain(&error)));
}

/// Makes the unit ready, or says why it is not; `ready.json` says the same afterwards.
///
/// A token that is fresh is left alone without a call. While a token is still valid, a failed renewal leaves the
/// unit ready, unless the account itself is refused.
///
/// # Errors
/// Why the unit is not ready.
pub fn run(device: &Device, how: How) -> Result<Ready, NotReady> {
    let (conf, settings) = match device.configuration() {
        (Err(error), _) if device.is_closed_to(&error) => return Err(NotReady::NotRoot(error)),
        other => other,
    };
    let deadline = how.deadline.unwrap_or_else(|| settings.as_ref().map_or(DEFAULT_DEADLINE, Settings::deadline));
    let until = device.clock.boot().saturating_add(deadline);
    let folder = Folder::open(&device.paths.run_dir(), token_group(&device.paths), Lifetime::ThisBoot)?;
    let Some(_one_at_a_time) = folder.lock(deadline, device.clock.as_ref())? else { return Err(NotReady::Busy) };
    let outcome = run_alone(device, how, until, &folder, (conf, settings));
    history::record_outcome(device, outcome.as_ref());
    outcome
}

/// `device.conf` and `agent.toml`, or what is wrong with each.
pub type Configuration = (Result<DeviceConf, DeviceConfError>, Result<Settings, SettingsError>);

/// A run that has the lock.
fn run_alone(
    device: &Device,
    how: How,
    until: Duration,
    folder: &Folder,
    (conf, settings): Configuration,
) -> Result<Ready, NotReady> {
    let conf_fingerprint = device.conf_file.as_ref().map_or("", ConfFile::fingerprint).to_owned();
    folder.sweep()?;
    or_warn(sweep_state(&device.paths.state_dir()));
    let conf = match conf {
        Ok(conf) => conf,
        // The address may be what could not be read in agent.toml.
        Err(error)
            if error.lacks_api_url()
                && let Err(error) = settings =>
        {
            return Err(give_up(folder, None, error.into()));
        }
        Err(error) => return Err(give_up(folder, None, error.into())),
    };
    // Who this unit is is not known then: what is told of another one would be taken for that one's state.
    let board = board::judge(&device.paths, &conf).map_err(|error| give_up(folder, None, error.into()))?;
    let settings = settings.map_err(|error| give_up(folder, Some(&conf), error.into()))?;
    let left = until.saturating_sub(device.clock.boot());
    let attempt = Attempt { device, how, left, folder, conf: &conf, conf_fingerprint, settings: &settings };
    let ready = attempt.run()?;
    if let Board::Unknown(why) = board
        && ready.is_news
    {
        log::warn!("whether this is the module that device.conf is for can't be told: {why}");
    }
    Ok(ready)
}

fn sweep_state(state_dir: &Path) -> Result<(), FileError> {
    if state_dir.exists() { Folder::open(state_dir, None, Lifetime::Durable)?.sweep() } else { Ok(()) }
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

/// What a run found or did about the token.
enum Token {
    /// It is fresh: nothing was asked.
    Fresh,
    /// It is new.
    Renewed,
    /// It is an old one that is still valid; why there is no new one.
    Spared(String),
}

struct Attempt<'a> {
    device: &'a Device,
    how: How,
    /// The time left for calls.
    left: Duration,
    folder: &'a Folder,
    conf: &'a DeviceConf,
    conf_fingerprint: String,
    settings: &'a Settings,
}

impl Attempt<'_> {
    fn run(&self) -> Result<Ready, NotReady> {
        let cached = self.cached().filter(|cache| !cache.left(&self.device.moment()).is_zero());
        if let Some(cache) = cached.as_ref().filter(|_| !self.how.anew).filter(|c| c.is_fresh(&self.device.moment())) {
            let now = self.device.true_time(Some(self.conf)).now();
            return self.ready(cache.clone(), now, Token::Fresh);
        }
        match self.new_token(cached.is_some()) {
            Ok((cache, now)) => self.ready(cache, now, Token::Renewed),
            Err(error) => {
                // A renewal that failed may have taken the rest of the old token's life.
                let spared =
                    cached.filter(|c| error.spares_a_valid_token() && !c.left(&self.device.moment()).is_zero());
                let Some(cache) = spared else { return Err(give_up(self.folder, Some(self.conf), error)) };
                let now = self.device.true_time(Some(self.conf)).now();
                self.ready(cache, now, Token::Spared(chain(&error)))
            }
        }
    }

    fn cached(&self) -> Option<TokenCache> {
        TokenCache::read(&self.device.paths.run_dir()).filter(|cache| cache.is_of(self.conf, self.settings))
    }

    /// Writes that the unit is ready; `now` is the best known true time.
    fn ready(&self, cache: TokenCache, now: Timestamp, token: Token) -> Result<Ready, NotReady> {
        let before = Readiness::read(&self.device.paths.run_dir()).filter(|before| before.ready);
        let readiness = Readiness {
            ready: true,
            since: before.as_ref().and_then(|before| before.since).or(Some(now)),
            expires_at: Some(cache.expires_at),
            signature: Some(cache.signature),
            user_id: cache.user_id.clone(),
            ..Readiness::of(self.conf)
        };
        readiness.write(self.folder)?;
        let is_renewed = matches!(token, Token::Renewed);
        let trouble = if let Token::Spared(trouble) = token { Some(trouble) } else { None };
        Ok(Ready { cache, readiness, is_news: before.is_none(), is_renewed, trouble })
    }

    /// A token from the server, judged and in the cache; or a note for later runs that they must wait. While there is a
    /// token that is still valid, nothing is sat out: others want it, and a sleeping run would keep it locked.
    fn new_token(&self, has_valid: bool) -> Result<(TokenCache, Timestamp), NotReady> {
        let clock = self.device.clock.as_ref();
        let patience = Patience::new(self.how.by_timer && !has_valid, clock.boot());
        if let Some(waiting) = self.waiting() {
            let left = waiting.left(&self.device.moment());
            match patience.pause(left, clock.boot()) {
                Some(pause) => self.sit_out(pause, waiting.reason),
                None => return Err(NotReady::Waiting { exit: waiting.exit(), left, reason: waiting.reason }),
            }
        }
        loop {
            let fault = match self.ask() {
                Err(NotReady::Fault(fault)) => fault,
                Err(other) => return Err(other),
                Ok(token) => {
                    Backoff::clear(self.folder)?;
                    return Ok(token);
                }
            };
            self.note_wait(&fault)?;
            let asked = fault.retry_after.filter(|_| fault.class().is_transient());
            let Some(pause) = asked.and_then(|wait| patience.pause(wait, clock.boot())) else {
                return Err(fault.into());
            };
            self.sit_out(pause, chain(&fault));
        }
    }

    /// What an earlier run was told to wait for, if that is for this one, too.
    fn waiting(&self) -> Option<Backoff> {
        let waiting = Backoff::in_force(&self.device.paths.run_dir(), &self.device.moment(), &self.conf_fingerprint)?;
        let is_for_us = !self.how.now && (self.how.by_timer || waiting.exit() != Exit::Protocol);
        is_for_us.then_some(waiting)
    }

    /// Sleeps; what others see of the unit meanwhile is that it is not ready.
    fn sit_out(&self, pause: Duration, reason: String) {
        log::info!("trying again in {:.0} s, as the server asks: {reason}", pause.as_secs_f32());
        give_up(self.folder, Some(self.conf), NotReady::Waiting { exit: Exit::Later, left: pause, reason });
        self.device.clock.sleep(pause);
    }

    fn note_wait(&self, fault: &Fault) -> Result<(), FileError> {
        let wait = match fault.class() {
            Class::Refused => Some(AFTER_REFUSAL),
            Class::Unacceptable if self.how.by_timer => Some(AFTER_UNACCEPTABLE),
            class => fault.retry_after.filter(|_| class.is_transient()),
        };
        let Some(wait) = wait else { return Ok(()) };
        let (now, exit) = (self.device.moment(), fault.class().on_device());
        Backoff::new(&now, wait, exit, chain(fault), self.conf_fingerprint.clone()).write(self.folder)
    }

    /// Login, then keys: refused credentials must show as such whatever else is wrong. While the keys are out of reach
    /// they are asked for again, without another login.
    fn ask(&self) -> Result<(TokenCache, Timestamp), NotReady> {
        let time = Arc::new(self.device.true_time(Some(self.conf)));
        let http = self.device.http(&self.conf.api_url, self.settings, Arc::clone(&time))?;
        // Even a run that is at its deadline makes one call.
        let budget = Budget::new(self.left.max(POLICY.least), POLICY, self.device.clock.as_ref());
        let (tokens, answer) = match self.refreshed(&http, &budget)? {
            Some(refreshed) => refreshed,
            None => budget
                .run(|limit| session::login(&http, &self.conf.email, &self.conf.password, limit))
                .inspect_err(|fault| self.note_expired(fault, &time))?,
        };
        time.learn(&answer)?;
        let keys = budget.run(|limit| keys::fetch(&http, limit))?;
        let accepted = token::judge(&tokens.access, &keys, self.settings.expected(&self.conf.email), time.now())
            .map_err(|error| answer.fault(Problem::Token(error)))?;
        self.keep(tokens, &answer, &accepted, &time)
    }

    /// A session renewed without the password, where there is one. Tried once: a refresh token works once, and
    /// whatever goes wrong, a login puts it right; but not at once where the server asks to wait.
    fn refreshed(&self, http: &Http, budget: &Budget<'_>) -> Result<Option<(Tokens, Answer)>, NotReady> {
        let now = self.device.moment();
        let is_ours = self.cached().is_some_and(|cache| cache.is_of_boot(&now));
        let refresh = cache::take_refresh(self.folder, &self.device.paths.run_dir())?;
        let Some(refresh) = refresh.filter(|_| is_ours) else { return Ok(None) };
        match budget.once(|limit| session::refresh(http, &refresh, limit)) {
            Ok(refreshed) => Ok(Some(refreshed)),
            Err(fault) if fault.retry_after.is_some() && fault.class().is_transient() => Err(fault.into()),
            Err(fault) => {
                log::info!("the session can't be renewed, logging in again: {}", chain(&fault));
                Ok(None)
            }
        }
    }

    fn keep(
        &self,
        tokens: Tokens,
        answer: &Answer,
        accepted: &Accepted,
        time: &TrueTime,
    ) -> Result<(TokenCache, Timestamp), NotReady> {
        let now = time.now();
        let cache = TokenCache::new(self.conf, tokens.access, accepted, now, self.device.moment());
        cache::write(self.folder, &cache, tokens.refresh)?;
        or_warn(self.remember(now, time.after_answer(answer, accepted, &self.device.moment())));
        Ok((cache, now))
    }

    fn remember(&self, now: Timestamp, time: Memory) -> Result<(), FileError> {
        let state_dir = self.device.paths.state_dir();
        let folder = Folder::open(&state_dir, None, Lifetime::Durable)?;
        FirstBoot::after(FirstBoot::read(&state_dir), now, time).write(&folder)
    }

    /// Remembers that the floor may be what makes the certificate look expired.
    fn note_expired(&self, fault: &Fault, time: &TrueTime) {
        let Some(memory) = time.after_fault(fault, &self.device.moment()) else { return };
        or_warn(self.remember(time.now(), memory));
    }
}
