//! The account's id on the API: the claim that .NET calls `NameIdentifier`, a GUID.
//!
//! No check of a token depends on it, and a token without it is accepted. Programs on the device need it, because the API
//! identifies an aircraft by it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Claims;
use super::single;

/// Names of the claim in .NET: the short form, or the full claim URI.
const CLAIMS: [&str; 2] = ["nameid", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"];
/// The name in RFC 7519, 4.1.2, for a token that has neither.
const FALLBACK: [&str; 1] = ["sub"];
/// Numbers of digits between the hyphens of a GUID.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// The id of an account: a GUID as the API writes it, with hexadecimal digits in groups of 8, 4, 4, 4 and 12, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")))]
pub struct UserId(String);

/// A text is not a GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID")]
pub struct NotAGuid;

impl FromStr for UserId {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let is_hexadecimal = |group: &str| group.bytes().all(|digit| digit.is_ascii_hexdigit());
        let is_guid = text.split('-').map(str::len).eq(GROUPS) && text.split('-').all(is_hexadecimal);
        is_guid.then(|| Self(text.to_ascii_lowercase())).ok_or(NotAGuid)
    }
}

impl TryFrom<String> for UserId {
    type Error = NotAGuid;

    fn try_from(text: String) -> Result<Self, NotAGuid> {
        text.parse()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the account's id, if the claims have one. Two different ids count as none: a program must not act for another account.
pub(super) fn of(claims: &Claims) -> Option<UserId> {
    let names: &[&str] = if CLAIMS.iter().any(|name| claims.contains_key(*name)) { &CLAIMS } else { &FALLBACK };
    let id = single(claims, names).and_then(|id| id.parse().ok());
    if id.is_none() {
        log::debug!("the token does not have the account's id as one GUID; user_id is omitted");
    }
    id
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "0b54b2e1-9c1f-4f63-8a35-2f4c3d9be001";
    const OTHER: &str = "0b54b2e1-9c1f-4f63-8a35-2f4c3d9be002";
    const URI: &str = CLAIMS[1];

    fn found(claims: Value) -> Option<String> {
        of(&serde_json::from_value(claims).unwrap()).map(|id| id.to_string())
    }

    // Promise: the id is found under either name of .NET, or else as the subject; an id that is not a GUID, or two different ids,
    // count as none.
    #[test]
    fn the_id_is_found() {
        for (claims, expected) in [
            (json!({ "nameid": ID }), Some(ID)),
            (json!({ URI: ID }), Some(ID)),
            (json!({ "nameid": ID, URI: ID, "sub": "d@azaion.com" }), Some(ID)),
            (json!({ "nameid": [ID] }), Some(ID)),
            (json!({ "nameid": ID.to_uppercase() }), Some(ID)),
            (json!({ "sub": ID }), Some(ID)),
            (json!({}), None),
            (json!({ "sub": "d@azaion.com" }), None),
            (json!({ "nameid": "1", "sub": ID }), None),
            (json!({ "nameid": ID, URI: OTHER }), None),
            (json!({ "nameid": [ID, OTHER] }), None),
            (json!({ "nameid": 7 }), None),
        ] {
            assert_eq!(found(claims.clone()).as_deref(), expected, "{claims}");
        }
    }

    // Promise: only GUIDs as the API writes them are accepted, also in files.
    #[test]
    fn guids() {
        for text in [
            "",
            "1",
            "0b54b2e19c1f4f638a352f4c3d9be001",
            "{0b54b2e1-9c1f-4f63-8a35-2f4c3d9be001}",
            "0b54b2e1-9c1f-4f63-8a35-2f4c3d9be00g",
            "0b54b2e1-9c1f-4f63-8a35-2f4c3d9be001-",
            "0b54b2e1-9c1f-4f638-a35-2f4c3d9be001",
        ] {
            assert_eq!(text.parse::<UserId>(), Err(NotAGuid), "{text}");
            assert!(serde_json::from_value::<UserId>(json!(text)).is_err(), "{text}");
        }
        let id: UserId = serde_json::from_value(json!(ID)).unwrap();
        assert_eq!(serde_json::to_value(id).unwrap(), ID);
    }
}
