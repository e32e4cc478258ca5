//! Answers of intermediaries between a device and the API: proxies, firewalls, gateways and captive portals. Includes
//! the API's own answers with the same statuses.

use super::Fault;

/// The statuses that both the API and intermediaries use.
const STATUSES: [u16; 4] = [401, 403, 407, 409];
/// The API's error codes that a login or refresh may return, and 20 and 54, which they never return.
const CODES: [u32; 10] = [10, 20, 30, 37, 38, 50, 51, 52, 54, 70];
/// The page of a captive portal.
const PAGE: &str = "<!DOCTYPE html><html><body>hush: please log in to the hotel's network</body></html>";
/// JSON that resembles the API's error object, but is not one.
const FOREIGN: [&str; 9] = [
    "{}",
    "{\"message\":\"Forbidden hush\"}",
    "{\"code\":70}",
    "{\"code\":70,\"message\":\"hush\"}",
    "{\"error\":{\"code\":30,\"message\":\"hush\"}}",
    "{\"errorCode\":\"30\",\"message\":\"hush\"}",
    "{\"errorCode\":30}",
    "[{\"errorCode\":30,\"message\":\"hush\"}]",
    "{\"type\":\"about:blank\",\"title\":\"hush\",\"status\":401,\"errorCode\":30}",
];

/// The body of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// No body.
    Empty,
    /// An HTML page.
    Page,
    /// JSON of a gateway or another API.
    Foreign(&'static str),
    /// The API's error object with this code.
    Api(u32),
}

/// An answer of an intermediary in place of the API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intermediary {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Body,
    /// The header `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

impl Intermediary {
    /// Returns the answer as a fault to script.
    pub fn fault(&self) -> Fault {
        let (status, named) = (self.status, |name: &str, value: String| (name.to_owned(), value));
        let mut headers: Vec<_> =
            self.retry_after.into_iter().map(|seconds| named("Retry-After", seconds.to_string())).collect();
        match status {
            401 => headers.push(named("WWW-Authenticate", "Basic realm=\"hush\"".to_owned())),
            407 => headers.push(named("Proxy-Authenticate", "Basic realm=\"hush\"".to_owned())),
            _ => {}
        }
        let answer = |content_type: &str, body: &str| Fault::Answer {
            status,
            content_type: content_type.to_owned(),
            body: body.to_owned(),
            headers: headers.clone(),
        };
        match self.body {
            Body::Empty => Fault::Status { code: status, error: None, headers },
            Body::Page => answer("text/html", PAGE),
            Body::Foreign(body) => answer("application/json", body),
            Body::Api(code) => Fault::Status { code: status, error: Some(code), headers },
        }
    }
}

/// Returns every answer of the family: each status with each body, with and without `Retry-After`.
pub fn family() -> Vec<Intermediary> {
    let bodies = || {
        [Body::Empty, Body::Page]
            .into_iter()
            .chain(FOREIGN.into_iter().map(Body::Foreign))
            .chain(CODES.into_iter().map(Body::Api))
    };
    let waits = [None, Some(600)];
    let of =
        |status| bodies().flat_map(move |body| waits.map(|retry_after| Intermediary { status, body, retry_after }));
    STATUSES.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the family has each status with each body once, with and without `Retry-After`.
    #[test]
    fn the_family_is_complete() {
        let family = family();
        assert_eq!(family.len(), STATUSES.len() * (2 + FOREIGN.len() + CODES.len()) * 2);
        let is_once = |one: &Intermediary| family.iter().filter(|other| *other == one).count() == 1;
        assert!(family.iter().all(is_once));
    }
}
