use std::io::Write;

use super::*;
use crate::clock::virtual_clock::VirtualClock;
use crate::fault::chain;

const DAY: &str = "Sun, 03 May 2026 10:00:00 GMT";

/// An answer with these headers.
fn response(headers: &[(&str, &str)], body: Vec<u8>) -> Response {
    let builder =
        headers.iter().fold(http::Response::builder(), |builder, (name, value)| builder.header(*name, *value));
    Response::from(builder.body(body).unwrap())
}

// Promise: both forms of Retry-After are obeyed, absurd ones are cut, and garbage is a minute.
#[test]
fn retry_after_in_both_forms() {
    let date = Timestamp::from_http_date(DAY);
    for (value, seconds) in [
        ("0", 0),
        (" 7 ", 7),
        ("3600", 3600),
        ("3601", 3600),
        ("99999999999999999999999999", 3600),
        ("Sun, 03 May 2026 10:00:30 GMT", 30),
        ("Sun, 03 May 2026 09:00:00 GMT", 0),
        ("Sun, 03 May 2099 09:00:00 GMT", 3600),
        ("-1", 60),
        ("1.5", 60),
        ("soon", 60),
        ("", 60),
    ] {
        assert_eq!(retry_after(value, date).as_secs(), seconds, "{value}");
    }
    assert_eq!(retry_after("Sun, 03 May 2026 10:00:30 GMT", None).as_secs(), 60);
}

// Promise: neither a call nor an answer shows its body in a `Debug`.
#[test]
fn bodies_are_not_shown() {
    let hush = || Zeroizing::new(b"hush".to_vec());
    let bearer = SecretString::from("hush");
    let call =
        Call { method: Method::POST, path: "/login", body: Some(hush()), bearer: Some(&bearer), is_uncached: false };
    assert_eq!(format!("{call:?}"), "Call(\"POST /login\")");
    let (step, host) = (call.step(), "api.example".into());
    let (retry_after, date, certificate) = (None, None, None);
    let answer = Answer { step, host, status: 200, retry_after, date, certificate, body: hush() };
    assert_eq!(format!("{answer:?}"), "Answer(\"POST /login\", \"api.example\", 200)");
}

// Promise: a bearer token does not show in a `Debug` of the request.
#[test]
fn the_bearer_header_is_sensitive() {
    assert_eq!(format!("{:?}", bearer_header(&SecretString::from("abc"))), "Sensitive");
}

// Promise: what an answer says of the time is read; it is believed only if it came through TLS.
#[test]
fn the_time_comes_through_tls_alone() {
    let clock = Arc::new(VirtualClock::at("2026-05-03T10:00:00Z"));
    let api = "https://api.example".parse().unwrap();
    let client = Http::new(&api, None, Arc::clone(&clock) as Arc<dyn TlsClock>).unwrap();
    let day = Timestamp::from_http_date(DAY);
    let head = |headers: &[(&str, &str)]| client.head_of("GET /".into(), &response(headers, Vec::new()));
    let mut dated =
        head(&[("date", " Sun, 03 May 2026 10:00:00 GMT "), ("retry-after", "Sun, 03 May 2026 10:00:07 GMT")]);
    assert_eq!((dated.date, dated.retry_after), (day, Some(Duration::from_secs(7))));
    client.learn(&dated);
    assert_eq!(client.server_date(), None);
    dated.certificate = Some(Vec::new());
    client.learn(&dated);
    assert_eq!(client.server_date(), day);
    // The boot clock carries it on: what takes half a minute after the answer does not make the server's clock look wrong.
    clock.advance(Duration::from_secs(33));
    assert_eq!(client.server_date(), day.map(|day| day.plus(Duration::from_secs(33))));
    clock.advance(Duration::from_secs(27));
    client.learn(&dated);
    assert_eq!(client.server_date(), day);
    // One without keeps what is known.
    client.learn(&Answer { certificate: Some(Vec::new()), ..head(&[("date", "today")]) });
    assert_eq!(client.server_date(), day);
}

// Promise: an answer as large as may be is read whole, and one that is larger not at all.
#[test]
fn an_answer_has_an_end() {
    assert_eq!(LARGEST_ANSWER, 65_536);
    let runtime = Builder::new_current_thread().build().unwrap();
    for (size, is_read) in [(0, true), (LARGEST_ANSWER, true), (LARGEST_ANSWER + 1, false)] {
        let body = runtime.block_on(body_of(response(&[], vec![b' '; size])));
        assert_eq!(body.map(|body| body.len()).ok(), is_read.then_some(size));
    }
}

// Promise: a CA file without a certificate is told from one that can't be read, or is too large; none is passed over or cut.
#[test]
fn ca_files_are_judged() {
    let dir = tempfile::tempdir().unwrap();
    let (file, missing) = (dir.path().join("ca.pem"), dir.path().join("missing"));
    let mut roots = RootCertStore::empty();
    for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        File::create(&file).unwrap().write_all(text.as_bytes()).unwrap();
        assert!(
            matches!(add_roots(&mut roots, &CaFile::read(&file).unwrap()), Err(HttpError::NoCertificate { .. })),
            "{text}"
        );
    }
    assert!(matches!(CaFile::read(&missing), Err(HttpError::CaFile { .. })));
    // Cut, a certificate that is needed would be missing from it.
    let large = File::options().write(true).open(&file).unwrap();
    large.set_len(LARGEST_CA_FILE).unwrap();
    CaFile::read(&file).unwrap();
    large.set_len(LARGEST_CA_FILE + 1).unwrap();
    let error = chain(&CaFile::read(&file).unwrap_err());
    assert!(error.contains(&file.display().to_string()) && error.contains("larger than 4 MiB"), "{error}");
    assert!(roots.is_empty());
}

// Promise: certificates are judged by the clock that is given, not by the system's.
#[test]
fn certificates_have_our_time() {
    #[derive(Debug)]
    struct Then(Timestamp);
    impl TlsClock for Then {
        fn now(&self) -> Timestamp {
            self.0
        }

        fn boot(&self) -> Duration {
            Duration::ZERO
        }
    }
    let then = Timestamp::from_http_date(DAY).unwrap();
    let seen = CertificateTime(Arc::new(Then(then))).current_time();
    assert_eq!(seen.map(|time| time.as_secs()), Some(then.unix()));
}
