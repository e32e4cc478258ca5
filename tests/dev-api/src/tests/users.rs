//! The routes on users and devices.

use super::*;

fn user(email: &str, password: &str) -> Value {
    json!({"email": email, "password": password, "role": "CompanionPC"})
}

/// Creating a user succeeds, or is refused with the code that says why.
#[test]
fn create() {
    for (generation_, created) in [(Generation::G1, 200), (Generation::G2, 201), (Generation::G2b, 201)] {
        let (api, client) = start(generation(generation_));
        let admin = as_admin(&client);
        for (body, outcome) in [
            (user("new@azaion.com", "12345678"), (created, None)),
            (user("NEW@azaion.com", "12345678"), (409, Some(20))),
            (user("other@azaion.com", "1234567"), (400, Some(32))),
            (user("a@b.com", "12345678"), (400, Some(35))),
            (user(&format!("{}@azaion.com", "a".repeat(150)), "12345678"), (400, Some(35))),
            (user("not-an-email", "12345678"), (400, Some(37))),
            (json!({"email": "other@azaion.com", "password": "12345678", "role": 30}), (400, None)),
            (json!({"email": "other@azaion.com"}), (400, None)),
            (json!("text"), (400, None)),
        ] {
            assert_eq!(admin.post("/users", &body).outcome(), outcome, "{body}");
        }
        let made = User { email: "new@azaion.com".to_owned(), role: "CompanionPC".to_owned(), enabled: true };
        assert_eq!(api.user("new@azaion.com"), Some(made.clone()));
        assert_eq!(api.users().get(1..), Some(&[made] as &[_]));
        assert!(api.password_is("new@azaion.com", "12345678"));
        assert!(!api.password_is("new@azaion.com", "12345679"));
        assert_eq!(log_in(&client, "new@azaion.com", "12345678").status, 200);
    }
}

/// Of any number of concurrent requests to create the same user, one succeeds and all others get an error.
#[test]
fn create_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for database in [None, Some(folder.path().join("users.db"))] {
        let (api, client) = start(Options { database, ..Options::default() });
        let admin = as_admin(&client);
        let mut outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads =
                [(); 20].map(|()| scope.spawn(|| admin.post("/users", &user("new@azaion.com", "12345678")).outcome()));
            threads.map(|thread| thread.join().unwrap()).to_vec()
        });
        outcomes.sort_unstable();
        let mut expected = vec![(201, None)];
        expected.resize(20, (409, Some(20)));
        assert_eq!(outcomes, expected);
        assert_eq!(api.users().len(), 2);
    }
}

/// 401 without a valid bearer token, 403 with that of a user who is no admin, and nothing changes.
#[test]
fn permissions() {
    let (api, client) = start(Options::default());
    let device = log_in(&client, EMAIL, PASSWORD).json()["token"].clone();
    let device = client.with_bearer(device.as_str().unwrap());
    for (method, path) in [
        ("POST", "/users"),
        ("GET", "/users"),
        ("PATCH", "/users/password"),
        ("PUT", "/users/azaion-jetson-0042@azaion.com/set-role/ApiAdmin"),
        ("PUT", "/users/azaion-jetson-0042@azaion.com/disable"),
        ("DELETE", "/users/azaion-jetson-0042@azaion.com"),
        ("POST", "/devices"),
    ] {
        for (client, status) in [(&client, 401), (&client.with_bearer("nonsense"), 401), (&device, 403)] {
            let reply = client.send(method, path, "{}");
            assert_eq!(reply.status, status, "{method} {path}");
            assert!(reply.json()["message"].is_string());
            assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
        }
    }
    assert_eq!(api.users().len(), 1);
    assert_eq!(client.get("/users/current").status, 401);
    assert_eq!(device.get("/users/current").json()["email"], EMAIL);
}

/// The admin's token expires on the server's clock.
#[test]
fn bearer_expires() {
    let (api, client) = start(Options { token_lifetime: Some(Duration::from_mins(1)), ..Options::default() });
    let admin = as_admin(&client);
    assert_eq!(admin.get("/users").status, 200);
    api.shift_clock(60);
    assert_eq!(admin.get("/users").status, 401);
}

/// A new password works at once; a server may lack the route altogether.
#[test]
fn password_patch() {
    for (generation_, done) in [(Generation::G1, 200), (Generation::G2, 204)] {
        let (_api, client) = start(generation(generation_));
        let admin = as_admin(&client);
        let patch = |email: &str, password: &str| {
            let body = json!({"email": email, "password": password}).to_string();
            admin.send("PATCH", "/users/password", &body).outcome()
        };
        assert_eq!(patch(EMAIL, "new-password-2"), (done, None));
        assert_eq!(patch(EMAIL, "short"), (400, Some(32)));
        assert_eq!(patch("nobody@azaion.com", "new-password-2"), (409, Some(10)));
        assert_eq!(log_in(&client, EMAIL, PASSWORD).status, 409);
        assert_eq!(log_in(&client, EMAIL, "new-password-2").status, 200);
    }
    for (delete_route, status, allowed) in [(true, 405, Some("DELETE")), (false, 404, None)] {
        let (_api, client) = start(Options { password_patch: false, delete_route, ..Options::default() });
        let reply = as_admin(&client).send("PATCH", "/users/password", "{}");
        assert_eq!((reply.status, reply.header("allow")), (status, allowed));
        assert!(reply.json()["message"].is_string());
    }
}

/// Users are found by parts of e-mail and role; a role can be set.
#[test]
fn search_and_roles() {
    let (api, client) = start(Options::default());
    let admin = as_admin(&client);
    let found = |query: &str| {
        let users = admin.get(&format!("/users{query}")).json();
        let users = users.as_array().unwrap().iter();
        users.map(|user| user["email"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(""), [ADMIN_EMAIL, EMAIL]);
    assert_eq!(found("?searchEmail=JETSON"), [EMAIL]);
    assert_eq!(found("?searchEmail=admin%40&searchRole=ApiAdmin"), [ADMIN_EMAIL]);
    assert!(found("?searchEmail=jetson&searchRole=ApiAdmin").is_empty());
    let path = format!("/users/{}/set-role/Operator", EMAIL.replace('@', "%40"));
    assert_eq!(admin.send("PUT", &path, "").status, 200);
    assert_eq!(api.user(EMAIL).unwrap().role, "Operator");
    let reply = admin.send("PUT", "/users/nobody@azaion.com/set-role/Operator", "");
    assert_eq!(reply.outcome(), (409, Some(10)));
}

/// A body that is not JSON, or not declared as JSON, is refused without quoting any of it.
#[test]
fn bad_bodies() {
    let (_api, client) = start(Options::default());
    let reply = client.send("POST", "/login", "{\"password\": secret");
    assert_eq!(reply.status, 400);
    assert!(!String::from_utf8(reply.body).unwrap().contains("secret"));
    let other_type = client.text("POST", "/login", "{}", false);
    let other_type = other_type.replace("application/json", "text/plain");
    let mut stream = client.connect().unwrap();
    stream.write_all(other_type.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
}
