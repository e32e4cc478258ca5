//! Certificates, connections, clocks and records.

use super::*;
use rustls::CertificateError;
use std::time::SystemTime;

const DAY: Duration = Duration::from_hours(24);

/// Returns why the client rejects the server's certificate; `None` if it accepts it.
fn refusal(client: &Client) -> Option<CertificateError> {
    let error = client.try_send("GET", "/nothing", "").err()?;
    match error.get_ref()?.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(why)) => Some(why.clone()),
        _ => panic!("{error}"),
    }
}

fn with_tls(tls: Tls) -> Options {
    Options { tls, ..Options::default() }
}

/// Matches the one expected error.
type Expected = fn(&CertificateError) -> bool;

/// Each kind of certificate is accepted, or rejected for exactly its own reason.
#[test]
fn certificates() {
    let now = SystemTime::now();
    let window = |not_before, not_after| Tls::Window { not_before, not_after };
    let expired: Expected = |why| matches!(why, CertificateError::ExpiredContext { .. });
    let early: Expected = |why| matches!(why, CertificateError::NotValidYetContext { .. });
    let name: Expected = |why| matches!(why, CertificateError::NotValidForNameContext { .. });
    let issuer: Expected = |why| *why == CertificateError::UnknownIssuer;
    for (tls, expected) in [
        (Tls::Valid, None),
        (Tls::Plain, None),
        (window(now - DAY, now + DAY), None),
        (Tls::Expired, Some(expired)),
        (window(now - 2 * DAY, now - DAY), Some(expired)),
        (Tls::NotYetValid, Some(early)),
        (window(now + DAY, now + 2 * DAY), Some(early)),
        (Tls::WrongName, Some(name)),
        (Tls::SelfSigned, Some(issuer)),
    ] {
        let (api, client) = start(with_tls(tls));
        let plain = api.url().starts_with("http://127.0.0.1:");
        assert_eq!(plain, tls == Tls::Plain, "{}", api.url());
        let refusal = refusal(&client);
        match expected {
            None => assert_eq!(refusal, None, "{tls:?}"),
            Some(expected) => {
                assert!(refusal.as_ref().is_some_and(expected), "{tls:?}: {refusal:?}");
                assert!(api.requests().is_empty());
            }
        }
    }
}

/// Both TLS versions are supported; the agent's platforms need 1.2 too.
#[test]
fn tls_versions() {
    let (api, _) = start(Options::default());
    for version in rustls::ALL_VERSIONS {
        let config = client::config(&api, &[version]);
        let name = "localhost".try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = std::net::TcpStream::connect(api.address).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).unwrap();
        }
        assert_eq!(connection.protocol_version(), Some(version.version));
    }
}

/// A renewed certificate is accepted by clients that know the CA; with a new CA, only by clients that read the file
/// again.
#[test]
fn renewal() {
    let (api, client) = start(Options::default());
    api.renew_certificate(false).unwrap();
    assert_eq!(refusal(&client), None);
    api.renew_certificate(true).unwrap();
    // Both CAs have the same name, so the signature does not match.
    assert!(refusal(&client).is_some());
    assert_eq!(refusal(&Client::of(&api)), None);
}

/// One connection carries several requests, and many connections are served concurrently.
#[test]
fn keep_alive_and_many_connections() {
    let (api, client) = start(Options::default());
    let mut streams: Vec<_> = (0..50).map(|_| client.connect().unwrap()).collect();
    for stream in &mut streams {
        for _ in 0..2 {
            let request = client.text("GET", "/nothing", "", true);
            stream.write_all(request.as_bytes()).unwrap();
            let mut start = [0; 13];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 404 ");
            let mut rest = vec![0; 1000];
            let read = stream.read(&mut rest).unwrap();
            assert!(rest[..read].ends_with(b"}"));
        }
    }
    assert_eq!(api.calls("GET", "/nothing"), 100);
}

/// Once dropped, the port is free for the next server and open connections are closed; a database file keeps the users.
#[test]
fn stop_and_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options { database: Some(folder.path().join("users.db")), ..Options::default() };
    let (api, client) = start(options.clone());
    api.inject("GET", "/hang", Fault::Hang, 1);
    let mut stream = client.connect().unwrap();
    let request = client.text("GET", "/hang", "", true);
    stream.write_all(request.as_bytes()).unwrap();
    options.listen = api.address;
    let begin = Instant::now();
    drop(api);
    assert!(begin.elapsed() < Duration::from_secs(1));
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_err() && rest.is_empty());
    assert!(client.connect().and_then(|mut s| s.write_all(b"x")).is_err());
    let api = DevApi::start(options).unwrap();
    assert_eq!(log_in(&Client::of(&api), EMAIL, PASSWORD).status, 200);
}

/// A server can be stopped and started inside another runtime, as in an asynchronous test.
#[tokio::test]
async fn inside_a_runtime() {
    let (api, client) = start(Options::default());
    assert_eq!(client.get("/nothing").status, 404);
    drop(api);
}

/// The `Date` header follows the server's clock, which can be shifted; it can also be disabled.
#[test]
fn dates() {
    let (api, client) = start(Options { clock_offset: -3600, ..Options::default() });
    let assert_off_by = |seconds: i64| {
        let date = client.get("/nothing").header("date").unwrap().to_owned();
        let date = time::OffsetDateTime::from(httpdate::parse_http_date(&date).unwrap());
        let off = (date - time::OffsetDateTime::now_utc()).whole_seconds();
        assert!((off - seconds).abs() < 5, "{off}");
    };
    assert_off_by(-3600);
    api.shift_clock(7200);
    assert_off_by(3600);
    let claims = log_in(&client, EMAIL, PASSWORD).json();
    let expires = claims["accessExp"].as_str().unwrap();
    assert!(expires.ends_with('Z'), "{expires}");
    let (_api, client) = start(Options { date_header: false, ..Options::default() });
    assert_eq!(client.get("/nothing").header("date"), None);
}

/// Requests are recorded in order, with their details, until cleared.
#[test]
fn records() {
    let (api, client) = start(Options { path_prefix: "/admin/".to_owned(), ..Options::default() });
    assert!(api.url().ends_with("/admin"), "{}", api.url());
    let reply = log_in(&client, EMAIL, "wrong-password");
    assert_eq!(reply.status, 409);
    client.get("/users?searchEmail=x");
    let requests = api.requests();
    let noted: Vec<_> =
        requests.iter().map(|r| (r.method.as_str(), r.path.as_str(), r.status, r.body_bytes > 0)).collect();
    let expected = [("POST", "/login", Some(409), true), ("GET", "/users", Some(401), false)];
    assert_eq!(noted, expected);
    assert!(requests[0].peer.is_loopback() && requests[0].at <= requests[1].at);
    assert_eq!(api.calls("POST", "/login"), 1);
    assert_eq!(api.calls("GET", "/login"), 0);
    api.forget_requests();
    assert!(api.requests().is_empty());
}
