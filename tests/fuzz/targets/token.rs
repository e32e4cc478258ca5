//! Fuzzes token validation: it never panics, accepts no token under a key whose private part is unknown here, and
//! accepts no token with a duplicate name.
#![no_main]

use std::sync::LazyLock;

use azaion_agent::common::clock::Timestamp;
use azaion_agent::api::json::has_duplicate_names;
use azaion_agent::api::keys::usable;
use azaion_agent::api::token::{DEFAULT_ISSUER, Expected, Keys, SignaturePolicy, validate};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;

/// The public key of the example in RFC 7517, appendix A.1.
const SET: &[u8] = br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// The required claims of a device's token.
const CLAIMS: &str =
    r#""iss":"AzaionApi","role":"CompanionPC","email":"d@azaion.com","exp":1790000000,"iat":1780000000"#;

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::Set(usable(SET).expect("a key set")));

fuzz_target!(|input: &str| {
    let token = SecretString::from(input);
    let now = Timestamp::from_unix(1_780_000_000);
    let expected = |signature| Expected { email: "d@azaion.com", issuer: DEFAULT_ISSUER, audience: None, signature };
    assert!(validate(&token, &KEYS, expected(SignaturePolicy::Auto), now).is_err());
    assert!(validate(&token, &Keys::None, expected(SignaturePolicy::Required), now).is_err());
    let _ = validate(&token, &Keys::None, expected(SignaturePolicy::Auto), now);
    // A token's claims: only the required ones first, then those from the fuzzer.
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let claims = format!("{{{CLAIMS},{input}}}");
    let token = SecretString::from(format!("{}.{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims), part(&"7".repeat(32))));
    if validate(&token, &Keys::None, expected(SignaturePolicy::Auto), now).is_ok() {
        assert!(!has_duplicate_names(claims.as_bytes()));
        // What a parser reads that takes the first of two values.
        let names: Vec<&str> = CLAIMS.split(',').filter_map(|claim| claim.split('"').nth(1)).collect();
        let read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&claims).expect("it was accepted");
        assert!(names.iter().all(|name| read.contains_key(*name)));
        let more: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&format!("{{{input}}}")).expect("it was accepted");
        assert!(names.iter().all(|name| !more.contains_key(*name)), "{claims}");
    }
});
