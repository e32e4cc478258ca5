//! The one HTTP client of both programs: rustls with a clock of our own, no redirect, no proxy, bounded answers.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::OFlag;
pub use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, redirect};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

use crate::api_url::ApiUrl;
use crate::clock::{Timestamp, ToldTime};
use crate::fault::{Fault, Limit, Problem, class_of, needs_error_object};
use crate::json::error_code;
use crate::transport::Transport;

/// Bytes that an answer may have at most; a login answer has about two thousand.
pub const LARGEST_ANSWER: usize = 64 * 1024;
/// Bytes that a CA file may have at most; all of Mozilla's roots have 220,000.
const LARGEST_CA_FILE: u64 = 4 * 1024 * 1024;
/// The longest wait that a `Retry-After` can ask for: the longest that the agent itself imposes. A server that
/// wants more says so again, and a mistaken header can't put a unit out of service for years.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// How long a connection is kept that nobody uses: less than servers do (nginx: 75 s), which would close it under a call.
const LONGEST_IDLE: Duration = Duration::from_secs(20);

/// The wait for a `Retry-After` that can't be read. The server asks to wait, so it must not be asked again at once.
const UNREADABLE_RETRY_AFTER: Duration = Duration::from_mins(1);

/// What the time is for judging certificates.
pub trait TlsClock: Send + Sync + std::fmt::Debug {
    /// The best guess at the true time.
    fn now(&self) -> Timestamp;

    /// Time since boot.
    fn boot(&self) -> Duration;
}

/// The client can't be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum HttpError {
    #[error("reading the CA file {}{}", path.display(), mode_hint(source))]
    CaFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the CA file {} holds no certificate that can be used; it must be PEM", path.display())]
    NoCertificate { path: PathBuf },
    #[error("making the HTTP client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What to do about a file that is there for all to read, and can't be read.
pub(crate) fn mode_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (it is not read as root: chmod 0644 it, and 0755 the directories that it is in)"
        }
        _ => "",
    }
}

/// A call to be made. `Debug` does not show its body.
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The route, starting with a slash.
    pub path: &'static str,
    /// A JSON body.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// An access token.
    pub bearer: Option<&'a SecretString>,
    /// Whether caches on the way are to ask the server themselves.
    pub is_uncached: bool,
}

impl Call<'_> {
    /// As messages name it, `POST /login`.
    fn step(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.step()).finish()
    }
}

/// An answer, whatever its status. `Debug` does not show its body.
pub struct Answer {
    step: String,
    host: String,
    /// The HTTP status.
    pub status: u16,
    /// How long the server asked to wait, at most [`LONGEST_RETRY_AFTER`].
    pub retry_after: Option<Duration>,
    /// The `Date` header.
    pub date: Option<Timestamp>,
    /// The certificate that the server showed (DER); none where there was no TLS.
    pub certificate: Option<Vec<u8>>,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// The body of an answer with an expected status.
    ///
    /// # Errors
    /// Any other status, with what it means; or a web page, which is not from the API, whatever its status is.
    pub fn accept(&self, statuses: &[u16]) -> Result<&[u8], Fault> {
        let is_page = self.body.trim_ascii_start().starts_with(b"<");
        if statuses.contains(&self.status) {
            return if is_page { Err(self.fault(Problem::NotJson)) } else { Ok(&self.body) };
        }
        let code = error_code(&self.body);
        let class = class_of(self.status, code, self.retry_after.is_some());
        Err(self.fault(match self.status {
            status @ 300..=399 => Problem::Redirect(status),
            status if is_page && needs_error_object(status) => Problem::Page { status, class },
            status => Problem::Status { status, code, class },
        }))
    }

    /// A fault of this answer.
    pub fn fault(&self, problem: Problem) -> Fault {
        Fault { step: self.step.clone(), host: self.host.clone(), retry_after: self.retry_after, problem }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.step).field(&self.host).field(&self.status).finish()
    }
}

