//! Logins, refreshes, tokens and limits.

use super::*;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

/// Validates a token as the other verifiers of these tokens do: ES256 only, a listed key, issuer, audience, expiry.
/// `None` if it is invalid.
fn verified(client: &Client, token: &str) -> Option<Value> {
    let keys: JwkSet = serde_json::from_value(client.get("/.well-known/jwks.json").json()).unwrap();
    let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
    let key = DecodingKey::from_jwk(keys.find(&kid)?).unwrap();
    let mut checks = Validation::new(Algorithm::ES256);
    checks.leeway = 30;
    checks.validate_nbf = true;
    checks.set_issuer(&["AzaionApi"]);
    checks.set_audience(&["AzaionDevices"]);
    checks.set_required_spec_claims(&["exp", "iss", "aud"]);
    let token = jsonwebtoken::decode::<Value>(token, &key, &checks).ok()?;
    Some(token.claims)
}

fn token_of(reply: &Reply) -> String {
    reply.json()["token"].as_str().unwrap().to_owned()
}

/// A login answers with the fields of its generation, in the chosen casing.
#[test]
fn login_answers() {
    const LATER: [&str; 5] = ["accessExp", "accessToken", "refreshExp", "refreshToken", "token"];
    for (generation, fields) in
        [(Generation::G1, &["token"] as &[_]), (Generation::G2, &LATER), (Generation::G2b, &LATER)]
    {
        for casing in [Casing::Camel, Casing::Snake, Casing::Pascal] {
            let (_api, client) = start(Options { generation, casing, ..Options::default() });
            let reply = log_in(&client, EMAIL, PASSWORD);
            assert_eq!(reply.status, 200);
            let answer = reply.json();
            let spelled: Vec<String> = fields.iter().map(|field| casing.spell(field)).collect();
            assert!(answer.as_object().unwrap().keys().eq(&spelled), "{answer}");
            if generation != Generation::G1 {
                let field = |name| &answer[casing.spell(name)];
                assert_eq!(field("token"), field("accessToken"));
                assert_eq!(field("refreshToken").as_str().unwrap().len(), 43);
                assert!(field("accessExp").as_str().unwrap().ends_with('Z'));
            }
        }
    }
}

/// A token validates against the published keys, with both claim namings; the key list says how long it may be cached.
#[test]
fn published_keys_verify_tokens() {
    for (claims, email) in [
        (ClaimNames::Short, "unique_name"),
        (ClaimNames::Uri, "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"),
    ] {
        let (_api, client) = start(Options { claims, ..Options::default() });
        let token = token_of(&log_in(&client, EMAIL, PASSWORD));
        let claims = verified(&client, &token).unwrap();
        assert_eq!(claims[email], EMAIL);
        assert_eq!(claims["amr"], json!(["pwd"]));
        assert!(claims["sid"].is_string() && claims["jti"].is_string());
        let keys = client.get("/.well-known/jwks.json");
        assert_eq!(keys.header("cache-control"), Some("public, max-age=3600"));
    }
}

/// G1: HS256 without a key id, a fixed audience, four hours; neither published keys nor refresh.
#[test]
fn g1_tokens() {
    let (_api, client) = start(generation(Generation::G1));
    let token = token_of(&log_in(&client, EMAIL, PASSWORD));
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!((header.alg, header.kid), (Algorithm::HS256, None));
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&token).unwrap().claims;
    assert_eq!(claims["aud"], "Annotators/OrangePi/Admins");
    let time = |name: &str| claims[name].as_i64().unwrap();
    assert_eq!(time("exp") - time("iat"), 4 * 3600);
    assert_eq!(client.get("/.well-known/jwks.json").status, 404);
    assert_eq!(client.post("/token/refresh", &json!({})).status, 404);
}

/// Wrong e-mail, wrong password, disabled account: 409 with their codes, and one opaque 401 in G2b.
#[test]
fn refused_logins() {
    let named = [(409, Some(10)), (409, Some(30)), (409, Some(38))];
    for (generation_, outcomes) in
        [(Generation::G1, named), (Generation::G2, named), (Generation::G2b, [(401, Some(70)); 3])]
    {
        let (api, client) = start(generation(generation_));
        api.add_user("disabled@azaion.com", PASSWORD, "CompanionPC");
        api.disable("disabled@azaion.com", true);
        let attempts = [("nobody@azaion.com", PASSWORD), (EMAIL, "wrong-password"), ("disabled@azaion.com", PASSWORD)];
        let replies = attempts.map(|(email, password)| log_in(&client, email, password));
        assert_eq!(replies.each_ref().map(Reply::outcome), outcomes);
        if generation_ == Generation::G2b {
            let [first, others @ ..] = &replies;
            assert!(others.iter().all(|other| other.body == first.body));
        }
        api.disable("disabled@azaion.com", false);
        assert_eq!(log_in(&client, "disabled@azaion.com", PASSWORD).status, 200);
    }
}

