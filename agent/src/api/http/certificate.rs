//! The validity period of a certificate.

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::time::Time;

use crate::common::clock::Timestamp;

/// When a certificate (DER) begins and ends to be valid; `None` if it can't be read.
pub(crate) fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let time = |time: Time| Timestamp::from_unix(time.to_unix_duration().as_secs());
    Some((time(validity.not_before), time(validity.not_after)))
}
