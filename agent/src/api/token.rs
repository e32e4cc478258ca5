//! Validates an access token: the signature if the server publishes keys, claims and times always.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous::insecure_decode, decode, decode_header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::api::es256;
use crate::api::json::has_duplicate_names;
use crate::common::clock::Timestamp;
use crate::common::identity::ROLE;

pub mod error;
mod user_id;

pub use error::TokenError;
pub use user_id::UserId;

/// Tolerated difference between the server's clock and ours, as in the API's other verifiers.
pub const SKEW: Duration = Duration::from_secs(30);

/// The issuer in all generations of the API.
pub const DEFAULT_ISSUER: &str = "AzaionApi";

/// The keys that a server publishes.
#[derive(Debug)]
pub enum Keys {
    /// No keys (404): the oldest generation, whose signatures a device can't verify.
    None,
    /// The keys that can verify ES256; at least one.
    Set(Vec<Jwk>),
}

/// Whether a token may be used if its signature can't be verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignaturePolicy {
    /// Yes, if it is an HMAC token of a server that publishes no keys.
    #[default]
    Auto,
    /// No.
    Required,
}

/// Whether a token's signature was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Signature {
    /// Verified with a key that the server publishes.
    Verified,
    /// Not verifiable by a device, because the server publishes no keys.
    Unverified,
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
        })
    }
}

/// The expected claims of a token.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The device's e-mail.
    pub email: &'a str,
    /// The issuer.
    pub issuer: &'a str,
    /// The audience; not checked if none is set.
    pub audience: Option<&'a str>,
    /// Whether the signature has to be verified.
    pub signature: SignaturePolicy,
}

/// The content of an accepted token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// When it was issued, if the token says so.
    pub issued_at: Option<Timestamp>,
    /// The first second at which it is no longer valid.
    pub expires_at: Timestamp,
    /// Whether its signature was verified.
    pub signature: Signature,
    /// The account's id, if the token has one.
    pub user_id: Option<UserId>,
}

/// Names under which .NET writes the role: short, or the full claim URI.
const ROLE_CLAIMS: [&str; 2] = ["role", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"];
/// Names under which .NET writes the e-mail.
const EMAIL_CLAIMS: [&str; 4] = [
    "unique_name",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
    "email",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
];

type Claims = BTreeMap<String, Value>;

/// Validates a token. `now` is the best known true time, not the system clock.
///
/// # Errors
/// The first check that failed.
pub fn validate(
    token: &SecretString,
    keys: &Keys,
    expected: Expected<'_>,
    now: Timestamp,
) -> Result<Accepted, TokenError> {
    let (claims, signature) = authentic_claims(token.expose_secret(), keys, expected.signature)?;
    check_claims(&claims, expected)?;
    let (issued_at, expires_at) = check_times(&claims, now)?;
    Ok(Accepted { issued_at, expires_at, signature, user_id: user_id::of(&claims) })
}

/// Whether a token that was accepted earlier still has the expected claims; its signature is not verified again.
pub fn still_agrees(token: &SecretString, signature: Signature, expected: Expected<'_>) -> bool {
    let is_signature_sufficient = signature == Signature::Verified || expected.signature == SignaturePolicy::Auto;
    let claims = insecure_decode::<Claims>(token.expose_secret());
    let is_unambiguous = !token.expose_secret().split('.').take(2).any(has_duplicates);
    is_signature_sufficient && is_unambiguous && claims.is_ok_and(|data| check_claims(&data.claims, expected).is_ok())
}

/// Whether an unverified token names another role than a device's; `false` if it can't be parsed.
pub fn names_another_role(token: &SecretString) -> bool {
    // A duplicate claim may name another role, too.
    token.expose_secret().split('.').take(2).any(has_duplicates)
        || insecure_decode::<Claims>(token.expose_secret()).is_ok_and(|data| {
            ROLE_CLAIMS.iter().any(|name| data.claims.contains_key(*name))
                && single(&data.claims, &ROLE_CLAIMS) != Some(ROLE)
        })
}

/// Returns the claims after verifying the signature as far as possible.
fn authentic_claims(token: &str, keys: &Keys, policy: SignaturePolicy) -> Result<(Claims, Signature), TokenError> {
    // Three parts of base64url (RFC 7515, 3.1), checked even if the signature can't be: other programs parse the token, too.
    let is_base64url = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if token.split('.').count() != 3 || !token.split('.').all(is_base64url) {
        return Err(TokenError::NotAJwt);
    }
    if token.split('.').take(2).any(has_duplicates) {
        return Err(TokenError::Duplicate);
    }
    // The library refuses a header with an algorithm that it does not know, including `none`.
    let header = decode_header(token).map_err(|_| TokenError::Algorithm)?;
    // RFC 7515, 4.1.11: a token with an unsupported critical extension must be refused; we support none.
    if header.crit.is_some() {
        return Err(TokenError::Critical);
    }
    match (header.alg, keys) {
        (Algorithm::ES256, Keys::Set(keys)) => {
            Ok((verified_claims(token, header.kid.as_deref(), keys)?, Signature::Verified))
        }
        (Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512, Keys::Set(_)) => Err(TokenError::KeyConfusion),
        (Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512, Keys::None) => match policy {
            SignaturePolicy::Auto => {
                if !has_hmac_length(token, header.alg) {
                    return Err(TokenError::Signature);
                }
                let data = insecure_decode(token).map_err(|_| TokenError::Claims)?;
                Ok((data.claims, Signature::Unverified))
            }
            SignaturePolicy::Required => Err(TokenError::Unverifiable),
        },
        (Algorithm::ES256, Keys::None) => Err(TokenError::NoKeys),
        _ => Err(TokenError::Algorithm),
    }
}

/// Whether a token's signature has the length of an HMAC of this algorithm (RFC 7518, 3.2). Only the server can verify it, but a
/// server that verifies its own tokens sends none with a missing or incomplete signature.
fn has_hmac_length(token: &str, algorithm: Algorithm) -> bool {
    let length = match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        _ => 64,
    };
    let signature = token.rsplit('.').next().map(|part| BASE64_URL_SAFE_NO_PAD.decode(part));
    matches!(signature, Some(Ok(bytes)) if bytes.len() == length)
}

