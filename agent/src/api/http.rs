//! The HTTP client of both programs: rustls with our own clock, no redirects, only the configured proxy, answers of limited size.

mod answer;
mod ca_file;
mod certificate;
mod client;
mod tls;
mod verifier;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use reqwest::Method;
pub use reqwest::header::HeaderMap;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::api::fault::{Fault, Limit};
use crate::api::url::ApiUrl;
use crate::common::clock::{Clock, Timestamp};

pub use answer::{Answer, LARGEST_ANSWER, LONGEST_RETRY_AFTER};
pub use ca_file::CaFile;
pub use client::{Http, Options, Overtaken};
pub use verifier::{Chain, ChainVerifier};

/// The time by which certificates are validated.
pub trait TlsClock: Send + Sync + fmt::Debug {
    /// Returns the best estimate of the true time.
    fn now(&self) -> Timestamp;

    /// Returns the time since boot.
    fn boot(&self) -> Duration;

    /// Returns the lower bound of the true time if the time is unknown; `None` if [`TlsClock::now`] is reliable and no other time
    /// is accepted.
    fn unknown_since(&self) -> Option<Timestamp> {
        None
    }
}

impl<T: Clock> TlsClock for T {
    fn now(&self) -> Timestamp {
        self.wall()
    }

    fn boot(&self) -> Duration {
        Clock::boot(self)
    }
}

/// The client can't be created.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum HttpError {
    #[error("cannot read the CA file {}{}", path.display(), mode_hint(source))]
    CaFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the CA file {} has no usable certificate; it must be PEM", path.display())]
    NoCertificate { path: PathBuf },
    #[error("cannot create the HTTP client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Returns what to do about a world-readable file that can't be read; empty for other errors than a missing permission.
pub(crate) fn mode_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (it is not read as root: chmod 0644 it, and chmod 0755 its parent directories)"
        }
        _ => "",
    }
}

/// A client of the API: [`Http`] over the network, or a replacement in tests.
pub trait ApiClient: fmt::Debug + Sync {
    /// Returns the API's URL.
    fn api(&self) -> &ApiUrl;

    /// Makes one call; any status counts as an answer.
    ///
    /// # Errors
    /// There is no time for the call, no complete answer within `limit`, the answer is too large, or it has no `Date` while the
    /// time is unknown.
    fn call(&self, call: &Call<'_>, limit: Limit) -> Result<Answer, Fault>;

    /// Returns the current time according to the last answer over TLS.
    fn server_date(&self) -> Option<Timestamp>;
}

/// A request to the API. `Debug` does not show its body.
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The route, starting with a slash.
    pub path: &'a str,
    /// A JSON body.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// An access token.
    pub bearer: Option<&'a SecretString>,
    /// Whether caches on the way have to revalidate with the server.
    pub is_uncached: bool,
}

impl Call<'_> {
    /// Returns the name of the call in messages, such as `POST /login`.
    pub fn step(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.step()).finish()
    }
}

#[cfg(test)]
mod tests;
