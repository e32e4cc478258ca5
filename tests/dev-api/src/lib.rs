//! The development admin API: a real HTTPS server that behaves like the admin API in each of its three generations,
//! with its own database of users, Argon2id hashes, ES256 keys and CA. Tests script faults into it and inspect the
//! requests it received.
//!
//! ```
//! use azaion_dev_api::{DevApi, Options};
//!
//! let api = DevApi::start(Options::default()).unwrap();
//! api.add_user("azaion-jetson-0042@azaion.com", "password-1", "CompanionPC");
//! assert!(api.url().starts_with("https://127.0.0.1:"));
//! assert_eq!(api.calls("POST", "/login"), 0);
//! ```

mod answers;
mod bad_tokens;
mod certificates;
mod devices;
mod faults;
mod hardware;
mod hashing;
mod intermediary;
mod keys;
pub mod limits;
mod login;
mod missions;
mod options;
mod roles;
mod routes;
mod server;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

pub use bad_tokens::BadToken;
pub use faults::Fault;
pub use intermediary::{Body, Intermediary, family};
pub use missions::{POST_FLIGHT_RECONNECT, Revocation};
pub use options::{Casing, ClaimNames, Generation, Hashing, Limiter, Options, Tls};
pub use roles::RoleForm;

use anyhow::Context as _;
use certificates::Authority;
use keys::Keys;
use state::{Log, State, lock};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use store::Store;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The e-mail of the only predefined user, which has the role `ApiAdmin`.
pub const ADMIN_EMAIL: &str = "admin@azaion.com";
/// The password of that user.
pub const ADMIN_PASSWORD: &str = "correct-horse-battery-staple-7";

/// A user of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The e-mail in its original spelling.
    pub email: String,
    /// The role, such as `CompanionPC`.
    pub role: String,
    /// Whether the user may log in.
    pub enabled: bool,
}

/// A request that the server received, without secrets.
#[derive(Debug, Clone)]
pub struct Request {
    /// The HTTP method.
    pub method: String,
    /// The path, percent-decoded, without the prefix and the query. It begins with `!` if the request lacked the
    /// prefix.
    pub path: String,
    /// The status of the answer; `None` until it is sent, and forever if the connection was closed instead.
    pub status: Option<u16>,
    /// The client's address.
    pub peer: IpAddr,
    /// When its header had arrived.
    pub at: Instant,
    /// The size of its body in bytes.
    pub body_bytes: usize,
    /// Whether it asks caches to revalidate (`Cache-Control: no-cache`).
    pub is_no_cache: bool,
}

/// A running server, with two threads for its connections. Dropping it closes the port and all
/// connections at once.
pub struct DevApi {
    state: Arc<State>,
    address: SocketAddr,
    folder: TempDir,
    /// `Some` until dropped.
    runtime: Option<Runtime>,
    stop: watch::Sender<()>,
    /// In a mutex only so that tests can share the server between threads.
    stopped: Mutex<mpsc::Receiver<()>>,
}

impl std::fmt::Debug for DevApi {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DevApi")
            .field("url", &self.url())
            .field("options", &self.state.options)
            .finish_non_exhaustive()
    }
}