/// Whether a part of a token has a duplicate name: other programs might use the other value (RFC 7519, 4).
fn has_duplicates(part: &str) -> bool {
    BASE64_URL_SAFE_NO_PAD.decode(part).map(Zeroizing::new).is_ok_and(|json| has_duplicate_names(&json))
}

/// Verifies the signature with the keys that have the token's key id, or all keys if it has none, and returns the claims.
fn verified_claims(token: &str, kid: Option<&str>, keys: &[Jwk]) -> Result<Claims, TokenError> {
    let has_key_id = |key: &&Jwk| kid.is_none() || key.common.key_id.as_deref() == kid;
    es256::install();
    let mut refused = TokenError::UnknownKey;
    for key in keys.iter().filter(has_key_id) {
        let Ok(key) = DecodingKey::from_jwk(key) else {
            continue;
        };
        match decode::<Claims>(token, &key, &signature_only()) {
            Ok(data) => return Ok(data.claims),
            Err(error) if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::InvalidSignature) => {
                refused = TokenError::Signature;
            }
            Err(_) => refused = TokenError::Claims,
        }
    }
    Err(refused)
}

/// Makes the library verify only the signature, with ES256: it would validate times by the system clock.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_required_spec_claims::<&str>(&[]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Checks issuer, audience, role and e-mail address.
fn check_claims(claims: &Claims, expected: Expected<'_>) -> Result<(), TokenError> {
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return Err(TokenError::Issuer);
    }
    if expected.audience.is_some_and(|audience| !has_audience(claims, audience)) {
        return Err(TokenError::Audience);
    }
    if single(claims, &ROLE_CLAIMS) != Some(ROLE) {
        return Err(TokenError::Role);
    }
    if !single(claims, &EMAIL_CLAIMS).is_some_and(|email| email.eq_ignore_ascii_case(expected.email)) {
        return Err(TokenError::Email);
    }
    Ok(())
}

/// Whether the claims name the audience; `aud` is one string or a list of them (RFC 7519, 4.1.3).
fn has_audience(claims: &Claims, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(audience)),
        Some(one) => one.as_str() == Some(audience),
        None => false,
    }
}

/// Returns the single value on which all claims of these names agree: a device has only one role and one e-mail address.
fn single<'a>(claims: &'a Claims, names: &[&str]) -> Option<&'a str> {
    let mut values = names.iter().filter_map(|name| claims.get(*name)).map(|value| match value {
        Value::Array(list) if list.len() == 1 => list.first().and_then(Value::as_str),
        one => one.as_str(),
    });
    let first = values.next()??;
    values.all(|other| other == Some(first)).then_some(first)
}

/// Checks the times of a token; returns when it was issued and when it expires.
fn check_times(claims: &Claims, now: Timestamp) -> Result<(Option<Timestamp>, Timestamp), TokenError> {
    let expires_at = time(claims, "exp")?.ok_or(TokenError::NoExpiry)?;
    let (issued_at, not_before) = (time(claims, "iat")?, time(claims, "nbf")?);
    // No tolerance: a token that has expired by the server's own time is useless.
    if now >= expires_at {
        return Err(TokenError::Expired);
    }
    if [issued_at, not_before].into_iter().flatten().any(|start| start > now.plus(SKEW)) {
        return Err(TokenError::FromTheFuture);
    }
    Ok((issued_at, expires_at))
}

/// Reads a `NumericDate` claim (RFC 7519, 2): seconds since 1970, possibly with a fraction.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range of the float is checked")]
fn time(claims: &Claims, name: &str) -> Result<Option<Timestamp>, TokenError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let whole = value.as_u64().or_else(|| value.as_f64().filter(|f| (0.0..1e15).contains(f)).map(|f| f as u64));
    whole.map(|seconds| Some(Timestamp::from_unix(seconds))).ok_or(TokenError::Claims)
}

#[cfg(test)]
mod tests;
