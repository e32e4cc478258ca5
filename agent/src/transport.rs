//! Why no answer came: the kinds of failure below HTTP, told apart for whoever has to mend them.

use std::error::Error;
use std::fmt;
use std::io;

use crate::clock::Timestamp;
use crate::plain_text::excerpt;

/// Bytes of a library's message that are shown: what the server sent may be quoted in it.
const LONGEST_DETAIL: usize = 500;

/// How a call failed before an answer was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The server's name has no address, or no name server answered.
    NameLookup,
    /// Nothing listens there.
    Refused,
    /// There is no way to the server's network.
    NoRoute,
    /// The connection was cut.
    Cut,
    /// No answer in time.
    Timeout,
    /// The certificate is not valid yet: somebody's clock is wrong.
    NotYetValid,
    /// The certificate has expired, or a clock is ahead.
    Expired {
        /// When it ended.
        until: Option<Timestamp>,
    },
    /// TLS failed otherwise.
    Tls,
    /// Anything else below HTTP.
    Other,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameLookup => "the name could not be looked up; is the network up, is DNS set?",
            Self::Refused => "the connection was refused; does the API run there?",
            Self::NoRoute => "there is no route to the server; is the network up?",
            Self::Cut => "the connection was cut before the whole answer was there",
            Self::Timeout => "no answer in time",
            Self::NotYetValid => "TLS: the server's certificate is not valid yet; is the clock right?",
            Self::Expired { .. } => "TLS: the server's certificate has expired; is the clock right?",
            Self::Tls => {
                "TLS failed; is the server's certificate from a known CA (--ca-file, ca_file), and for this name?"
            }
            Self::Other => "the call failed",
        })
    }
}

impl Transport {
    /// Reads the kind off the chain of causes, and the words of the last one.
    pub(crate) fn of(error: &reqwest::Error) -> (Self, String) {
        let causes: Vec<_> = std::iter::successors(Some(error as &(dyn Error + 'static)), |e| cause(*e)).collect();
        let detail = causes.last().map(ToString::to_string).unwrap_or_default();
        // A certificate may have thousands of names.
        let detail = excerpt(&detail, LONGEST_DETAIL).into_owned();
        if error.is_timeout() {
            return (Self::Timeout, detail);
        }
        (causes.into_iter().filter_map(Self::of_cause).last().unwrap_or(Self::Other), detail)
    }

    fn of_cause(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(tls));
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Self::of_io(io.kind());
        }
        // hyper and hyper-util keep their error types to themselves; these words are the only sign.
        match error.to_string().as_str() {
            "dns error" => return Some(Self::NameLookup),
            "connection closed before message completed" => return Some(Self::Cut),
            _ => {}
        }
        error.downcast_ref::<reqwest::Error>().filter(|e| e.is_body() || e.is_decode()).map(|_| Self::Cut)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        match error {
            rustls::Error::InvalidCertificate(Expired) => Self::Expired { until: None },
            rustls::Error::InvalidCertificate(ExpiredContext { not_after, .. }) => {
                Self::Expired { until: Some(Timestamp::from_unix(not_after.as_secs())) }
            }
            rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => Self::NotYetValid,
            _ => Self::Tls,
        }
    }

    /// The kind of an I/O error, where the error says more than that something failed.
    pub fn of_io(kind: io::ErrorKind) -> Option<Self> {
        use io::ErrorKind as Io;
        match kind {
            Io::ConnectionRefused => Some(Self::Refused),
            // A route that prohibits, or a firewall, gives EACCES or EPERM.
            Io::NetworkUnreachable
            | Io::HostUnreachable
            | Io::AddrNotAvailable
            | Io::NetworkDown
            | Io::PermissionDenied => Some(Self::NoRoute),
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::UnexpectedEof => Some(Self::Cut),
            Io::TimedOut => Some(Self::Timeout),
            _ => None,
        }
    }
}

/// The next cause. An `io::Error` made from another error hides it: its `source` is that error's source.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
