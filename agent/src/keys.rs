//! The server's public keys: `GET /.well-known/jwks.json` (RFC 7517).

use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use serde::Deserialize;

use crate::fault::{Class, Fault, Problem};
use crate::http::{Answer, Call, Http, Method};
use crate::json;
use crate::token::Keys;

/// Asks the server for its keys.
///
/// # Errors
/// No answer, or one that is no key set, or a set without a key for ES256.
pub fn fetch(http: &Http, limit: Duration) -> Result<Keys, Fault> {
    let answer =
        http.call(&Call { method: Method::GET, path: "/.well-known/jwks.json", body: None, bearer: None }, limit)?;
    keys_of(&answer)
}

/// Reads the answer to the request for keys.
///
/// # Errors
/// As [`fetch`].
fn keys_of(answer: &Answer) -> Result<Keys, Fault> {
    if answer.status == 404 {
        return Ok(Keys::None);
    }
    let body = answer.accept(&[200]).map_err(out_of_reach)?;
    usable(body).map(Keys::Set).map_err(|problem| answer.fault(problem))
}

/// Whoever refuses to show public keys (a proxy, a firewall) says nothing about the device's credentials.
fn out_of_reach(fault: Fault) -> Fault {
    match fault.problem {
        Problem::Status { status, code, class: Class::Refused } => {
            Fault { problem: Problem::Status { status, code, class: Class::Later }, ..fault }
        }
        _ => fault,
    }
}

/// The keys of a set that can verify ES256. Others may stand beside them.
///
/// # Errors
/// It is no key set, or one without such a key.
pub fn usable(body: &[u8]) -> Result<Vec<Jwk>, Problem> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = json::read(body, "an object with a list of keys")?;
    let keys: Vec<Jwk> =
        set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).filter(is_es256).collect();
    if keys.is_empty() { Err(Problem::Form("no key for ES256 is in it")) } else { Ok(keys) }
}

fn is_es256(key: &Jwk) -> bool {
    let curve = matches!(&key.algorithm, AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256);
    let purpose = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let algorithm = matches!(key.common.key_algorithm, None | Some(KeyAlgorithm::ES256));
    curve && purpose && algorithm
}
