//! The server's public keys: `GET /.well-known/jwks.json` (RFC 7517).

use std::cell::Cell;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use secrecy::SecretString;
use serde::Deserialize;

use crate::api::fault::{Class, Fault, Limit, Problem, needs_error_object};
use crate::api::http::{Answer, ApiClient, Call, Method};
use crate::api::json;
use crate::api::retry::Budget;
use crate::api::token::{self, Accepted, Expected, Keys, TokenError};
use crate::common::clock::Timestamp;

/// Fetches the server's keys. `is_uncached` makes caches on the way revalidate with the server (RFC 9111, 5.2.1.4): otherwise the
/// list may be an hour old.
///
/// # Errors
/// There is no answer, or it is not a key set, or the set has no key for ES256.
pub fn fetch(http: &dyn ApiClient, is_uncached: bool, limit: Limit) -> Result<Keys, Fault> {
    let path = "/.well-known/jwks.json";
    let answer = http.call(&Call { method: Method::GET, path, body: None, bearer: None, is_uncached }, limit)?;
    keys_of(&answer)
}

/// Validates a token with the server's keys.
///
/// If the token's key is not listed, the list is fetched again, bypassing caches, until the budget is used up: a key is published
/// before the first token is signed with it, but a cache may have an outdated list. `answer` is the one that contained the token;
/// `now` returns the best known time.
///
/// # Errors
/// The keys are unreachable, or the token fails a check.
pub fn validate_token(
    http: &dyn ApiClient,
    budget: &Budget<'_>,
    (token, answer): (&SecretString, &Answer),
    expected: Expected<'_>,
    now: impl Fn() -> Timestamp,
) -> Result<Accepted, Fault> {
    let is_uncached = Cell::new(false);
    let checked = |limit| {
        let keys = fetch(http, is_uncached.get(), limit)?;
        token::validate(token, &keys, expected, now()).map_err(|error| match error {
            TokenError::UnknownKey => {
                is_uncached.set(true);
                answer.fault(Problem::KeyNotListed)
            }
            error => answer.fault(Problem::Token(error)),
        })
    };
    budget.run(checked).map_err(|fault| match fault.problem {
        Problem::KeyNotListed => answer.fault(Problem::Token(TokenError::UnknownKey)),
        _ => fault,
    })
}

/// Parses the answer to the request for keys.
///
/// # Errors
/// As [`fetch`].
fn keys_of(answer: &Answer) -> Result<Keys, Fault> {
    if answer.status == 404 {
        return Ok(Keys::None);
    }
    let body = answer.accept(&[200]).map_err(refusal_is_transient)?;
    usable(body).map(Keys::Set).map_err(|problem| answer.fault(problem))
}

/// Turns a refusal into a transient fault. This request has no credentials that the API could refuse, so the refusal comes from a
/// proxy or a firewall.
fn refusal_is_transient(fault: Fault) -> Fault {
    let problem = match fault.problem {
        Problem::Page { status, .. } => Problem::Page { status, class: Class::Later },
        Problem::Status { status, code, class } if class == Class::Refused || needs_error_object(status) => {
            Problem::Status { status, code, class: Class::Later }
        }
        problem => problem,
    };
    Fault { problem, ..fault }
}

/// Returns the keys of a set that can verify ES256, and ignores all others.
///
/// # Errors
/// The body is not a key set, or has no such key.
pub fn usable(body: &[u8]) -> Result<Vec<Jwk>, Problem> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = json::read(body, "an object with a list of keys")?;
    let keys: Vec<Jwk> =
        set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).filter(is_es256).collect();
    if keys.is_empty() { Err(Problem::Form("it has no key for ES256")) } else { Ok(keys) }
}

