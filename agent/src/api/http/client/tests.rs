use super::super::tests::{DAY, GET, response};
use super::super::verifier::tests::some_chain;
use super::*;
use crate::common::clock::virtual_clock::VirtualClock;

// Promise: `Debug` of the request does not show the bearer token.
#[test]
fn the_bearer_header_is_sensitive() {
    assert_eq!(format!("{:?}", bearer_header(&SecretString::from("abc"))), "Sensitive");
}

// Promise: the `Date` of an answer is used only if the answer came over TLS.
#[test]
fn only_dates_over_tls_are_used() {
    let clock = Arc::new(VirtualClock::at("2026-05-03T10:00:00Z"));
    let api = "https://api.example".parse().unwrap();
    let client =
        Http::new(&api, Options { ca: None, proxy: None, clock: Arc::clone(&clock) as Arc<dyn TlsClock> }).unwrap();
    let chain = Arc::new(some_chain());
    let day = Timestamp::from_http_date(DAY);
    let head = |headers: &[(&str, &str)]| Answer::head_of(&GET, "api", &response(headers, Vec::new()), None);
    let mut dated =
        head(&[("date", " Sun, 03 May 2026 10:00:00 GMT "), ("retry-after", "Sun, 03 May 2026 10:00:07 GMT")]);
    assert_eq!((dated.date, dated.retry_after), (day, Some(Duration::from_secs(7))));
    client.learn(&dated);
    assert_eq!(client.server_date(), None);
    dated.chain = Some(Arc::clone(&chain));
    client.learn(&dated);
    assert_eq!(client.server_date(), day);
    // The boot clock advances it, so that work after the answer does not make the server's clock look wrong.
    clock.advance(Duration::from_secs(33));
    assert_eq!(client.server_date(), day.map(|day| day.plus(Duration::from_secs(33))));
    clock.advance(Duration::from_secs(27));
    client.learn(&dated);
    assert_eq!(client.server_date(), day);
    // An answer without a valid date keeps the known time.
    let mut undated = head(&[("date", "today")]);
    undated.chain = Some(chain);
    client.learn(&undated);
    assert_eq!(client.server_date(), day);
}
