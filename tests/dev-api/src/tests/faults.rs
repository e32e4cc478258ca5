//! Each scripted fault as a client sees it.

use super::*;

/// Two users to create, one after the other.
fn new_user(number: u32) -> Value {
    let email = format!("new-{number}@azaion.com");
    json!({"email": email, "password": "12345678", "role": "CompanionPC"})
}

/// A scripted status comes with its code and headers, as often as requested, and the request is not handled.
#[test]
fn status() {
    let (api, client) = start(Options::default());
    let busy = Fault::Status { code: 503, error: None, headers: vec![("Retry-After".to_owned(), "7".to_owned())] };
    let limited = Fault::Status { code: 429, error: Some(51), headers: Vec::new() };
    api.inject("POST", "/login", busy, 2);
    api.inject("POST", "/login", limited, 1);
    for _ in 0..2 {
        let reply = log_in(&client, EMAIL, PASSWORD);
        assert_eq!(reply.outcome(), (503, None));
        assert_eq!(reply.header("retry-after"), Some("7"));
        assert!(reply.body.is_empty());
    }
    assert_eq!(log_in(&client, EMAIL, PASSWORD).outcome(), (429, Some(51)));
    assert_eq!(log_in(&client, EMAIL, PASSWORD).status, 200);
}

/// A connection is closed without an answer, before or after the request was handled.
#[test]
fn drops() {
    let (api, client) = start(Options::default());
    let admin = as_admin(&client);
    for (fault, number, made) in [(Fault::DropBefore, 1, false), (Fault::DropAfter, 2, true)] {
        api.inject("POST", "/users", fault, 1);
        let body = new_user(number).to_string();
        assert!(admin.try_send("POST", "/users", &body).is_err());
        let email = format!("new-{number}@azaion.com");
        assert_eq!(api.user(&email).is_some(), made);
        assert_eq!(api.requests().last().unwrap().status, None);
    }
}

/// A delayed answer arrives later; a hanging one never.
#[test]
fn delay_and_hang() {
    let (api, mut client) = start(Options::default());
    let delay = Duration::from_millis(30);
    api.inject("POST", "/login", Fault::Delay(delay), 1);
    let begin = Instant::now();
    assert_eq!(log_in(&client, EMAIL, PASSWORD).status, 200);
    assert!(begin.elapsed() >= delay);
    api.inject("GET", "/users", Fault::Hang, 1);
    client.timeout = Duration::from_millis(50);
    let error = client.try_send("GET", "/users", "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(api.requests().last().unwrap().status, None);
}

/// A truncated answer declares its full length, but only half of it arrives.
#[test]
fn truncate() {
    for tls in [Tls::Valid, Tls::Plain] {
        let (api, client) = start(Options { tls, ..Options::default() });
        let whole = client.get("/.well-known/jwks.json").body;
        api.inject("GET", "/.well-known/jwks.json", Fault::Truncate, 1);
        let reply = client.get("/.well-known/jwks.json");
        assert_eq!(reply.status, 200);
        let length = whole.len().to_string();
        assert_eq!(reply.header("content-length"), Some(length.as_str()));
        assert_eq!(reply.body, whole[..whole.len() / 2]);
        assert_eq!(reply.complete, tls == Tls::Plain, "only TLS can tell");
    }
}

/// A huge answer has its size; an endless one continues for as long as the client reads.
#[test]
fn huge_and_endless() {
    const SIZE: usize = 3_000_000;
    let (api, client) = start(Options::default());
    api.inject("POST", "/login", Fault::Huge(SIZE), 1);
    let reply = log_in(&client, EMAIL, PASSWORD);
    assert_eq!((reply.status, reply.body.len()), (200, SIZE));
    assert_eq!(reply.json()["token"].as_str().unwrap().len(), SIZE - 12);
    api.inject("POST", "/login", Fault::Endless, 1);
    let mut stream = client.connect().unwrap();
    let request = client.text("POST", "/login", "{}", true);
    stream.write_all(request.as_bytes()).unwrap();
    let mut start = vec![0; 500_000];
    stream.read_exact(&mut start).unwrap();
    let start = String::from_utf8(start).unwrap().to_lowercase();
    assert!(start.starts_with("http/1.1 200 ") && start.contains("transfer-encoding: chunked"));
}

/// A dripping answer is complete in the end.
#[test]
fn drip() {
    let (api, client) = start(Options::default());
    api.inject("POST", "/login", Fault::Drip(Duration::from_micros(1)), 1);
    let body = json!({"email": EMAIL, "password": "wrong-password"});
    let begin = Instant::now();
    let reply = client.post("/login", &body);
    assert_eq!(reply.outcome(), (409, Some(30)));
    // tokio's timer ticks once a millisecond, so each byte takes at least one.
    let shortest = Duration::from_millis(reply.body.len() as u64);
    assert!(begin.elapsed() >= shortest / 2);
}

/// A redirect and an arbitrary answer come as scripted, on every request if requested, until cleared.
#[test]
fn redirect_and_answer() {
    let (api, client) = start(Options::default());
    api.inject("POST", "/login", Fault::Redirect("https://x.example/".to_owned()), 1);
    let page = Fault::Answer {
        status: 200,
        content_type: "text/html".to_owned(),
        body: "<html>captive portal</html>".to_owned(),
        headers: vec![("Date".to_owned(), "Thu, 01 Jan 1970 00:00:00 GMT".to_owned())],
    };
    api.inject("POST", "/login", page, usize::MAX);
    let reply = log_in(&client, EMAIL, PASSWORD);
    assert_eq!(reply.status, 307);
    assert_eq!(reply.header("location"), Some("https://x.example/"));
    for _ in 0..3 {
        let reply = log_in(&client, EMAIL, PASSWORD);
        assert_eq!(reply.header("content-type"), Some("text/html"));
        assert_eq!(reply.header("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(reply.body, b"<html>captive portal</html>");
    }
    api.clear_faults();
    assert_eq!(log_in(&client, EMAIL, PASSWORD).status, 200);
}

/// A hook runs once, after the request has arrived and before it is handled.
#[test]
fn hooks() {
    let (api, client) = start(Options::default());
    let admin = as_admin(&client);
    let api = Arc::new(api);
    let (tell, told) = mpsc::channel();
    let seen = Arc::downgrade(&api);
    let hook = move || {
        let api = seen.upgrade().unwrap();
        let made = api.user("new-1@azaion.com").is_some();
        tell.send((api.calls("POST", "/users"), made)).unwrap();
    };
    api.on_request("POST", "/users", Box::new(hook));
    assert_eq!(admin.post("/users", &new_user(1)).status, 201);
    assert_eq!(admin.post("/users", &new_user(2)).status, 201);
    assert_eq!(told.iter().collect::<Vec<_>>(), [(1, false)]);
}