/// Whether a key is for verifying ES256.
fn is_es256(key: &Jwk) -> bool {
    let curve = matches!(&key.algorithm, AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256);
    // RFC 7517, 4.2 and 4.3: both are optional; a present one limits the use of the key.
    let purpose = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operation = key.common.key_operations.as_ref().is_none_or(|list| list.contains(&KeyOperations::Verify));
    let algorithm = matches!(key.common.key_algorithm, None | Some(KeyAlgorithm::ES256));
    curve && purpose && operation && algorithm
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::api::http::{Http, Options};
    use crate::common::clock::SystemClock;

    use super::*;

    fn key(change: &Value) -> Value {
        let number = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let mut key = json!({"kty": "EC", "crv": "P-256", "x": number, "y": number});
        key.as_object_mut().unwrap().append(&mut change.as_object().unwrap().clone());
        key
    }

    // Promise: only the keys for ES256 of a key set are used, with any others beside them; a set without one is refused.
    #[test]
    fn only_keys_for_es256_count() {
        for (change, counts) in [
            (json!({}), true),
            (json!({"use": "sig", "alg": "ES256", "kid": "1", "x5c": ["a"], "new": 1}), true),
            (json!({"use": "enc"}), false),
            (json!({"key_ops": ["verify"]}), true),
            (json!({"use": "sig", "key_ops": ["sign", "verify"]}), true),
            (json!({"key_ops": ["sign"]}), false),
            (json!({"use": "sig", "key_ops": ["encrypt", "wrapKey"]}), false),
            (json!({"use": "enc", "key_ops": ["verify"]}), false),
            (json!({"key_ops": []}), false),
            (json!({"key_ops": ["Verify"]}), false),
            (json!({"key_ops": "verify"}), false),
            (json!({"alg": "ES384"}), false),
            (json!({"crv": "P-384"}), false),
            (json!({"crv": "P-384", "use": "enc"}), false),
            (json!({"kty": "OKP", "crv": "Ed25519"}), false),
            (json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}), false),
            (json!({"kty": "later"}), false),
        ] {
            let alone = usable(json!({"keys": [key(&change)]}).to_string().as_bytes());
            assert_eq!(alone.map(|keys| keys.len()).ok(), counts.then_some(1), "{change}");
            let beside = usable(json!({"keys": [key(&change), "no key", key(&json!({}))]}).to_string().as_bytes());
            assert_eq!(beside.unwrap().len(), 1 + usize::from(counts), "{change}");
        }
    }

    // Promise: a set that was cut is damaged; a set of another form, or an empty one, is invalid.
    #[test]
    fn damaged_and_invalid_sets_are_distinguished() {
        for (body, is_json) in [
            ("", false),
            (r#"{"keys":["#, false),
            ("<html>", false),
            ("[]", true),
            ("{}", true),
            (r#"{"keys":[]}"#, true),
        ] {
            let problem = usable(body.as_bytes()).unwrap_err();
            assert_eq!(matches!(problem, Problem::Form(_)), is_json, "{body}: {problem:?}");
            assert_eq!(matches!(problem, Problem::NotJson), !is_json, "{body}: {problem:?}");
        }
    }

    /// Returns the result of the request for keys when the server answers with this status and body.
    fn fetched(status: u16, body: &str) -> Result<Keys, Fault> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let lines = BufReader::new(connection.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            connection.write_all(answer.as_bytes()).unwrap();
            head[0].clone()
        });
        let http = Http::new(&api, Options { ca: None, proxy: None, clock: Arc::new(SystemClock) }).unwrap();
        let keys = fetch(&http, false, Ok(Duration::from_secs(5)));
        assert_eq!(server.join().unwrap(), "GET /.well-known/jwks.json HTTP/1.1");
        keys
    }

    // Promise: only a 404 means that there are no keys; a refusal does not come from the API and says nothing about the device's
    // credentials, so it is transient.
    #[test]
    fn each_status_has_its_meaning() {
        let set = json!({"keys": [key(&json!({}))]}).to_string();
        assert!(matches!(fetched(200, &set), Ok(Keys::Set(keys)) if keys.len() == 1));
        assert!(matches!(fetched(404, ""), Ok(Keys::None)));
        for (status, body, class) in [
            (200, "<html>", Class::Garbled),
            (200, "{}", Class::Protocol),
            (302, "", Class::Protocol),
            (400, "", Class::Protocol),
            (401, "", Class::Later),
            (401, r#"{"ErrorCode":70,"Message":""}"#, Class::Later),
            (403, "", Class::Later),
            (403, "<html>", Class::Later),
            (407, "<html>", Class::Later),
            (409, "{}", Class::Later),
            (500, "", Class::Later),
        ] {
            let fault = fetched(status, body).unwrap_err();
            assert_eq!(fault.class(), class, "{status} {body}");
            assert_eq!(fault.step, "GET /.well-known/jwks.json");
        }
    }
}
