//! The forms in which servers of one generation differ, and what a deleted, disabled or logged-out user loses.

use super::*;

const NEW: &str = "new@azaion.com";

fn new_user(role: &Value) -> Value {
    json!({ "email": NEW, "password": "12345678", "role": role })
}

// Promise: a server accepts and returns a role in its own form; a token has the name in any case.
#[test]
fn role_forms() {
    let (name, number) = (json!("CompanionPC"), json!(30));
    for (role_form, taken, refused, given) in [
        (RoleForm::Name, vec![&name], vec![&number], &name),
        (RoleForm::Number, vec![&number], vec![&name], &number),
        (RoleForm::Either, vec![&name, &number], vec![], &name),
    ] {
        let (api, client) = start(Options { role_form, ..Options::default() });
        let admin = as_admin(&client);
        let unknown = json!(31);
        for role in refused.into_iter().chain([&unknown]) {
            assert_eq!(admin.post("/users", &new_user(role)).outcome(), (400, None), "{role_form:?} {role}");
            assert_eq!(api.user(NEW), None);
        }
        for role in taken {
            assert_eq!(admin.post("/users", &new_user(role)).status, 201, "{role_form:?} {role}");
            assert_eq!(api.user(NEW).unwrap().role, "CompanionPC");
            let list = admin.get("/users?searchEmail=new").json();
            assert_eq!(list[0]["role"], *given, "{role_form:?}");
            let token = log_in(&client, NEW, "12345678").json()["token"].clone();
            let token = token.as_str().unwrap();
            assert_eq!(client.with_bearer(token).get("/users/current").json()["role"], *given, "{role_form:?}");
            let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token).unwrap().claims;
            assert_eq!(claims["role"], name);
            api.delete_user(NEW);
        }
        let admins = admin.get("/users?searchRole=ApiAdmin").json();
        assert_eq!(admins[0]["role"].is_u64(), role_form == RoleForm::Number);
    }
}

// Promise: errors have their own casing, also scripted ones.
#[test]
fn error_casing() {
    for casing in [Casing::Camel, Casing::Snake, Casing::Pascal] {
        for error_casing in [Casing::Camel, Casing::Snake, Casing::Pascal] {
            let (api, client) = start(Options { casing, error_casing, ..Options::default() });
            assert!(log_in(&client, EMAIL, PASSWORD).json()[casing.spell("accessToken")].is_string());
            let fields = ["errorCode", "message"].map(|name| error_casing.spell(name));
            api.inject("POST", "/login", Fault::Status { code: 409, error: Some(30), headers: Vec::new() }, 1);
            for _ in 0..2 {
                let error = log_in(&client, EMAIL, "wrong-password").json();
                assert_eq!(error[&fields[0]], 30, "{error}");
                assert!(error[&fields[1]].is_string() && error.as_object().unwrap().len() == 2, "{error}");
            }
        }
    }
}

// Promise: a server without codes in its 400s answers each of these with problem+json only; all other errors keep their
// codes.
#[test]
fn bad_requests_without_codes() {
    let (_api, client) = start(Options { codes_in_400: false, error_casing: Casing::Pascal, ..Options::default() });
    let admin = as_admin(&client);
    let role = json!("CompanionPC");
    for (path, body, is_validation) in [
        ("/users", json!({ "email": NEW, "password": "1234567", "role": role }), true),
        ("/users", json!({ "email": "a@b.com", "password": "12345678", "role": role }), true),
        ("/users", json!({ "email": "not-an-email", "password": "12345678", "role": role }), true),
        ("/users", new_user(&json!(30)), false),
        ("/users", json!({ "email": NEW }), false),
        ("/login", json!([]), false),
        ("/token/refresh", json!({}), false),
    ] {
        let reply = admin.post(path, &body);
        assert_eq!(reply.status, 400, "{body}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json; charset=utf-8"));
        let problem = reply.json();
        for name in ["type", "title", "traceId"] {
            assert!(problem[name].is_string(), "{problem}");
        }
        assert_eq!(problem["status"], 400);
        assert_eq!(problem["errors"].is_object(), is_validation, "{problem}");
    }
    assert_eq!(log_in(&client, EMAIL, "wrong-password").json()["ErrorCode"], 30);
}

