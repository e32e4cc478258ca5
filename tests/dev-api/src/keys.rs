//! The server's signing keys: ES256 pairs with their published form, and the HS256 secret of G1.

use super::hashing::{random, random_hex};
use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// One P-256 key pair.
pub(super) struct SigningKey {
    pub(super) kid: String,
    pub(super) private: EncodingKey,
    /// The public key as PEM, which a key confusion attack uses as the HMAC secret.
    pub(super) public_pem: String,
    /// The public key as an uncompressed point, 65 bytes (SEC 1, 2.3.3).
    pub(super) public_point: Vec<u8>,
}

impl SigningKey {
    pub(super) fn generate() -> anyhow::Result<Self> {
        let pair = KeyPair::generate().context("creating an ES256 key")?;
        Ok(Self {
            kid: random_hex::<8>()?,
            private: EncodingKey::from_ec_der(&pair.serialize_der()),
            public_pem: pair.public_key_pem(),
            public_point: pair.public_key_raw().to_vec(),
        })
    }

    pub(super) fn public(&self) -> DecodingKey {
        DecodingKey::from_ec_der(&self.public_point)
    }

    /// Returns the published form (RFC 7517).
    fn jwk(&self) -> Value {
        let (x, y) = self.public_point.split_at(1).1.split_at(32);
        json!({
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": "ES256",
            "kid": self.kid,
            "x": BASE64_URL_SAFE_NO_PAD.encode(x),
            "y": BASE64_URL_SAFE_NO_PAD.encode(y),
        })
    }
}

/// All keys of a server.
pub(super) struct Keys {
    /// The key that signs new tokens.
    pub(super) current: SigningKey,
    /// Keys that no longer sign but are still listed.
    retired: Vec<SigningKey>,
    /// The HS256 secret of G1.
    pub(super) secret: [u8; 64],
}

impl Keys {
    pub(super) fn generate() -> anyhow::Result<Self> {
        Ok(Self { current: SigningKey::generate()?, retired: Vec::new(), secret: random()? })
    }

    /// Signs with a new key from now on; the old key stays listed or is removed at once.
    pub(super) fn rotate(&mut self, keep_old_listed: bool) -> anyhow::Result<()> {
        let old = std::mem::replace(&mut self.current, SigningKey::generate()?);
        if keep_old_listed {
            self.retired.push(old);
        }
        Ok(())
    }

    /// Returns the listed key with this id.
    pub(super) fn listed(&self, kid: &str) -> Option<&SigningKey> {
        self.all().find(|key| key.kid == kid)
    }

    /// Returns the answer of `/.well-known/jwks.json`.
    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": self.all().map(SigningKey::jwk).collect::<Vec<_>>() })
    }

    fn all(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.current).chain(&self.retired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kids(keys: &Keys) -> Vec<String> {
        let listed = keys.jwks()["keys"].as_array().unwrap().clone();
        listed.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    /// A rotated key stays listed if requested; otherwise it is removed.
    #[test]
    fn rotation() {
        let mut keys = Keys::generate().unwrap();
        let first = keys.current.kid.clone();
        keys.rotate(true).unwrap();
        let second = keys.current.kid.clone();
        assert_eq!(kids(&keys), [second, first.clone()]);
        keys.rotate(false).unwrap();
        assert_eq!(kids(&keys), [keys.current.kid.clone(), first]);
    }
}
