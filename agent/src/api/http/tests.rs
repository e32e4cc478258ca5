use reqwest::Response;

use super::*;

pub(super) const DAY: &str = "Sun, 03 May 2026 10:00:00 GMT";

/// A call without body and token.
pub(super) const GET: Call<'_> = Call { method: Method::GET, path: "/", body: None, bearer: None, is_uncached: false };

/// Creates a response with these headers.
pub(super) fn response(headers: &[(&str, &str)], body: Vec<u8>) -> Response {
    let builder =
        headers.iter().fold(http::Response::builder(), |builder, (name, value)| builder.header(*name, *value));
    Response::from(builder.body(body).unwrap())
}

// Promise: `Debug` of a call does not show its body.
#[test]
fn bodies_are_not_shown() {
    let bearer = SecretString::from("hush");
    let body = Some(Zeroizing::new(b"hush".to_vec()));
    let call = Call { method: Method::POST, path: "/login", body, bearer: Some(&bearer), is_uncached: false };
    assert_eq!(format!("{call:?}"), "Call(\"POST /login\")");
}