/// The client, for one API.
#[derive(Debug)]
pub struct Http {
    api: ApiUrl,
    client: reqwest::Client,
    /// There until the client is dropped.
    runtime: Option<Runtime>,
    /// What the last answer that came through TLS said the time is.
    date: ToldTime,
    clock: Arc<dyn TlsClock>,
}

impl Drop for Http {
    fn drop(&mut self) {
        // A name lookup that hangs (getaddrinfo can't be cancelled) must not hold the end of the program up.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A file with CA certificates (PEM).
#[derive(Clone, Debug)]
pub struct CaFile {
    path: PathBuf,
    pem: Vec<u8>,
}

impl CaFile {
    /// Reads it.
    ///
    /// # Errors
    /// [`HttpError::CaFile`].
    pub fn read(path: &Path) -> Result<Self, HttpError> {
        // O_NONBLOCK: a FIFO in this place must not hang the boot.
        let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        Self::read_from(file, path)
    }

    /// Reads one that is open, or was to be; `path` is for messages.
    ///
    /// # Errors
    /// [`HttpError::CaFile`].
    pub fn read_from(file: io::Result<File>, path: &Path) -> Result<Self, HttpError> {
        let mut pem = Vec::new();
        let fail = |source| HttpError::CaFile { path: path.to_owned(), source };
        file.and_then(|file| file.take(LARGEST_CA_FILE + 1).read_to_end(&mut pem)).map_err(fail)?;
        if pem.len() as u64 > LARGEST_CA_FILE {
            let message = format!("it is larger than {} MiB; leave in it only what is needed", LARGEST_CA_FILE >> 20);
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, message)));
        }
        Ok(Self { path: path.to_owned(), pem })
    }
}

