//! A token: never a panic, and none is accepted under a key that nobody here can sign with.
#![no_main]

use std::sync::LazyLock;

use azaion_agent::clock::Timestamp;
use azaion_agent::keys::usable;
use azaion_agent::token::{DEFAULT_ISSUER, Expected, Keys, SignaturePolicy, judge};
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;

/// The public key of the example in RFC 7517, appendix A.1.
const SET: &[u8] = br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::Set(usable(SET).expect("a key set")));

fuzz_target!(|input: &str| {
    let token = SecretString::from(input);
    let now = Timestamp::from_unix(1_780_000_000);
    let expected = |signature| Expected { email: "d@azaion.com", issuer: DEFAULT_ISSUER, audience: None, signature };
    assert!(judge(&token, &KEYS, expected(SignaturePolicy::Auto), now).is_err());
    assert!(judge(&token, &Keys::None, expected(SignaturePolicy::Required), now).is_err());
    let _ = judge(&token, &Keys::None, expected(SignaturePolicy::Auto), now);
});