/// An account with a second factor gets the MFA answer, in snake case, and only with the correct password.
#[test]
fn mfa() {
    let (api, client) = start(Options { casing: Casing::Pascal, ..Options::default() });
    api.require_mfa(EMAIL);
    let reply = log_in(&client, EMAIL, PASSWORD);
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    assert_eq!(answer["mfa_required"], true);
    assert_eq!(answer["expires_in"], 300);
    assert!(answer["mfa_token"].is_string());
    assert_eq!(answer.as_object().unwrap().len(), 3);
    assert_eq!(log_in(&client, EMAIL, "wrong-password").status, 409);
}

/// A refresh token works once, only in the casing of the login answer; reuse ends the session.
#[test]
fn refresh() {
    for casing in [Casing::Camel, Casing::Snake, Casing::Pascal] {
        let (_api, client) = start(Options { casing, ..Options::default() });
        let name = casing.spell("refreshToken");
        let token = |reply: &Reply| reply.json()[&name].clone();
        let refresh = |token: &Value| client.post("/token/refresh", &json!({ &name: token }));
        let first = token(&log_in(&client, EMAIL, PASSWORD));
        let reply = client.post("/token/refresh", &json!({ "refreshtoken": first }));
        assert_eq!(reply.status, 400);
        let reply = refresh(&first);
        assert_eq!(reply.status, 200);
        let access = reply.json()[casing.spell("accessToken")].clone();
        assert!(verified(&client, access.as_str().unwrap()).is_some());
        let second = token(&reply);
        assert_ne!(first, second);
        for (token, why) in [(&first, "reused"), (&second, "ended"), (&json!("x"), "unknown")] {
            let reply = refresh(token);
            assert_eq!(reply.outcome(), (401, Some(52)), "{why}");
        }
    }
}

/// A refresh token is invalid after its expiry, or once its user is disabled or deleted.
#[test]
fn refresh_ends() {
    let ends: [fn(&DevApi); 3] =
        [|api| api.shift_clock(8 * 3600), |api| api.disable(EMAIL, true), |api| api.delete_user(EMAIL)];
    for end in ends {
        let (api, client) = start(Options::default());
        let token = log_in(&client, EMAIL, PASSWORD).json()["refreshToken"].clone();
        end(&api);
        let reply = client.post("/token/refresh", &json!({ "refreshToken": token }));
        assert_eq!(reply.outcome(), (401, Some(52)));
    }
}

/// Ten logins a minute per address, for all accounts together: then 429 with 51 (G2b: 401 with 70) and `Retry-After`. A
/// server without limits never answers so.
#[test]
fn login_limit() {
    for (generation, limits, outcome) in [
        (Generation::G2, true, (429, Some(51))),
        (Generation::G2b, true, (401, Some(70))),
        (Generation::G2, false, (200, None)),
    ] {
        let (api, client) = start(Options { generation, limits, ..Options::default() });
        for _ in 0..10 {
            assert_eq!(log_in(&client, EMAIL, PASSWORD).status, 200);
        }
        let reply = log_in(&client, ADMIN_EMAIL, ADMIN_PASSWORD);
        assert_eq!(reply.outcome(), outcome);
        let wait = reply.header("retry-after").map(|wait| wait.parse::<i64>().unwrap());
        assert_eq!(wait.is_some(), limits);
        assert!(wait.is_none_or(|wait| (50..=60).contains(&wait)), "{wait:?}");
        api.shift_clock(60);
        assert_eq!(log_in(&client, ADMIN_EMAIL, ADMIN_PASSWORD).status, 200);
    }
}

/// Five failures limit the account, ten consecutive ones lock it: then even the correct password is refused.
#[test]
fn lock_out() {
    for (generation, wrong, limited, locked) in [
        (Generation::G2, (409, Some(30)), (429, Some(51)), (423, Some(50))),
        (Generation::G2b, (401, Some(70)), (401, Some(70)), (401, Some(70))),
    ] {
        let (api, client) = start(Options { generation, limits: true, ..Options::default() });
        for _ in 0..2 {
            for _ in 0..5 {
                let reply = log_in(&client, EMAIL, "wrong-password");
                assert_eq!(reply.outcome(), wrong);
            }
            if !api.is_locked(EMAIL) {
                let reply = log_in(&client, EMAIL, PASSWORD);
                assert_eq!(reply.outcome(), limited);
                assert!(reply.header("retry-after").is_some());
            }
            api.shift_clock(301);
        }
        assert!(api.is_locked(EMAIL) && !api.is_locked(ADMIN_EMAIL));
        let reply = log_in(&client, EMAIL, PASSWORD);
        assert_eq!(reply.outcome(), locked);
        let wait: i64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((590..=600).contains(&wait), "{wait}");
        api.shift_clock(600);
        assert_eq!(log_in(&client, EMAIL, PASSWORD).status, 200);
        assert!(!api.is_locked(EMAIL));
    }
}

