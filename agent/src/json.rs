//! The JSON that goes over the wire, both ways; bodies hold passwords and tokens.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fault::Problem;

/// A request body; wiped after use. Grown once, so that no copy of a password stays behind.
pub fn body(content: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    // Maps of strings can't fail to serialise, and a Vec takes every write.
    let _ = serde_json::to_writer(&mut *bytes, content);
    bytes
}

/// Reads a JSON body: what is not JSON at all is damage, what is JSON of another form is an answer.
///
/// # Errors
/// As a [`Problem`] that repeats nothing of the body.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &'static str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|_| {
        // The form is judged while reading: what is cut after that is damage all the same.
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        if is_json { Problem::Form(expected) } else { Problem::NotJson }
    })
}

/// The API's own error code in an error body, in any spelling; none in a body that has none.
pub(crate) fn error_code(body: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct ErrorBody {
        #[serde(alias = "error_code", alias = "ErrorCode", alias = "code", alias = "Code")]
        #[serde(rename = "errorCode")]
        code: u32,
    }
    serde_json::from_slice::<ErrorBody>(body).ok().map(|error| error.code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    // Promise: a body is the JSON of what was given, and what is read from one is that again.
    #[test]
    fn bodies_are_json() {
        let content = BTreeMap::from([("email", "d@azaion.com"), ("password", "p")]);
        let body = body(&content);
        assert_eq!(std::str::from_utf8(&body).unwrap(), r#"{"email":"d@azaion.com","password":"p"}"#);
        assert_eq!(read::<BTreeMap<&str, &str>>(&body, "an object").unwrap(), content);
    }

    // Promise: error codes are read in every spelling.
    #[test]
    fn reads_error_codes() {
        for (body, code) in [
            (r#"{"errorCode":20,"message":"m"}"#, Some(20)),
            (r#"{"error_code":20}"#, Some(20)),
            (r#"{"ErrorCode":20}"#, Some(20)),
            (r#"{"code":20}"#, Some(20)),
            (r#"{"errorCode":"20"}"#, None),
            (r#"{"message":"m"}"#, None),
            ("<html>", None),
        ] {
            assert_eq!(error_code(body.as_bytes()), code, "{body}");
        }
    }
}
