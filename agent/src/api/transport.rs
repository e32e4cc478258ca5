//! Failures below HTTP, classified by what has to be fixed.

use std::error::Error;
use std::fmt;
use std::io;

use crate::common::clock::Timestamp;
use crate::common::plain_text::excerpt;

/// Maximum length in bytes of a library's message, which may quote data from the server.
const LONGEST_DETAIL: usize = 500;

/// The kind of failure of a call without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The server's name has no address, or no name server answered.
    NameLookup,
    /// Nothing listens at the address.
    Refused,
    /// There is no route to the server's network.
    NoRoute,
    /// The connection was closed early.
    Cut,
    /// No answer in time.
    Timeout,
    /// The certificate is not valid yet: a clock is wrong.
    NotYetValid,
    /// The certificate has expired, or a clock is ahead.
    Expired {
        /// When it expired.
        until: Option<Timestamp>,
    },
    /// The server's own certificate is a CA certificate, as most self-signed ones are.
    CaAsServer,
    /// TLS failed for another reason.
    Tls,
    /// The proxy can't be reached.
    ProxyUnreachable,
    /// The proxy requires a login.
    ProxyLogin,
    /// The proxy refuses the connection.
    ProxyRefused,
    /// Anything else below HTTP.
    Other,
}

/// Why a certificate is not valid at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideValidity {
    /// Its validity begins later.
    Begins(Timestamp),
    /// Its validity has ended.
    Ended(Timestamp),
    /// Another check failed.
    Invalid,
}

impl OutsideValidity {
    /// Converts the error of rustls.
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
            Self::Invalid => f.write_str("is not valid at that time"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameLookup => "the name could not be looked up; check the network and the DNS settings",
            Self::Refused => "the connection was refused; check that the API runs at this address",
            Self::NoRoute => "there is no route to the server; check the network",
            Self::Cut => "the connection was closed before the answer was complete",
            Self::Timeout => "no answer in time",
            Self::NotYetValid => "TLS: the server's certificate is not valid yet; check the clock",
            Self::Expired { .. } => "TLS: the server's certificate has expired; check the clock",
            Self::CaAsServer => {
                "TLS: the server's own certificate is marked as that of a CA (CA:TRUE, as in a self-signed one), which a server must not \
                 use; give the server a certificate that this CA signs, or a self-signed one with basicConstraints=CA:FALSE"
            }
            Self::ProxyUnreachable => "CONNECT: the proxy can't be reached; check that it runs and that its address is correct",
            Self::ProxyLogin => {
                "CONNECT: the proxy requires a login (HTTP 407), which is not supported; configure the proxy to accept this machine by \
                 its IP address"
            }
            Self::ProxyRefused => "CONNECT: the proxy did not open a connection to the API; check that it permits this",
            Self::Tls => {
                "TLS failed; check that the server's certificate is from a known CA (--ca-file, ca_file) and for this name"
            }
            Self::Other => "the call failed",
        })
    }
}

impl Transport {
    /// Returns the kind of failure from the chain of causes, and the message of the last cause.
    pub(crate) fn of(error: &reqwest::Error) -> (Self, String) {
        let causes: Vec<_> = std::iter::successors(Some(error as &(dyn Error + 'static)), |e| cause(*e)).collect();
        let detail = causes.last().map(ToString::to_string).unwrap_or_default();
        // A certificate may have thousands of names.
        let detail = excerpt(&detail, LONGEST_DETAIL).into_owned();
        if error.is_timeout() {
            return (Self::Timeout, detail);
        }
        let kinds: Vec<_> = causes.into_iter().filter_map(Self::of_cause).collect();
        // The failed step of CONNECT is more specific than its cause.
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
        // The error types of hyper and hyper-util are private; only their messages distinguish them.
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

    /// Classifies hyper-util's message about a step of CONNECT.
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
            // webpki's error, whose type is not a dependency.
            rustls::Error::InvalidCertificate(Other(other)) if other.0.to_string() == "CaUsedAsEndEntity" => {
                Self::CaAsServer
            }
            _ => Self::Tls,
        }
    }

    /// Classifies an I/O error; `None` if its kind says nothing specific.
    pub fn of_io(kind: io::ErrorKind) -> Option<Self> {
        use io::ErrorKind as Io;
        match kind {
            Io::ConnectionRefused => Some(Self::Refused),
            // A prohibiting route, or a firewall, returns EACCES or EPERM.
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

/// Returns the next cause. An `io::Error` that wraps another error hides it: its `source` is that error's source.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
