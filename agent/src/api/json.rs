//! JSON of request and answer bodies, which contain passwords and tokens.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::api::fault::Problem;

/// Serialises a request body, which is wiped after use. It is allocated once, so that no copy of a password stays in memory.
pub fn body(content: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    // Maps of strings can't fail to serialise, and a Vec takes every write.
    let _ = serde_json::to_writer(&mut *bytes, content);
    bytes
}

/// Parses a JSON body. A body that is not JSON is damaged; JSON of another form is an invalid answer.
///
/// # Errors
/// As a [`Problem`] that repeats nothing of the body.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &'static str) -> Result<T, Problem> {
    if has_duplicate_names(body) {
        return Err(Problem::Form("an object with unique names"));
    }
    serde_json::from_slice(body).map_err(|_| {
        // serde reports a wrong form before it reaches the end of the body: a body that is cut after that is still damaged.
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        if is_json { Problem::Form(expected) } else { Problem::NotJson }
    })
}

/// Whether this is JSON in which an object, at any depth, has a duplicate name. Parsers differ in which of the values they use
/// (RFC 8259, 4), so one program could validate a value that another one does not use.
pub fn has_duplicate_names(json: &[u8]) -> bool {
    match serde_json::from_slice::<UniqueNames>(json) {
        Ok(_) => false,
        // Other errors concern the JSON itself; the caller's own parsing reports them.
        Err(error) => error.is_data(),
    }
}

/// Any JSON value whose objects have unique names. It stores nothing, because bodies contain secrets.
struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = object.next_key::<String>()? {
            if !names.insert(name) {
                return Err(de::Error::custom("a name twice"));
            }
            object.next_value::<Self>()?;
        }
        Ok(self)
    }
}

/// Returns the code of the API's error object, `{"ErrorCode": int, "Message": string}`, in any casing (`errorCode`, `error_code`);
/// `None` if the body is not that object.
///
/// Both fields are required: gateways, proxies and portals send their own JSON, which says nothing about the credentials.
pub(crate) fn error_code(body: &[u8]) -> Option<u32> {
    let object: Map<String, Value> = read(body, "an error object").ok()?;
    let field = |name: &str| {
        let mut found = object.iter().filter(|(key, _)| key.replace('_', "").eq_ignore_ascii_case(name));
        // Two spellings of one field contradict each other.
        found.next().filter(|_| found.next().is_none()).map(|(_, value)| value)
    };
    field("message")?.as_str()?;
    u32::try_from(field("errorcode")?.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    // Promise: a body is the JSON of its content, and parsing gives the same content.
    #[test]
    fn bodies_are_json() {
        let content = BTreeMap::from([("email", "d@azaion.com"), ("password", "p")]);
        let body = body(&content);
        assert_eq!(std::str::from_utf8(&body).unwrap(), r#"{"email":"d@azaion.com","password":"p"}"#);
        assert_eq!(read::<BTreeMap<&str, &str>>(&body, "an object").unwrap(), content);
    }

    // Promise: a duplicate name in one object is refused at any depth, also with another escape sequence; the same name in two
    // objects is allowed.
    #[test]
    fn names_are_unique() {
        for (body, is_refused) in [
            (r#"{"role":"ApiAdmin","role":"CompanionPC"}"#, true),
            (r#"{"role":"CompanionPC","role":"CompanionPC"}"#, true),
            (r#"{"role":1,"\u0072ole":2}"#, true),
            (r#"{"a":{"b":[{"c":1,"c":2}]}}"#, true),
            (r#"[{"a":1},{"a":1,"a":1}]"#, true),
            (r#"{"":1,"":2}"#, true),
            (r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#, false),
            (r#"{"role":1,"Role":2}"#, false),
            (r#"[null,true,-1,1,1.5,1e300,"a","a"]"#, false),
        ] {
            assert_eq!(has_duplicate_names(body.as_bytes()), is_refused, "{body}");
            let read = read::<serde_json::Value>(body.as_bytes(), "anything");
            assert_eq!(matches!(read, Err(Problem::Form(_))), is_refused, "{body}");
        }
        // A body that is not JSON is damaged, and not of a wrong form.
        for body in ["", "{", r#"{"a":1,"b""#, "<html>", "{}x"] {
            assert!(!has_duplicate_names(body.as_bytes()), "{body}");
            assert!(matches!(read::<serde_json::Value>(body.as_bytes(), "anything"), Err(Problem::NotJson)), "{body}");
        }
    }

    // Promise: the API's error object is parsed in every casing; an object without both fields of the right types is not the API's.
    #[test]
    fn reads_error_codes() {
        for (body, code) in [
            (r#"{"ErrorCode":20,"Message":"m"}"#, Some(20)),
            (r#"{"errorCode":20,"message":"m"}"#, Some(20)),
            (r#"{"error_code":20,"message":""}"#, Some(20)),
            (r#"{"ERRORCODE":20,"Message":"m","traceId":"t"}"#, Some(20)),
            (r#"{"errorCode":20,"Message":"m"}"#, Some(20)),
            (r#"{"errorCode":20}"#, None),
            (r#"{"code":70}"#, None),
            (r#"{"code":20,"message":"m"}"#, None),
            (r#"{"error":{"code":30,"message":"m"}}"#, None),
            (r#"{"error":{"errorCode":30,"message":"m"}}"#, None),
            (r#"{"errorCode":"20","message":"m"}"#, None),
            (r#"{"errorCode":20.0,"message":"m"}"#, None),
            (r#"{"errorCode":-20,"message":"m"}"#, None),
            (r#"{"errorCode":null,"message":"m"}"#, None),
            (r#"{"errorCode":4294967316,"message":"m"}"#, None),
            (r#"{"errorCode":20,"message":null}"#, None),
            (r#"{"errorCode":20,"message":7}"#, None),
            (r#"{"errorCode":20,"message":{}}"#, None),
            (r#"{"errorCode":30,"ErrorCode":20,"message":"m"}"#, None),
            (r#"{"errorCode":30,"errorCode":20,"message":"m"}"#, None),
            (r#"{"errorCode":20,"message":"m","Message":"n"}"#, None),
            (r#"{"message":"m"}"#, None),
            (r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"m","errorCode":30}"#, None),
            (r#"[{"errorCode":20,"message":"m"}]"#, None),
            (r#"{"errorCode":20,"message":"m""#, None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(error_code(body.as_bytes()), code, "{body}");
        }
    }
}
