//! The one HTTP client of both programs: rustls with a clock of our own, no redirect, no proxy but the one that is configured,
//! bounded answers.

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
    /// The best guess at the true time.
    fn now(&self) -> Timestamp;

    /// Time since boot.
    fn boot(&self) -> Duration;

    /// The earliest that the true time can be, where nobody knows more; `None` where [`TlsClock::now`] is the time and nothing else
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

/// The API, as both programs call it: [`Http`] over the network, or something else in its place.
pub trait ApiClient: fmt::Debug + Sync {
    /// The API's address.
    fn api(&self) -> &ApiUrl;

    /// Makes one call; any status is an answer.
    ///
    /// # Errors
    /// No time for it, no whole answer within `limit`, one that is too large, or one that does not say the time where nobody knows it.
    fn call(&self, call: &Call<'_>, limit: Limit) -> Result<Answer, Fault>;

    /// What time it is by the last answer that came through TLS.
    fn server_date(&self) -> Option<Timestamp>;
}

/// A call to be made. `Debug` does not show its body.
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The route, starting with a slash.
    pub path: &'a str,
    /// A JSON body.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// An access token.
    pub bearer: Option<&'a SecretString>,
    /// Whether caches on the way are to ask the server themselves.
    pub is_uncached: bool,
}

impl Call<'_> {
    /// As messages name it, `POST /login`.
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