// Promise: a deleted user is gone with its sessions and missions, and its e-mail is free again; a server may lack the
// route.
#[test]
fn delete() {
    for (generation_, done) in [(Generation::G1, 200), (Generation::G2, 204), (Generation::G2b, 204)] {
        let (api, client) = start(generation(generation_));
        let admin = as_admin(&client);
        let refresh = log_in(&client, EMAIL, PASSWORD).json()["refreshToken"].clone();
        let (id, mission) = (api.id_of(EMAIL), api.start_mission(EMAIL));
        let delete = |email: &str| admin.send("DELETE", &format!("/users/{email}"), "").outcome();
        assert_eq!(delete("nobody@azaion.com"), (409, Some(10)));
        assert_eq!(delete(&EMAIL.replace('@', "%40")), (done, None));
        assert_eq!(api.user(EMAIL), None);
        assert_eq!(delete(EMAIL), (409, Some(10)));
        assert_ne!(log_in(&client, EMAIL, PASSWORD).status, 200);
        if generation_ != Generation::G1 {
            let reply = client.post("/token/refresh", &json!({ "refreshToken": refresh }));
            assert_eq!(reply.outcome(), (401, Some(52)));
            assert_eq!(admin.post(&format!("/sessions/{mission}/revoke"), &json!({})).outcome(), (404, Some(53)));
        }
        api.add_user(EMAIL, PASSWORD, "CompanionPC");
        assert_ne!(api.id_of(EMAIL), id);
    }
    let (api, client) = start(Options { delete_route: false, ..Options::default() });
    assert_eq!(as_admin(&client).send("DELETE", &format!("/users/{EMAIL}"), "").outcome(), (404, None));
    assert!(api.user(EMAIL).is_some());
}

// Promise: an admin can disable a user and enable it again.
#[test]
fn disable() {
    let (api, client) = start(Options::default());
    let admin = as_admin(&client);
    let put = |email: &str, what: &str| admin.send("PUT", &format!("/users/{email}/{what}"), "").outcome();
    for (what, enabled, outcome) in [("disable", false, (409, Some(38))), ("enable", true, (200, None))] {
        assert_eq!(put(EMAIL, what), (200, None));
        assert_eq!(api.user(EMAIL).unwrap().enabled, enabled);
        assert_eq!(log_in(&client, EMAIL, PASSWORD).outcome(), outcome);
        assert_eq!(put("nobody@azaion.com", what), (409, Some(10)));
    }
}

// Promise: a logout ends the token's session, or all sessions of the user, and no others.
#[test]
fn logout() {
    for (path, ended) in [("/logout", [true, false, false]), ("/logout/all", [true, true, false])] {
        let (api, client) = start(Options::default());
        api.add_user("other@azaion.com", PASSWORD, "CompanionPC");
        let answers = [EMAIL, EMAIL, "other@azaion.com"].map(|email| log_in(&client, email, PASSWORD).json());
        assert_eq!(client.send("POST", path, "").status, 401);
        let device = client.with_bearer(answers[0]["token"].as_str().unwrap());
        assert_eq!(device.send("POST", path, "").status, 204);
        let is_ended = answers.map(|answer| {
            client.post("/token/refresh", &json!({ "refreshToken": answer["refreshToken"] })).status == 401
        });
        assert_eq!(is_ended, ended, "{path}");
        assert_eq!(api.revocations().len(), ended.into_iter().filter(|is| *is).count());
    }
}

// Promise: behind a proxy all clients share the ten logins of a minute.
#[test]
fn limiter_behind_a_proxy() {
    for (limiter, outcome) in [(Limiter::Client, (200, None)), (Limiter::Proxy, (429, Some(51)))] {
        let (_api, client) = start(Options { limits: true, limiter, ..Options::default() });
        let other = client.with_source([127, 0, 0, 2]);
        for _ in 0..10 {
            assert_eq!(log_in(&other, EMAIL, PASSWORD).status, 200);
        }
        assert_eq!(log_in(&client, EMAIL, PASSWORD).outcome(), outcome, "{limiter:?}");
    }
}

// Promise: the health routes report that the server is alive and ready.
#[test]
fn health() {
    for generation_ in [Generation::G1, Generation::G2b] {
        let (_api, client) = start(generation(generation_));
        for path in ["/health/live", "/health/ready"] {
            assert_eq!(client.get(path).status, 200);
        }
    }
}
