use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;
const EXPECTED: Expected<'_> =
    Expected { email: "d@azaion.com", issuer: "AzaionApi", audience: None, signature: SignaturePolicy::Auto };

/// A token as an HMAC server makes it; what its signature is does not matter, for a device can't check it.
fn hmac_token(claims: &Value) -> SecretString {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let token = [part(r#"{"alg":"HS256","typ":"JWT"}"#), part(&claims.to_string()), part("signature")];
    SecretString::from(token.join("."))
}

fn judge_claims(change: &Value, expected: Expected<'_>) -> Result<Accepted, TokenError> {
    let mut claims = json!({"iss": "AzaionApi", "aud": "A", "role": "CompanionPC", "unique_name": "d@azaion.com", "exp": NOW + 900, "iat": NOW});
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    judge(&hmac_token(&claims), &Keys::None, expected, Timestamp::from_unix(NOW))
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
        (json!({"exp": NOW - 29}), None),
        (json!({"exp": NOW - 30}), Some(E::Expired)),
        (json!({"exp": 1_800_000_900.5}), None),
        (json!({"iat": NOW + 30}), None),
        (json!({"iat": NOW + 31}), Some(E::FromTheFuture)),
        (json!({"nbf": NOW + 31}), Some(E::FromTheFuture)),
        (json!({"iat": "now"}), Some(E::Claims)),
        (json!({"iat": null}), None),
    ] {
        assert_eq!(judge_claims(&change, EXPECTED).err(), expected, "{change}");
    }
}

// Promise: the audience is checked where one is set, in both forms.
#[test]
fn the_audience_is_checked_where_set() {
    let expected = Expected { audience: Some("A"), ..EXPECTED };
    for (aud, ok) in [
        (json!("A"), true),
        (json!(["B", "A"]), true),
        (json!("B"), false),
        (json!(["B"]), false),
        (json!(null), false),
    ] {
        let judged = judge_claims(&json!({"aud": aud}), expected);
        assert_eq!(judged.err(), (!ok).then_some(TokenError::Audience), "{aud}");
    }
}

// Promise: an HMAC token of a server without keys is unverified under `auto` and refused under `required`; beside
// published keys it is key confusion.
#[test]
fn hmac_tokens_are_not_trusted() {
    assert_eq!(judge_claims(&json!({}), EXPECTED).unwrap().signature, Signature::Unverified);
    let strict = Expected { signature: SignaturePolicy::Required, ..EXPECTED };
    assert_eq!(judge_claims(&json!({}), strict).unwrap_err(), TokenError::Unverifiable);
    let token = hmac_token(&json!({"iss": "AzaionApi"}));
    assert_eq!(
        judge(&token, &Keys::Set(vec![]), EXPECTED, Timestamp::from_unix(NOW)).unwrap_err(),
        TokenError::KeyConfusion
    );
}

// Promise: what is no JWT, or has no algorithm, is refused whatever the server publishes.
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
        (rs256, TokenError::Algorithm),
        (es256, TokenError::NoKeys),
    ] {
        let judged = judge(&SecretString::from(token), &Keys::None, EXPECTED, Timestamp::from_unix(NOW));
        assert_eq!(judged.unwrap_err(), expected, "{token}");
    }
    let judged = judge(&SecretString::from(es256), &Keys::Set(vec![]), EXPECTED, Timestamp::from_unix(NOW));
    assert_eq!(judged.unwrap_err(), TokenError::UnknownKey);
}

// Promise: the host sees a role that is not a device's, and draws nothing from a token it can't read.
#[test]
fn another_role_is_seen() {
    for (claims, other) in
        [(json!({"role": "ApiAdmin"}), true), (json!({"role": "CompanionPC"}), false), (json!({}), false)]
    {
        assert_eq!(names_another_role(&hmac_token(&claims)), other, "{claims}");
    }
    assert!(!names_another_role(&SecretString::from("opaque")));
}