impl DevApi {
    /// Starts a server; it accepts connections as soon as this returns.
    pub fn start(mut options: Options) -> anyhow::Result<Self> {
        options.path_prefix.truncate(options.path_prefix.trim_end_matches('/').len());
        let listen = options.listen;
        let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let folder = tempfile::tempdir().context("creating a directory for the CA")?;
        let state = Arc::new(new_state(options)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            // Argon2id takes 19 MiB a thread.
            .max_blocking_threads(16)
            .thread_name("dev-api")
            .enable_all()
            .build()
            .context("starting the server's threads")?;
        let (stop, stop_seen) = watch::channel(());
        let (done, stopped) = mpsc::channel();
        let serving = server::serve(listener, Arc::clone(&state), stop_seen);
        runtime.spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("dev-api: {error}");
            }
            // The receiver may be gone.
            let _ = done.send(());
        });
        let api = Self { state, address, folder, runtime: Some(runtime), stop, stopped: Mutex::new(stopped) };
        lock(&api.state.authority).write(&api.ca_file())?;
        Ok(api)
    }

    /// Returns the base URL with the path prefix and without a trailing slash.
    pub fn url(&self) -> String {
        let options = &self.state.options;
        let scheme = match options.tls {
            Tls::Plain => "http",
            _ => "https",
        };
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("{scheme}://{address}{}", options.path_prefix)
    }

    /// Returns the port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the path of the CA's PEM file.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Returns all users but the admin, in the order they were created.
    pub fn users(&self) -> Vec<User> {
        let accounts = must(self.state.store.accounts("", ""));
        let users = accounts.into_iter().map(User::from);
        users.filter(|user| user.email != ADMIN_EMAIL).collect()
    }

    /// Returns the user with this e-mail.
    pub fn user(&self, email: &str) -> Option<User> {
        must(self.state.store.account(email)).map(User::from)
    }

    /// Returns whether this is the user's password, by its Argon2id hash.
    pub fn password_is(&self, email: &str, password: &str) -> bool {
        must(self.state.store.account(email)).is_some_and(|account| hashing::verify(password, &account.hash))
    }

    /// Adds a user.
    ///
    /// # Panics
    /// When the e-mail exists.
    pub fn add_user(&self, email: &str, password: &str, role: &str) {
        let hash = must(self.state.options.hashing.hash(password));
        found(must(self.state.store.add(email, &hash, role)), email);
    }

    /// Sets a user's password.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn set_password(&self, email: &str, password: &str) {
        let hash = must(self.state.options.hashing.hash(password));
        found(must(self.state.store.set_hash(email, &hash)), email);
    }

    /// Disables a user, or enables it again if `disabled` is `false`.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn disable(&self, email: &str, disabled: bool) {
        found(must(self.state.store.set_enabled(email, !disabled)), email);
    }

    /// Requires a second factor of a user; G1 does not support this and ignores it.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn require_mfa(&self, email: &str) {
        found(must(self.state.store.set_mfa(email, true)), email);
    }

    /// Deletes a user with all sessions.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn delete_user(&self, email: &str) {
        found(must(self.state.store.delete(email)), email);
    }

    /// Returns the requests so far, in the order they arrived.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state.log).requests().cloned().collect()
    }

    /// Returns the number of requests with this method and path (without the prefix).
    pub fn calls(&self, method: &str, path: &str) -> usize {
        lock(&self.state.log).requests().filter(|request| request.method == method && request.path == path).count()
    }

    /// Clears the recorded requests.
    pub fn forget_requests(&self) {
        lock(&self.state.log).forget();
    }

    /// Scripts a fault for the next `times` requests of this route, after those scripted before; `usize::MAX` means
    /// always.
    pub fn inject(&self, method: &str, path: &str, fault: Fault, times: usize) {
        lock(&self.state.script).add(method, path, fault, times);
    }

    /// Drops all scripted faults.
    pub fn clear_faults(&self) {
        lock(&self.state.script).clear();
    }

    /// Signs with a new key from now on; the old key stays listed or is removed at once.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    pub fn rotate_keys(&self, keep_old_listed: bool) {
        must(lock(&self.state.keys).rotate(keep_old_listed));
    }

    /// Returns the current answer to the request for keys.
    pub fn key_list(&self) -> String {
        lock(&self.state.keys).jwks().to_string()
    }

    /// Serves new connections with a new certificate of the same kind, from a new CA if requested. The port and the
    /// open connections stay.
    pub fn renew_certificate(&self, new_ca: bool) -> anyhow::Result<()> {
        let mut authority = lock(&self.state.authority);
        if new_ca {
            *authority = Authority::new()?;
            authority.write(&self.ca_file())?;
        }
        *lock(&self.state.tls) = authority.server_config(self.state.options.tls)?;
        Ok(())
    }

    /// Serves new connections with a certificate of this kind from now on.
    pub fn serve_certificate(&self, tls: Tls) -> anyhow::Result<()> {
        *lock(&self.state.tls) = lock(&self.state.authority).server_config(tls)?;
        Ok(())
    }

    /// Returns whether the account is locked after too many consecutive failures.
    pub fn is_locked(&self, email: &str) -> bool {
        lock(&self.state.limits).is_locked(email, self.state.now())
    }

    /// Returns the failure counts of an account so far; counted only with [`Options::limits`].
    pub fn failures(&self, email: &str) -> limits::Failures {
        lock(&self.state.limits).failures(email)
    }

    /// Shifts the server's clock by so many seconds, on top of the current offset. Limits and sessions use this clock
    /// too.
    pub fn shift_clock(&self, seconds: i64) {
        self.state.clock_offset.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Sets the offset of the server's clock in seconds.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.state.clock_offset.store(seconds, Ordering::Relaxed);
    }

    /// Calls the hook once, when the next such request has arrived and before it is handled. If it panics, the
    /// connection is closed without an answer.
    pub fn on_request(&self, method: &str, path: &str, hook: Box<dyn FnOnce() + Send>) {
        lock(&self.state.hooks).push((method.to_owned(), path.to_owned(), hook));
    }
}

impl Drop for DevApi {
    fn drop(&mut self) {
        /// Far longer than a thread needs to stop.
        const PATIENCE: Duration = Duration::from_secs(5);
        // The next server may use the same port, so it must be free before this returns.
        let _ = self.stop.send(());
        let _ = lock(&self.stopped).recv_timeout(PATIENCE);
        if let Some(runtime) = self.runtime.take() {
            // Does not wait: this may run inside another runtime, where blocking is forbidden.
            runtime.shutdown_background();
        }
    }
}

impl From<store::Account> for User {
    fn from(account: store::Account) -> Self {
        Self { email: account.email, role: account.role, enabled: account.enabled }
    }
}

/// Creates the state that the connections share, with the admin in the database.
fn new_state(options: Options) -> anyhow::Result<State> {
    let store = Store::open(options.database.as_deref())?;
    // A database from an earlier start already has its admin.
    if store.account(ADMIN_EMAIL)?.is_none() {
        let hash = options.hashing.hash(ADMIN_PASSWORD)?;
        store.add(ADMIN_EMAIL, &hash, routes::ADMIN_ROLE)?;
    }
    let authority = Authority::new()?;
    Ok(State {
        tls: Mutex::new(authority.server_config(options.tls)?),
        authority: Mutex::new(authority),
        decoy_hash: options.hashing.hash(&hashing::random_hex::<16>()?)?,
        clock_offset: AtomicI64::new(options.clock_offset),
        keys: Mutex::new(Keys::generate()?),
        cached_keys: Mutex::default(),
        limits: Mutex::default(),
        script: Mutex::default(),
        hooks: Mutex::default(),
        log: Mutex::new(Log::default()),
        store,
        options,
    })
}

/// Returns the value or panics: a test's queries of its own database must succeed.
#[expect(clippy::panic, reason = "a test's own setup must fail loudly")]
fn must<T>(result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("dev-api: {error:#}"))
}

/// Panics if the user's existence was not as the test expected.
fn found(done: bool, email: &str) {
    assert!(done, "dev-api: the user {email} already exists, or does not exist");
}
