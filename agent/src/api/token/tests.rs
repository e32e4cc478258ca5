use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;
const EXPECTED: Expected<'_> =
    Expected { email: "d@azaion.com", issuer: "AzaionApi", audience: None, signature: SignaturePolicy::Auto };

/// Creates a token like a server with HMAC; the signature is arbitrary, because a device can't verify it.
fn hmac_token(claims: &Value) -> SecretString {
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let token = [part(br#"{"alg":"HS256","typ":"JWT"}"#), part(claims.to_string().as_bytes()), part(&[7; 32])];
    SecretString::from(token.join("."))
}

fn good_claims() -> Value {
    json!({"iss": "AzaionApi", "aud": "A", "role": "CompanionPC", "unique_name": "d@azaion.com", "exp": NOW + 900, "iat": NOW})
}

fn validate_claims(change: &Value, expected: Expected<'_>) -> Result<Accepted, TokenError> {
    let mut claims = good_claims();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    validate(&hmac_token(&claims), &Keys::None, expected, Timestamp::from_unix(NOW))
}

// Promise: claims are always checked, under both spellings, and times against the given one with 30 s of skew.
#[test]
fn claims_are_checked() {
    use TokenError as E;
    let role_uri = ROLE_CLAIMS[1];
    let email_uri = EMAIL_CLAIMS[1];
    for (change, expected) in [
        (json!({}), None),
        (json!({"role": null, role_uri: "CompanionPC"}), None),
        (json!({"role": ["CompanionPC"]}), None),
        (json!({"role": ["CompanionPC", "ApiAdmin"]}), Some(E::Role)),
        (json!({"role": "ApiAdmin"}), Some(E::Role)),
        (json!({"role": "companionpc"}), Some(E::Role)),
        (json!({role_uri: "ApiAdmin"}), Some(E::Role)),
        (json!({"role": null}), Some(E::Role)),
        (json!({"role": 30}), Some(E::Role)),
        (json!({"unique_name": null, email_uri: "d@azaion.com"}), None),
        (json!({"unique_name": null, "email": "D@azaion.com"}), None),
        (json!({"unique_name": "e@azaion.com"}), Some(E::Email)),
        (json!({"email": "e@azaion.com"}), Some(E::Email)),
        (json!({"unique_name": null}), Some(E::Email)),
        (json!({"iss": "Other"}), Some(E::Issuer)),
        (json!({"iss": null}), Some(E::Issuer)),
        (json!({"iss": ["AzaionApi"]}), Some(E::Issuer)),
        (json!({"exp": null}), Some(E::NoExpiry)),
        (json!({"exp": "later"}), Some(E::Claims)),
        (json!({"exp": -5}), Some(E::Claims)),
        (json!({"exp": -0.5}), Some(E::Claims)),
        (json!({"exp": 1e300}), Some(E::Claims)),
        (json!({"exp": NOW + 1}), None),
        (json!({"exp": NOW}), Some(E::Expired)),
        (json!({"exp": NOW - 1}), Some(E::Expired)),
        (json!({"exp": NOW - 30}), Some(E::Expired)),
        (json!({"exp": 1_800_000_900.5}), None),
        (json!({"iat": NOW + 30}), None),
        (json!({"iat": NOW + 31}), Some(E::FromTheFuture)),
        (json!({"nbf": NOW + 31}), Some(E::FromTheFuture)),
        (json!({"iat": "now"}), Some(E::Claims)),
        (json!({"iat": null}), None),
    ] {
        assert_eq!(validate_claims(&change, EXPECTED).err(), expected, "{change}");
    }
}

// Promise: the audience is checked if one is set, in both forms.
#[test]
fn the_audience_is_checked_if_set() {
    let expected = Expected { audience: Some("A"), ..EXPECTED };
    for (aud, ok) in [
        (json!("A"), true),
        (json!(["B", "A"]), true),
        (json!("B"), false),
        (json!(["B"]), false),
        (json!(null), false),
    ] {
        let validated = validate_claims(&json!({"aud": aud}), expected);
        assert_eq!(validated.err(), (!ok).then_some(TokenError::Audience), "{aud}");
    }
}

// Promise: an HMAC token of a server without keys is unverified under `auto` and refused under `required`; beside
// published keys it is key confusion.
#[test]
fn hmac_tokens_are_not_trusted() {
    assert_eq!(validate_claims(&json!({}), EXPECTED).unwrap().signature, Signature::Unverified);
    let strict = Expected { signature: SignaturePolicy::Required, ..EXPECTED };
    assert_eq!(validate_claims(&json!({}), strict).unwrap_err(), TokenError::Unverifiable);
    let token = hmac_token(&json!({"iss": "AzaionApi"}));
    assert_eq!(
        validate(&token, &Keys::Set(vec![]), EXPECTED, Timestamp::from_unix(NOW)).unwrap_err(),
        TokenError::KeyConfusion
    );
}

// Promise: an HMAC token without a signature, or with one that is too short or too long for its algorithm, is refused, not
// `unverified`.
#[test]
fn hmac_tokens_need_a_whole_signature() {
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let claims = part(good_claims().to_string().as_bytes());
    for (algorithm, length, expected) in [
        ("HS256", 32, None),
        ("HS384", 48, None),
        ("HS512", 64, None),
        ("HS256", 0, Some(TokenError::Signature)),
        ("HS256", 31, Some(TokenError::Signature)),
        ("HS256", 64, Some(TokenError::Signature)),
        ("HS384", 0, Some(TokenError::Signature)),
        ("HS512", 32, Some(TokenError::Signature)),
    ] {
        let header = part(json!({"alg": algorithm, "typ": "JWT"}).to_string().as_bytes());
        let token = SecretString::from([header, claims.clone(), part(&vec![7; length])].join("."));
        let validated = validate(&token, &Keys::None, EXPECTED, Timestamp::from_unix(NOW));
        assert_eq!(validated.err(), expected, "{algorithm} {length}");
    }
}

// Promise: a text that is not a JWT, or has no algorithm, is refused with and without published keys.
#[test]
fn other_tokens_are_refused() {
    let none = "eyJhbGciOiJub25lIn0.e30.";
    let es256 = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA";
    let rs256 = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA";
    for (token, expected) in [
        ("", TokenError::NotAJwt),
        ("abc", TokenError::NotAJwt),
        ("a.b", TokenError::NotAJwt),
        ("a.b.c.d", TokenError::NotAJwt),
        ("a.b.c", TokenError::Algorithm),
        (none, TokenError::Algorithm),
        ("eyJhbGciOiJIUzI1NiJ9.e30.a+b", TokenError::NotAJwt),
        ("eyJhbGciOiJIUzI1NiJ9.e30.a==", TokenError::NotAJwt),
        ("eyJhbGciOiJIUzI1NiJ9.e30.-_", TokenError::Signature),
        (rs256, TokenError::Algorithm),
        (es256, TokenError::NoKeys),
    ] {
        let validated = validate(&SecretString::from(token), &Keys::None, EXPECTED, Timestamp::from_unix(NOW));
        assert_eq!(validated.unwrap_err(), expected, "{token}");
    }
    let validated = validate(&SecretString::from(es256), &Keys::Set(vec![]), EXPECTED, Timestamp::from_unix(NOW));
    assert_eq!(validated.unwrap_err(), TokenError::UnknownKey);
}

// Promise: a token with a duplicate name in its header or in its claims, at any depth, is refused, whichever value is correct.
#[test]
fn names_are_unique() {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let plain = good_claims().to_string();
    let with = |more: &str| format!("{},{more}}}", plain.strip_suffix('}').unwrap());
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    for (header, claims, expected) in [
        (header, plain.clone(), None),
        (header, with(r#""new":{"a":1,"b":{"a":1}}"#), None),
        (header, with(r#""role":"CompanionPC""#), Some(TokenError::Duplicate)),
        (header, with(r#""r\u006fle":"CompanionPC""#), Some(TokenError::Duplicate)),
        (header, plain.replacen('{', r#"{"role":"ApiAdmin","#, 1), Some(TokenError::Duplicate)),
        (header, with(r#""exp":9999999999"#), Some(TokenError::Duplicate)),
        (header, with(r#""new":[{"a":1,"a":2}]"#), Some(TokenError::Duplicate)),
        (r#"{"alg":"none","alg":"HS256"}"#, plain.clone(), Some(TokenError::Duplicate)),
        (r#"{"alg":"HS256","x":1,"x":1}"#, plain.clone(), Some(TokenError::Duplicate)),
        (r#"{"alg":"HS256","jwk":{"x":1,"x":1}}"#, plain.clone(), Some(TokenError::Duplicate)),
    ] {
        let token = SecretString::from(format!("{}.{}.{}", part(header), part(&claims), part(&"7".repeat(32))));
        let validated = validate(&token, &Keys::None, EXPECTED, Timestamp::from_unix(NOW));
        assert_eq!(validated.err(), expected, "{header} {claims}");
        if expected.is_some() {
            assert!(!still_agrees(&token, Signature::Unverified, EXPECTED), "{header} {claims}");
            assert!(names_another_role(&token), "{header} {claims}");
        }
    }
}

/// A server's key pair.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.as_ref(), &random).unwrap())
    }

    /// Its public half, as the server publishes it under `kid`.
    fn key(&self, kid: Option<&str>) -> Jwk {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let number = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let mut key = json!({"kty": "EC", "crv": "P-256", "x": number(x), "y": number(y)});
        if let Some(kid) = kid {
            key["kid"] = kid.into();
        }
        serde_json::from_value(key).unwrap()
    }

    fn token(&self, kid: Option<&str>, claims: &Value) -> SecretString {
        let mut header = json!({"alg": "ES256"});
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        SecretString::from(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

// Promise: a signature is valid only with a published key that has the token's key id; without a key id, any published key counts.
#[test]
fn signatures_are_checked() {
    use TokenError as E;
    let (server, other) = (Signer::new(), Signer::new());
    for (kid, keys, expected) in [
        (None, vec![server.key(None)], None),
        (None, vec![server.key(Some("1"))], None),
        (None, vec![other.key(None), server.key(None)], None),
        (Some("1"), vec![server.key(Some("1"))], None),
        (Some("1"), vec![other.key(Some("2")), server.key(Some("1"))], None),
        (Some("1"), vec![server.key(Some("2"))], Some(E::UnknownKey)),
        (Some("1"), vec![server.key(None)], Some(E::UnknownKey)),
        (Some("1"), vec![other.key(Some("1"))], Some(E::Signature)),
        (None, vec![other.key(None)], Some(E::Signature)),
    ] {
        let validated =
            validate(&server.token(kid, &good_claims()), &Keys::Set(keys.clone()), EXPECTED, Timestamp::from_unix(NOW));
        assert_eq!(validated.err(), expected, "{kid:?} {keys:?}");
    }
    let no_object = server.token(None, &json!([]));
    let validated = validate(&no_object, &Keys::Set(vec![server.key(None)]), EXPECTED, Timestamp::from_unix(NOW));
    assert_eq!(validated.unwrap_err(), E::Claims);
    // A valid signature does not make a duplicate name acceptable.
    let message = ["{\"alg\":\"ES256\"}", "{\"role\":\"ApiAdmin\",\"role\":\"CompanionPC\"}"];
    let message = message.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = server.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    let twice = SecretString::from(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)));
    let validated = validate(&twice, &Keys::Set(vec![server.key(None)]), EXPECTED, Timestamp::from_unix(NOW));
    assert_eq!(validated.unwrap_err(), E::Duplicate);
}

// Promise: a signed token is validated only by the given time, independent of the system's clock, and its claims are checked, too.
#[test]
fn the_system_clock_is_not_used() {
    let server = Signer::new();
    let validate_at = |now: u64, policy: SignaturePolicy| {
        let mut claims = good_claims();
        (claims["iat"], claims["nbf"], claims["exp"]) = (now.into(), now.into(), (now + 900).into());
        let (token, keys) = (server.token(None, &claims), Keys::Set(vec![server.key(None)]));
        validate(&token, &keys, Expected { signature: policy, ..EXPECTED }, Timestamp::from_unix(now))
    };
    for now in [1_000_000_000, 4_000_000_000] {
        let time = Timestamp::from_unix;
        let accepted = Accepted {
            issued_at: Some(time(now)),
            expires_at: time(now + 900),
            signature: Signature::Verified,
            user_id: None,
        };
        assert_eq!(validate_at(now, SignaturePolicy::Required), Ok(accepted));
    }
}

// Promise: a cached token is used only while it agrees with the current configuration.
#[test]
fn a_cached_token_has_to_agree() {
    let token = hmac_token(&good_claims());
    let strict = Expected { signature: SignaturePolicy::Required, ..EXPECTED };
    for (signature, expected, agrees) in [
        (Signature::Unverified, EXPECTED, true),
        (Signature::Verified, EXPECTED, true),
        (Signature::Verified, strict, true),
        (Signature::Unverified, strict, false),
        (Signature::Verified, Expected { email: "e@azaion.com", ..EXPECTED }, false),
        (Signature::Verified, Expected { issuer: "Other", ..EXPECTED }, false),
        (Signature::Verified, Expected { audience: Some("B"), ..EXPECTED }, false),
    ] {
        assert_eq!(still_agrees(&token, signature, expected), agrees, "{signature:?} {expected:?}");
    }
    assert!(!still_agrees(&SecretString::from("opaque"), Signature::Verified, EXPECTED));
}

// Promise: reports say whether the signature is verified.
#[test]
fn signatures_have_their_word() {
    assert_eq!(
        (Signature::Verified.to_string(), Signature::Unverified.to_string()),
        ("verified".into(), "unverified".into())
    );
}

// Promise: the host detects a role that is not a device's, and ignores a token that it can't parse.
#[test]
fn another_role_is_detected() {
    for (claims, other) in
        [(json!({"role": "ApiAdmin"}), true), (json!({"role": "CompanionPC"}), false), (json!({}), false)]
    {
        assert_eq!(names_another_role(&hmac_token(&claims)), other, "{claims}");
    }
    assert!(!names_another_role(&SecretString::from("opaque")));
}
