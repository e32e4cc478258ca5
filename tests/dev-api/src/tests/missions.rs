//! Mission sessions, and the cache before the list of keys.

use super::*;

const REVOKED: &str = "/sessions/revoked";
const HOUR: i64 = 3600;

/// Returns the revocations as a verifier sees them: session and reason.
fn revoked(client: &Client, query: &str) -> Vec<(String, String)> {
    let reply = client.get(&format!("{REVOKED}{query}"));
    assert_eq!(reply.status, 200);
    let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    reply.json().as_array().unwrap().iter().map(|one| (text(one, "sid"), text(one, "reason"))).collect()
}

/// Begins a mission session by its route and returns its id.
fn begin(api: &DevApi, admin: &Client) -> String {
    let reply = admin.post("/sessions/mission", &json!({ "aircraft_id": api.id_of(EMAIL) }));
    assert_eq!(reply.status, 200);
    reply.json()["sid"].as_str().unwrap().to_owned()
}

// Promise: a mission session names the aircraft, lives 12 h, gives access to no route of this server and can't be
// refreshed.
#[test]
fn a_mission_session() {
    let (api, client) = start(Options::default());
    let admin = as_admin(&client);
    let aircraft = api.id_of(EMAIL);
    let reply = admin.post("/sessions/mission", &json!({ "aircraft_id": aircraft }));
    let answer = reply.json();
    assert!(answer.as_object().unwrap().keys().eq(["expiresAt", "sid", "token"]), "{answer}");
    let token = answer["token"].as_str().unwrap();
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token).unwrap().claims;
    assert_eq!((&claims["aircraft_id"], &claims["sid"]), (&json!(aircraft), &answer["sid"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 12 * HOUR);
    assert_eq!(client.with_bearer(token).get("/users/current").status, 401);
    assert_eq!(api.open_missions(EMAIL), [answer["sid"].as_str().unwrap()]);
    api.shift_clock(12 * HOUR);
    assert!(api.open_missions(EMAIL).is_empty() && api.revocations().is_empty());
}

// Promise: a person can begin one for a device; not in G1.
#[test]
fn who_may_begin_one() {
    let (api, client) = start(Options::default());
    api.add_user("pilot@azaion.com", PASSWORD, "Operator");
    let bearer = |email| client.with_bearer(log_in(&client, email, PASSWORD).json()["token"].as_str().unwrap());
    let (pilot, device) = (bearer("pilot@azaion.com"), bearer(EMAIL));
    let for_whom = |id: &str| json!({ "aircraft_id": id });
    let (aircraft, person) = (api.id_of(EMAIL), api.id_of("pilot@azaion.com"));
    let outcome = |client: &Client, id: &str| client.post("/sessions/mission", &for_whom(id)).outcome();
    assert_eq!(outcome(&pilot, &aircraft), (200, None));
    assert_eq!(outcome(&device, &aircraft), (403, None));
    assert_eq!(outcome(&client, &aircraft), (401, None));
    assert_eq!(outcome(&pilot, &person), (404, Some(53)));
    assert_eq!(outcome(&pilot, "nobody"), (404, Some(53)));
    assert_eq!(pilot.post("/sessions/mission", &json!({ "aircraftId": aircraft })).status, 400);
    let (_api, client) = start(generation(Generation::G1));
    assert_eq!(client.post("/sessions/mission", &for_whom(&aircraft)).status, 404);
    assert_eq!(client.get(REVOKED).status, 404);
}

// Promise: a successful login or refresh of a device ends its open mission sessions, but not those of other devices and
// no other sessions.
#[test]
fn a_login_ends_them() {
    for generation_ in [Generation::G2, Generation::G2b] {
        let (api, client) = start(generation(generation_));
        let admin = as_admin(&client);
        api.add_user("other@azaion.com", PASSWORD, "CompanionPC");
        let other = api.start_mission("other@azaion.com");
        let first = begin(&api, &admin);
        assert_ne!(log_in(&client, EMAIL, "wrong-password").status, 200);
        as_admin(&client);
        assert_eq!(api.open_missions(EMAIL), std::slice::from_ref(&first));
        let refresh = log_in(&client, EMAIL, PASSWORD).json()["refreshToken"].clone();
        assert!(api.open_missions(EMAIL).is_empty());
        let second = begin(&api, &admin);
        assert_eq!(client.post("/token/refresh", &json!({ "refreshToken": refresh })).status, 200);
        let ended = [first, second].map(|sid| (sid, POST_FLIGHT_RECONNECT.to_owned()));
        assert_eq!(revoked(&admin, ""), ended);
        assert_eq!(api.open_missions("other@azaion.com"), [other]);
    }
}

// Promise: an admin ends a session by its id, once; verifiers see the sessions revoked since a time, but only with a
// token.
#[test]
fn sessions_are_revoked_by_hand() {
    let (api, client) = start(Options::default());
    let admin = as_admin(&client);
    let (first, second) = (begin(&api, &admin), begin(&api, &admin));
    let revoke = |client: &Client, sid: &str| client.post(&format!("/sessions/{sid}/revoke"), &json!({})).outcome();
    assert_eq!(revoke(&client, &first), (401, None));
    assert_eq!(revoke(&admin, "nothing"), (404, Some(53)));
    for _ in 0..2 {
        assert_eq!(revoke(&admin, &first), (204, None));
    }
    api.shift_clock(10);
    let time = utc(api.state.now());
    assert_eq!(revoke(&admin, &second), (204, None));
    let by_hand = |sid: &str| (sid.to_owned(), "admin_revoked".to_owned());
    assert_eq!(revoked(&admin, ""), [by_hand(&first), by_hand(&second)]);
    assert_eq!(revoked(&admin, &format!("?since={time}")), [by_hand(&second)]);
    assert_eq!(admin.get(&format!("{REVOKED}?since=yesterday")).status, 400);
    assert_eq!(client.get(REVOKED).status, 401);
    // A login's session ends with its refresh token.
    let answer = log_in(&client, EMAIL, PASSWORD).json();
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(answer["token"].as_str().unwrap()).unwrap().claims;
    assert_eq!(revoke(&admin, claims["sid"].as_str().unwrap()), (204, None));
    assert_eq!(client.post("/token/refresh", &json!({ "refreshToken": answer["refreshToken"] })).status, 401);
}

// Promise: ids of users are GUIDs (version 4, lower case), as those of .NET are.
#[test]
fn ids_are_guids() {
    let (api, _client) = start(Options::default());
    let id = api.id_of(EMAIL);
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert!(id.chars().all(|c| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c)), "{id}");
    assert_eq!((&id[14..15], "89ab".contains(&id[19..20])), ("4", true), "{id}");
}

// Promise: a cache before the list of keys keeps it for an hour, unless a request asks for a new one.
#[test]
fn a_cache_before_the_keys() {
    const KEYS: &str = "/.well-known/jwks.json";
    let (api, client) = start(Options { keys_cache: Some(Duration::from_hours(1)), ..Options::default() });
    let keys = |client: &Client| String::from_utf8(client.get(KEYS).body).unwrap();
    let first = keys(&client);
    api.rotate_keys(false);
    api.shift_clock(HOUR - 60);
    let reply = client.get(KEYS);
    assert_eq!(String::from_utf8(reply.body.clone()).unwrap(), first);
    assert!(reply.header("age").unwrap().parse::<i64>().unwrap() >= HOUR - 60);
    let second = keys(&client.with_header("cache-control: no-cache"));
    assert!(second != first && second == api.key_list());
    assert_eq!(keys(&client), second);
    api.rotate_keys(false);
    assert_eq!(keys(&client), second);
    api.shift_clock(HOUR);
    assert_eq!(keys(&client), api.key_list());
    let asked: Vec<bool> = api.requests().iter().map(|request| request.is_no_cache).collect();
    assert_eq!(asked, [false, false, true, false, false, false]);
}
