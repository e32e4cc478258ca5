//! Why no answer came: the kinds of failure below HTTP, told apart for whoever has to mend them.

use std::error::Error;
use std::fmt;
use std::io;

use crate::common::clock::Timestamp;
use crate::common::plain_text::excerpt;

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
    /// The server's own certificate is that of a CA, as a self-signed one mostly is.
    CaAsServer,
    /// TLS failed otherwise.
    Tls,
    /// The proxy can't be reached.
    ProxyUnreachable,
    /// The proxy asks for a login.
    ProxyLogin,
    /// The proxy does not let the connection through.
    ProxyRefused,
    /// Anything else below HTTP.
    Other,
}

/// Why a certificate is not valid at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideValidity {
    /// It begins later.
    Begins(Timestamp),
    /// It has ended.
    Ended(Timestamp),
    /// It is not valid at all, by another check.
    Invalid,
}

impl OutsideValidity {
    /// What rustls says.
    pub(crate) fn of(error: &rustls::Error) -> Self {
        use rustls::CertificateError::{ExpiredContext, NotValidYetContext};
        match error {
            rustls::Error::InvalidCertificate(ExpiredContext { not_after, .. }) => {
                Self::Ended(Timestamp::from_unix(not_after.as_secs()))
            }
            rustls::Error::InvalidCertificate(NotValidYetContext { not_before, .. }) => {
                Self::Begins(Timestamp::from_unix(not_before.as_secs()))
            }
            _ => Self::Invalid,
        }
    }
}

impl fmt::Display for OutsideValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begins(from) => write!(f, "is valid from {from} on"),
            Self::Ended(until) => write!(f, "was valid until {until}"),
            Self::Invalid => f.write_str("is not valid then"),
        }
    }
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
            Self::CaAsServer => {
                "TLS: the server's own certificate is marked as that of a CA (CA:TRUE, as in a self-signed one), which a server must not \
                 use; give the server a certificate that this CA signs, or a self-signed one with basicConstraints=CA:FALSE"
            }
            Self::ProxyUnreachable => "CONNECT: the proxy can't be reached; does it run, and is its address right?",
            Self::ProxyLogin => {
                "CONNECT: the proxy asks for a login (HTTP 407), which is not supported; let it know this machine by its address"
            }
            Self::ProxyRefused => "CONNECT: the proxy did not open a connection to the API; does it permit that?",
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
        let kinds: Vec<_> = causes.into_iter().filter_map(Self::of_cause).collect();
        // What failed of CONNECT says more than how.
        let kind = kinds.iter().find(|kind| kind.is_of_proxy()).or(kinds.last());
        (kind.copied().unwrap_or(Self::Other), detail)
    }

    fn is_of_proxy(self) -> bool {
        matches!(self, Self::ProxyUnreachable | Self::ProxyLogin | Self::ProxyRefused)
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
            text => {
                if let Some(step) = text.strip_prefix("tunnel error: ") {
                    return Some(Self::of_tunnel(step));
                }
            }
        }
        error.downcast_ref::<reqwest::Error>().filter(|e| e.is_body() || e.is_decode()).map(|_| Self::Cut)
    }

    /// What hyper-util says of a step of CONNECT.
    fn of_tunnel(step: &str) -> Self {
        match step {
            "failed to create underlying connection" => Self::ProxyUnreachable,
            "proxy authorization required" => Self::ProxyLogin,
            _ => Self::ProxyRefused,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext, Other};
        match error {
            rustls::Error::InvalidCertificate(Expired) => Self::Expired { until: None },
            rustls::Error::InvalidCertificate(ExpiredContext { not_after, .. }) => {
                Self::Expired { until: Some(Timestamp::from_unix(not_after.as_secs())) }
            }
            rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => Self::NotYetValid,
            // webpki's error, whose type is not at hand.
            rustls::Error::InvalidCertificate(Other(other)) if other.0.to_string() == "CaUsedAsEndEntity" => {
                Self::CaAsServer
            }
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
