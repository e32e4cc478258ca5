//! Validation of a server's certificate chain, also if the time is known only as an interval.
//!
//! Each chain is first verified at the best estimate of the time. If only a validity period fails, and the time is unknown, a
//! chain is accepted if it is valid at any time from the lower bound (floor) up to [`LONGEST_UNKNOWN`] after it. The `Date` of each
//! answer over such a connection must then be within the chain's validity, see [`Chain::agrees_with`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::api::token::SKEW;
use crate::common::clock::Timestamp;

use super::TlsClock;
use super::certificate::validity;

/// Maximum distance of the true time from the floor: ten years, longer than a device is stored before use.
const LONGEST_UNKNOWN: Duration = Duration::from_hours(24 * 3653);
/// Maximum number of certificates in a chain for which a time is searched; real chains have two to four.
const MOST_CERTIFICATES: usize = 10;
/// How many chains are kept for later answers: a client talks to one host, whose certificate may be renewed meanwhile.
const KEPT_CHAINS: usize = 4;

/// An accepted certificate chain.
#[derive(Debug)]
pub struct Chain {
    webpki: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
    /// The server's own certificate comes first.
    certificates: Vec<CertificateDer<'static>>,
    is_time_unknown: bool,
}

impl Chain {
    /// Whether the chain was accepted for an unknown time, so that the answer must have a `Date`.
    pub fn is_time_unknown(&self) -> bool {
        self.is_time_unknown
    }

    /// Verifies the whole chain at this time.
    ///
    /// # Errors
    /// Why it is not valid.
    pub fn verify_at(&self, time: Timestamp) -> Result<(), Error> {
        let Some((own, others)) = self.certificates.split_first() else { return Err(Error::NoCertificatesPresented) };
        self.webpki.verify_server_cert(own, others, &self.name, &[], unix_time(time)).map(drop)
    }

    /// Verifies the whole chain at the `Date` of an answer, with a tolerance of [`SKEW`].
    ///
    /// # Errors
    /// Why it is not valid.
    pub fn agrees_with(&self, date: Timestamp) -> Result<(), Error> {
        match self.verify_at(date) {
            Err(error) if is_expired(&error) => self.verify_at(date.minus(SKEW)).map_err(|_| error),
            Err(error) if is_not_yet_valid(&error) => self.verify_at(date.plus(SKEW)).map_err(|_| error),
            verified => verified,
        }
    }

    /// Returns the times at which the chain can become valid: the floor, and the begin of each certificate after it, in order.
    fn candidates(&self, floor: Timestamp) -> Vec<Timestamp> {
        let latest = floor.plus(LONGEST_UNKNOWN);
        let begins = self.certificates.iter().filter_map(|certificate| Some(validity(certificate)?.0));
        let mut times: Vec<_> = begins.filter(|begin| (floor..=latest).contains(begin)).chain([floor]).collect();
        times.sort_unstable();
        times.dedup();
        times
    }

    /// Verifies that the chain is valid at any time from the floor on.
    ///
    /// # Errors
    /// Why it is not valid at the floor.
    fn verify_since(&self, floor: Timestamp) -> Result<(), Error> {
        let mut results = self.candidates(floor).into_iter().map(|time| self.verify_at(time));
        let at_floor = results.next().unwrap_or(Err(Error::General("no time to verify at".to_owned())));
        if at_floor.is_ok() || results.any(|result| result.is_ok()) { Ok(()) } else { at_floor }
    }
}

/// Verifies chains with [`WebPkiServerVerifier`], and keeps the accepted ones.
#[derive(Debug)]
pub struct ChainVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    clock: Arc<dyn TlsClock>,
    accepted: Mutex<VecDeque<Arc<Chain>>>,
}

impl ChainVerifier {
    /// Creates a verifier with the roots of `webpki` and this clock.
    pub fn new(webpki: Arc<WebPkiServerVerifier>, clock: Arc<dyn TlsClock>) -> Self {
        Self { webpki, clock, accepted: Mutex::default() }
    }

    /// Returns the chain accepted last with this certificate (DER) as the server's own.
    pub fn chain_of(&self, certificate: &[u8]) -> Option<Arc<Chain>> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.iter().find(|chain| chain.certificates.first().is_some_and(|own| own.as_ref() == certificate)).cloned()
    }

    /// Returns the chain accepted last.
    pub fn last_chain(&self) -> Option<Arc<Chain>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    fn keep(&self, chain: Chain) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.retain(|kept| kept.certificates.first() != chain.certificates.first());
        accepted.truncate(KEPT_CHAINS - 1);
        accepted.push_front(Arc::new(chain));
    }
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificates = [own].into_iter().chain(others).map(|certificate| certificate.clone().into_owned());
        let mut chain = Chain {
            webpki: Arc::clone(&self.webpki),
            name: name.to_owned(),
            certificates: certificates.collect(),
            is_time_unknown: false,
        };
        if let Err(error) = chain.verify_at(Timestamp::from_unix(now.as_secs())) {
            let is_about_time = is_expired(&error) || is_not_yet_valid(&error);
            let floor = self.clock.unknown_since().filter(|_| is_about_time && others.len() < MOST_CERTIFICATES);
            chain.verify_since(floor.ok_or(error)?)?;
            chain.is_time_unknown = true;
        }
        self.keep(chain);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.unix()))
}

fn is_expired(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(error, Error::InvalidCertificate(Expired | ExpiredContext { .. }))
}

fn is_not_yet_valid(error: &Error) -> bool {
    use CertificateError::{NotValidYet, NotValidYetContext};
    matches!(error, Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }))
}

#[cfg(test)]
pub(super) mod tests;
