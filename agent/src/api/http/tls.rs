//! TLS configuration of the client: roots, verifier and clock.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use super::CaFile;
use super::HttpError;
use super::TlsClock;
use super::verifier::ChainVerifier;

/// Creates a TLS configuration that trusts the public roots (Mozilla's) and those of `ca`, and the verifier that keeps the chains.
pub(super) fn config(
    ca: Option<&CaFile>,
    clock: Arc<dyn TlsClock>,
) -> Result<(ClientConfig, Arc<ChainVerifier>), HttpError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(ca) = ca {
        ca.add_to(&mut roots)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let webpki = webpki.map_err(|e| HttpError::Client(e.into()))?;
    let verifier = Arc::new(ChainVerifier::new(webpki, Arc::clone(&clock)));
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(CertificateTime(clock)))
        .with_safe_default_protocol_versions()
        .map_err(|e| HttpError::Client(e.into()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_no_client_auth();
    // A resumed session has no certificate that could be validated at the time of the connection.
    config.resumption = Resumption::disabled();
    Ok((config, verifier))
}

/// Provides our clock to rustls.
#[derive(Debug)]
struct CertificateTime(Arc<dyn TlsClock>);

impl TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now().unix())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::clock::Timestamp;

    // Promise: certificates are validated by the given clock, not by the system's.
    #[test]
    fn certificates_are_validated_by_our_clock() {
        #[derive(Debug)]
        struct Then(Timestamp);
        impl TlsClock for Then {
            fn now(&self) -> Timestamp {
                self.0
            }

            fn boot(&self) -> Duration {
                Duration::ZERO
            }
        }
        let then = Timestamp::from_unix(1_777_802_400);
        let seen = CertificateTime(Arc::new(Then(then))).current_time();
        assert_eq!(seen.map(|time| time.as_secs()), Some(then.unix()));
    }
}
