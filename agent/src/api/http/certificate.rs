//! The validity period of a certificate.

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::time::Time;

use crate::common::clock::Timestamp;

/// Returns the begin and the end of a certificate's (DER) validity; `None` if it can't be parsed.
pub(crate) fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let time = |time: Time| Timestamp::from_unix(time.to_unix_duration().as_secs());
    Some((time(validity.not_before), time(validity.not_after)))
}