impl Http {
    /// A client that trusts the usual roots (Mozilla's) and those of `ca`, and judges certificates by `clock`.
    ///
    /// # Errors
    /// The CA file can't be used, or the system refuses what a client needs.
    #[expect(clippy::disallowed_methods, reason = "this is the one constructor")]
    pub fn new(api: &ApiUrl, ca: Option<&CaFile>, clock: Arc<dyn TlsClock>) -> Result<Self, HttpError> {
        let localhost = [([127, 0, 0, 1], 0).into(), ([0, 0, 0, 0, 0, 0, 0, 1], 0).into()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(ca, Arc::clone(&clock))?)
            .tls_info(true)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .pool_idle_timeout(LONGEST_IDLE)
            // A loopback address by name stays one, whatever /etc/hosts says.
            .resolve_to_addrs("localhost", &localhost)
            .user_agent(concat!("azaion/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| HttpError::Client(e.into()))?;
        // A thread of its own sees at once that the server has closed a connection that nobody uses: a call that goes out on one
        // may or may not have been carried out.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| HttpError::Client(e.into()))?;
        Ok(Self { api: api.clone(), client, runtime: Some(runtime), date: ToldTime::default(), clock })
    }

    /// The API that this client talks to.
    pub fn api(&self) -> &ApiUrl {
        &self.api
    }

    /// Makes one call; any status is an answer.
    ///
    /// # Errors
    /// No time for it, no whole answer within `limit`, or one larger than [`LARGEST_ANSWER`].
    pub fn call(&self, call: &Call<'_>, limit: Limit) -> Result<Answer, Fault> {
        let host = || self.api.authority().to_owned();
        let fail = |problem| Fault { step: call.step(), host: host(), retry_after: None, problem };
        let limit = limit.map_err(|why| fail(Problem::NotCalled(why)))?;
        let request = self.request(call, limit).map_err(|e| fail(transport(&e)))?;
        // The runtime is gone only once the client is.
        let runtime = self.runtime.as_ref().ok_or_else(|| fail(Problem::Form("the client is gone")))?;
        runtime.block_on(async {
            let response = self.client.execute(request).await.map_err(|e| fail(transport(&e)))?;
            let mut answer = self.head_of(call.step(), &response);
            answer.body = body_of(response).await.map_err(fail)?;
            self.learn(&answer);
            Ok(answer)
        })
    }

    fn learn(&self, answer: &Answer) {
        if let (Some(date), Some(_)) = (answer.date, &answer.certificate) {
            self.date.learn(date, self.clock.boot());
        }
    }

    /// What time it is by the last answer that came through TLS.
    pub fn server_date(&self) -> Option<Timestamp> {
        self.date.at(self.clock.boot())
    }

    fn request(&self, call: &Call<'_>, limit: Duration) -> reqwest::Result<reqwest::Request> {
        let mut request = self.client.request(call.method.clone(), self.api.route(call.path)).timeout(limit);
        if let Some(bearer) = call.bearer {
            request = request.header(AUTHORIZATION, bearer_header(bearer));
        }
        if call.is_uncached {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        if let Some(body) = &call.body {
            // The request needs a copy of its own, which is wiped as ours is.
            request = request.header(CONTENT_TYPE, "application/json").body(Bytes::from_owner(body.clone()));
        }
        request.build()
    }

    fn head_of(&self, step: String, response: &Response) -> Answer {
        let certificate = response.extensions().get::<reqwest::tls::TlsInfo>().and_then(|tls| tls.peer_certificate());
        let date = text(response.headers(), &DATE).and_then(Timestamp::from_http_date);
        Answer {
            step,
            host: self.api.authority().to_owned(),
            status: response.status().as_u16(),
            retry_after: response
                .headers()
                .get(RETRY_AFTER)
                .map(|value| retry_after(value.to_str().unwrap_or(""), date)),
            date,
            certificate: certificate.map(<[u8]>::to_vec),
            body: Zeroizing::default(),
        }
    }
}

fn transport(error: &reqwest::Error) -> Problem {
    let (kind, detail) = Transport::of(error);
    Problem::Transport { kind, detail, before_request: error.is_connect() }
}

fn bearer_header(token: &SecretString) -> HeaderValue {
    let text = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    // Wiped when the last that shares it is dropped. A token that can't stand in a header is no token; the server will
    // say so.
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(text));
    let mut value = value.unwrap_or_else(|_| HeaderValue::from_static("Bearer invalid"));
    value.set_sensitive(true);
    value
}

async fn body_of(mut response: Response) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // As large as it can get from the start: a Vec that grows leaves copies of the token behind.
    let length = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut body = Zeroizing::new(Vec::with_capacity(length.unwrap_or(LARGEST_ANSWER).min(LARGEST_ANSWER)));
    while let Some(chunk) = response.chunk().await.map_err(|e| transport(&e))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Problem::TooLarge(LARGEST_ANSWER));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn text<'a>(headers: &'a HeaderMap, name: &reqwest::header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or an HTTP date, which counts from the answer's own `Date`.
fn retry_after(value: &str, date: Option<Timestamp>) -> Duration {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        Some(value.parse().map_or(Duration::MAX, Duration::from_secs))
    } else {
        Timestamp::from_http_date(value).zip(date).map(|(until, now)| until.since(now))
    };
    wait.unwrap_or(UNREADABLE_RETRY_AFTER).min(LONGEST_RETRY_AFTER)
}

fn tls_config(ca: Option<&CaFile>, clock: Arc<dyn TlsClock>) -> Result<ClientConfig, HttpError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(ca) = ca {
        add_roots(&mut roots, ca)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(CertificateTime(clock)))
        .with_safe_default_protocol_versions()
        .map_err(|e| HttpError::Client(e.into()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn add_roots(roots: &mut RootCertStore, ca: &CaFile) -> Result<(), HttpError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&ca.pem).collect();
    let (added, _) = roots.add_parsable_certificates(certificates.unwrap_or_default());
    if added == 0 {
        return Err(HttpError::NoCertificate { path: ca.path.clone() });
    }
    Ok(())
}

/// Lets rustls see our clock.
#[derive(Debug)]
struct CertificateTime(Arc<dyn TlsClock>);

impl TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now().unix())))
    }
}

impl<T: crate::clock::Clock> TlsClock for T {
    fn now(&self) -> Timestamp {
        self.wall()
    }

    fn boot(&self) -> Duration {
        crate::clock::Clock::boot(self)
    }
}

#[cfg(test)]
mod tests;