/// After a rotation new tokens validate; old ones only if the old key stays listed.
#[test]
fn key_rotation() {
    for keep in [true, false] {
        let (api, client) = start(Options::default());
        let old = token_of(&log_in(&client, EMAIL, PASSWORD));
        api.rotate_keys(keep);
        let new = token_of(&log_in(&client, EMAIL, PASSWORD));
        assert!(verified(&client, &new).is_some());
        assert_eq!(verified(&client, &old).is_some(), keep);
        let current = client.with_bearer(&old).get("/users/current");
        assert_eq!(current.status == 200, keep);
    }
}

/// Bad tokens that a verifier must reject by signature, key, algorithm, issuer, audience or time.
#[test]
fn bad_tokens_fail_verification() {
    let (api, client) = start(Options::default());
    for bad in [
        BadToken::AlgNone,
        BadToken::KeyConfusionPem,
        BadToken::KeyConfusionPoint,
        BadToken::UnknownKid,
        BadToken::NoKid,
        BadToken::ForeignKey,
        BadToken::TamperedSignature,
        BadToken::TamperedPayload,
        BadToken::WrongIssuer,
        BadToken::WrongAudience,
        BadToken::Expired(31),
        BadToken::FromFuture(60),
        BadToken::NoExp,
        BadToken::NotAJwt,
        BadToken::TwoParts,
        BadToken::Empty,
        BadToken::OtherAlgorithm,
        BadToken::Hs256,
    ] {
        api.inject("POST", "/login", Fault::Token(bad.clone()), 1);
        let reply = log_in(&client, EMAIL, PASSWORD);
        assert_eq!(reply.status, 200, "{bad:?}");
        let answer = reply.json();
        assert_eq!(answer["token"], answer["accessToken"], "{bad:?}");
        let token = token_of(&reply);
        assert!(verified(&client, &token).is_none(), "{bad:?}");
        let current = client.with_bearer(&token).get("/users/current");
        // The server's clock is exact, so it rejects everything that a verifier rejects.
        assert_eq!(current.status, 401, "{bad:?}");
    }
}

/// Bad tokens with a valid signature: their claims about the user are wrong.
#[test]
fn bad_tokens_with_wrong_claims() {
    let (api, client) = start(Options::default());
    let roles = vec!["CompanionPC".to_owned(), "Admin".to_owned()];
    for (bad, claim, value) in [
        (BadToken::WrongRole("Operator".to_owned()), "role", json!("Operator")),
        (BadToken::NoRole, "role", Value::Null),
        (BadToken::RolesArray(roles.clone()), "role", json!(roles)),
        (BadToken::WrongEmail("x@azaion.com".to_owned()), "unique_name", json!("x@azaion.com")),
        (BadToken::NoEmail, "unique_name", Value::Null),
    ] {
        api.inject("POST", "/login", Fault::Token(bad.clone()), 1);
        let token = token_of(&log_in(&client, EMAIL, PASSWORD));
        let claims = verified(&client, &token).unwrap();
        assert_eq!(claims[claim], value, "{bad:?}");
    }
}

/// A token field that is not a string or is missing; the next login is valid again. A refresh can be affected too.
#[test]
fn bad_token_fields() {
    let (api, client) = start(Options::default());
    api.inject("POST", "/login", Fault::Token(BadToken::NumberInsteadOfString), 1);
    api.inject("POST", "/login", Fault::Token(BadToken::Missing), 1);
    api.inject("POST", "/token/refresh", Fault::Token(BadToken::Empty), 1);
    assert!(log_in(&client, EMAIL, PASSWORD).json()["token"].is_number());
    let answer = log_in(&client, EMAIL, PASSWORD).json();
    assert!(answer.get("token").is_none() && answer.get("accessToken").is_none());
    let answer = log_in(&client, EMAIL, PASSWORD).json();
    assert!(verified(&client, answer["token"].as_str().unwrap()).is_some());
    let refresh = json!({ "refreshToken": answer["refreshToken"] });
    assert_eq!(client.post("/token/refresh", &refresh).json()["accessToken"], "");
}

/// Every bad token can be created in G1 too, where there is no ES256 to be wrong about.
#[test]
fn bad_tokens_of_g1() {
    let (api, client) = start(generation(Generation::G1));
    for (bad, passes) in [
        (BadToken::AlgNone, false),
        (BadToken::KeyConfusionPem, false),
        (BadToken::ForeignKey, false),
        (BadToken::TamperedSignature, false),
        (BadToken::OtherAlgorithm, false),
        (BadToken::Hs256, true),
    ] {
        api.inject("POST", "/login", Fault::Token(bad.clone()), 1);
        let token = token_of(&log_in(&client, EMAIL, PASSWORD));
        let current = client.with_bearer(&token).get("/users/current");
        assert_eq!(current.status == 200, passes, "{bad:?}");
    }
}
