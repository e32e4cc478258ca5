//! ES256 for the JWT library, implemented with ring, which TLS already requires.
//!
//! The programs can verify no other algorithm, and sign nothing, so a token cannot make them use a weak algorithm. This also saves
//! the agent four cryptography crates, including RSA, and 300 KB.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(Error::from(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes the JWT library use this provider; call it before decoding a token.
pub(crate) fn install() {
    // It fails from the second call on, because the provider is already installed.
    let _ = PROVIDER.install_default();
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library defines the signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::ES256 || key.family() != AlgorithmFamily::Ec {
        return Err(Error::from(ErrorKind::InvalidAlgorithm));
    }
    let point = key.try_get_as_bytes()?.to_vec();
    Ok(Box::new(Es256(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point))))
}

struct Es256(UnparsedPublicKey<Vec<u8>>);

impl Verifier<Vec<u8>> for Es256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        self.0.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Es256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: only ES256 is verified, and only with a key for it, even if a token or a caller asks for another algorithm.
    #[test]
    fn only_es256_is_verified() {
        let number = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let elliptic = DecodingKey::from_ec_components(number, number).unwrap();
        let edwards = DecodingKey::from_ed_components(number).unwrap();
        for (algorithm, key, is_supported) in [
            (Algorithm::ES256, &elliptic, true),
            (Algorithm::ES384, &elliptic, false),
            (Algorithm::ES256, &edwards, false),
            (Algorithm::EdDSA, &edwards, false),
            (Algorithm::HS256, &DecodingKey::from_secret(b"secret"), false),
        ] {
            let found = verifier(&algorithm, key).ok().map(|verifier| verifier.algorithm());
            assert_eq!(found, is_supported.then_some(Algorithm::ES256), "{algorithm:?}");
        }
    }
}
