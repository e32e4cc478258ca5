//! The server's secrets that a device trusts: certificates for each time, and keys that sign tokens. Created once per
//! process.

use std::sync::{Arc, OnceLock};

use azaion_agent::common::clock::Timestamp;
use azaion_agent::device::true_time::build_time;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

/// The host name of the API.
pub(crate) const HOST: &str = "api.example";
/// Validity of a certificate in seconds, after which there is a new one.
const LIFETIME: u64 = 90 * 86_400;
const RENEWED_AFTER: u64 = 60 * 86_400;
/// Number of successive certificates.
const CERTIFICATES: u64 = 16;
/// Number of successive signing keys, and one that is never listed.
const KEYS: usize = 8;
const NOBODYS: usize = KEYS;

pub(crate) struct Secrets {
    pub(crate) verifier: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<(EcdsaKeyPair, Value)>,
    random: SystemRandom,
}

/// Returns all of them.
pub(crate) fn secrets() -> &'static Secrets {
    static SECRETS: OnceLock<Secrets> = OnceLock::new();
    SECRETS.get_or_init(Secrets::new)
}

fn date(seconds: u64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

impl Secrets {
    fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (authority.not_before, authority.not_after) = (date(0), date(4_000_000_000));
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = |number: u64| {
            let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
            let begin = build_time().unix() + number * RENEWED_AFTER - (LIFETIME - RENEWED_AFTER);
            (params.not_before, params.not_after) = (date(begin), date(begin + LIFETIME));
            params.signed_by(&key, &authority).unwrap().der().clone()
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self {
            verifier: WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap(),
            certificates: (0..CERTIFICATES).map(certificate).collect(),
            keys: (0..=NOBODYS).map(signing_key).collect(),
            random: SystemRandom::new(),
        }
    }

    /// Returns the server's certificate at this time.
    pub(crate) fn certificate(&self, now: Timestamp) -> &CertificateDer<'static> {
        let number = now.since(build_time()).as_secs() / RENEWED_AFTER;
        &self.certificates[usize::try_from(number).unwrap() % self.certificates.len()]
    }

    /// Returns the published form of a key (RFC 7517).
    pub(crate) fn jwk(&self, key: usize) -> &Value {
        &self.keys[key % KEYS].1
    }

    /// Returns a JWT with these claims, signed with a key, or with one that is never listed.
    pub(crate) fn token(&self, claims: &Value, key: Option<usize>) -> String {
        let (pair, jwk) = &self.keys[key.map_or(NOBODYS, |key| key % KEYS)];
        let signed = encoded(&json!({"typ": "JWT", "alg": "ES256", "kid": jwk["kid"]}), claims);
        let signature = pair.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

fn encoded(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

/// Returns a JWT with these claims and an HMAC that no device can verify.
pub(crate) fn hmac_token(claims: &Value) -> String {
    let signed = encoded(&json!({"typ": "JWT", "alg": "HS256"}), claims);
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode([7; 32]))
}

fn signing_key(number: usize) -> (EcdsaKeyPair, Value) {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    let (x, y) = pair.public_key().as_ref().split_at(1).1.split_at(32);
    let [x, y] = [x, y].map(|number| BASE64_URL_SAFE_NO_PAD.encode(number));
    let jwk =
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": format!("k{number}"), "x": x, "y": y});
    (pair, jwk)
}
