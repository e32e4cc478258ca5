//! From a request to its answer: which route, who asks, and what the routes on users do.
//!
//! Handlers are plain blocking code, for both Argon2 and the database block; the server runs them on
//! threads made for that.

use super::answers::{self, Answer, Problem, object};
use super::hashing::random_hex;
use super::state::{State, lock};
use super::store::Account;
use super::tokens::{self, Caller};
use super::{BadToken, Generation, login, missions};
use bytes::Bytes;
use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// The role that may manage users.
pub(super) const ADMIN_ROLE: &str = "ApiAdmin";
/// E-mails and passwords have at least so many characters.
const SHORTEST: usize = 8;

/// A request that has come in completely.
pub(super) struct Call {
    pub(super) method: String,
    /// Without the server's prefix, percent-decoded.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) peer: IpAddr,
    pub(super) content_type: Option<String>,
    pub(super) authorization: Option<String>,
    /// Whether it says `Cache-Control: no-cache`.
    pub(super) is_no_cache: bool,
    pub(super) body: Bytes,
}

/// Why a handler stops early.
pub(super) enum Stop {
    /// With this answer.
    Answer(Answer),
    /// A fault of this server, answered with 500.
    Fault(anyhow::Error),
}

impl From<Answer> for Stop {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Fault(error)
    }
}

/// What a handler gives.
pub(super) type Handled = Result<Answer, Stop>;

/// Handles a request; a login or refresh that succeeds answers with the bad token, if given.
pub(super) fn handle(state: &State, call: &Call, bad_token: Option<&BadToken>) -> Answer {
    match dispatch(state, call, bad_token) {
        Ok(answer) | Err(Stop::Answer(answer)) => answer,
        Err(Stop::Fault(error)) => {
            eprintln!("dev-api: {} {}: {error:#}", call.method, call.path);
            failure(state, StatusCode::INTERNAL_SERVER_ERROR, "Internal error.")
        }
    }
}

fn dispatch(state: &State, call: &Call, bad_token: Option<&BadToken>) -> Handled {
    let options = &state.options;
    let later = options.has_sessions();
    let segments: Vec<&str> = call.path.split('/').skip(1).collect();
    match (call.method.as_str(), segments.as_slice()) {
        ("POST", ["login"]) => login::login(state, call, bad_token),
        ("POST", ["token", "refresh"]) if later => login::refresh(state, call, bad_token),
        ("GET", [".well-known", "jwks.json"]) if later => Ok(jwks(state, call)),
        ("POST", ["sessions", "mission"]) if later => missions::begin(state, call),
        ("GET", ["sessions", "revoked"]) if later => missions::revoked(state, call),
        ("POST", ["sessions", sid, "revoke"]) if later => {
            admin(state, call).and_then(|()| missions::revoke(state, sid))
        }
        ("GET", ["users", "current"]) => current_user(state, call),
        ("GET", ["users"]) => admin(state, call).and_then(|()| list_users(state, call)),
        ("POST", ["users"]) => admin(state, call).and_then(|()| create_user(state, call)),
        ("PATCH", ["users", "password"]) if options.password_patch => {
            admin(state, call).and_then(|()| set_password(state, call))
        }
        ("PUT", ["users", email, "set-role", role]) => admin(state, call).and_then(|()| set_role(state, email, role)),
        ("POST", ["devices"]) if later => admin(state, call).and_then(|()| add_device(state)),
        (_, path) => Ok(match methods(state, path) {
            Some(methods) => {
                failure(state, StatusCode::METHOD_NOT_ALLOWED, "No such method here.").with("allow", methods)
            }
            None => failure(state, StatusCode::NOT_FOUND, "No such route."),
        }),
    }
}

/// The methods that a path has.
fn methods(state: &State, path: &[&str]) -> Option<&'static str> {
    let later = state.options.has_sessions();
    match path {
        ["login"] => Some("POST"),
        ["token", "refresh"] | ["devices"] | ["sessions", "mission"] | ["sessions", _, "revoke"] if later => {
            Some("POST")
        }
        [".well-known", "jwks.json"] | ["sessions", "revoked"] if later => Some("GET"),
        ["users", "current"] => Some("GET"),
        ["users"] => Some("GET, POST"),
        ["users", "password"] if state.options.password_patch => Some("PATCH"),
        ["users", _, "set-role", _] => Some("PUT"),
        _ => None,
    }
}

/// An error without a code of its own.
pub(super) fn failure(state: &State, status: StatusCode, message: &str) -> Answer {
    Answer::error(state.options.casing, status, None, message)
}

pub(super) fn refusal(state: &State, problem: &Problem) -> Answer {
    Answer::problem(state.options.casing, problem)
}

/// Reads a JSON body as ASP.NET does: 415 without the content type, 400 if it can't be read.
pub(super) fn body<T: DeserializeOwned>(state: &State, call: &Call) -> Result<T, Stop> {
    let content_type = call.content_type.as_deref().unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(failure(state, status, "The body should be JSON.").into());
    }
    // An object alone: serde would take the fields of one from an array, too.
    let fields = serde_json::from_slice::<Map<String, Value>>(&call.body);
    fields.and_then(|fields| T::deserialize(Value::Object(fields))).map_err(|_| {
        // The reason stays out of the answer: it could quote a password.
        failure(state, StatusCode::BAD_REQUEST, "The body can't be read.").into()
    })
}

/// Who asks; 401 without a good bearer token.
pub(super) fn caller(state: &State, call: &Call) -> Result<Caller, Stop> {
    let now = state.now().div_euclid(1000);
    let token = call.authorization.as_deref().and_then(|header| {
        let (scheme, token) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    token.and_then(|token| tokens::verify(&state.options, &lock(&state.keys), token, now)).ok_or_else(|| {
        failure(state, StatusCode::UNAUTHORIZED, "A bearer token is needed.").with("www-authenticate", "Bearer").into()
    })
}

/// 403 for any caller but an admin.
fn admin(state: &State, call: &Call) -> Result<(), Stop> {
    if caller(state, call)?.role == ADMIN_ROLE {
        Ok(())
    } else {
        Err(failure(state, StatusCode::FORBIDDEN, "Only an admin may do this.").into())
    }
}

fn jwks(state: &State, call: &Call) -> Answer {
    let now = state.now();
    let mut cache = lock(&state.cached_keys);
    let kept = state.options.keys_cache.filter(|_| !call.is_no_cache).unwrap_or_default();
    let is_kept = |at: i64| u128::try_from(now - at).is_ok_and(|age| age < kept.as_millis());
    let (at, set) = cache.take().filter(|(at, _)| is_kept(*at)).unwrap_or_else(|| (now, lock(&state.keys).jwks()));
    let answer = Answer::json(StatusCode::OK, &set)
        .with("cache-control", "public, max-age=3600")
        .with("age", &((now - at) / 1000).to_string());
    *cache = Some((at, set));
    answer
}

/// A parameter of the query.
pub(super) fn parameter(call: &Call, name: &str) -> Option<String> {
    form_urlencoded::parse(call.query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn described(state: &State, account: &Account) -> Value {
    object(
        state.options.casing,
        [
            ("id", account.id.as_str().into()),
            ("email", account.email.as_str().into()),
            ("role", account.role.as_str().into()),
            ("isEnabled", account.enabled.into()),
        ],
    )
}

fn current_user(state: &State, call: &Call) -> Handled {
    let caller = caller(state, call)?;
    match state.store.account(&caller.email)? {
        Some(account) => Ok(Answer::json(StatusCode::OK, &described(state, &account))),
        None => Err(failure(state, StatusCode::UNAUTHORIZED, "The user is gone.").into()),
    }
}

fn list_users(state: &State, call: &Call) -> Handled {
    let parameter = |name: &str| parameter(call, name).unwrap_or_default();
    let accounts = state.store.accounts(&parameter("searchEmail"), &parameter("searchRole"))?;
    let list: Vec<Value> = accounts.iter().map(|a| described(state, a)).collect();
    Ok(Answer::json(StatusCode::OK, &list.into()))
}

#[derive(serde::Deserialize)]
struct NewUser {
    email: String,
    password: String,
    role: String,
}

fn create_user(state: &State, call: &Call) -> Handled {
    let user: NewUser = body(state, call)?;
    check_email(state, &user.email)?;
    check_password(state, &user.password)?;
    check_role(state, &user.role)?;
    let hash = state.options.hashing.hash(&user.password)?;
    if !state.store.add(&user.email, &hash, &user.role)? {
        return Err(refusal(state, &answers::EMAIL_EXISTS).into());
    }
    // Clients must take both.
    Ok(Answer::empty(match state.options.generation {
        Generation::G1 => StatusCode::OK,
        Generation::G2 | Generation::G2b => StatusCode::CREATED,
    }))
}

#[derive(serde::Deserialize)]
struct NewPassword {
    email: String,
    password: String,
}

fn set_password(state: &State, call: &Call) -> Handled {
    let user: NewPassword = body(state, call)?;
    check_password(state, &user.password)?;
    let hash = state.options.hashing.hash(&user.password)?;
    if !state.store.set_hash(&user.email, &hash)? {
        return Err(refusal(state, &answers::NO_SUCH_EMAIL).into());
    }
    // Clients must take both.
    Ok(Answer::empty(match state.options.generation {
        Generation::G1 => StatusCode::OK,
        Generation::G2 | Generation::G2b => StatusCode::NO_CONTENT,
    }))
}

fn set_role(state: &State, email: &str, role: &str) -> Handled {
    check_role(state, role)?;
    if state.store.set_role(email, role)? {
        Ok(Answer::empty(StatusCode::OK))
    } else {
        Err(refusal(state, &answers::NO_SUCH_EMAIL).into())
    }
}

fn add_device(state: &State) -> Handled {
    let password = random_hex::<16>()?;
    let hash = state.options.hashing.hash(&password)?;
    let (serial, email) = state.store.add_device(&hash)?;
    let fields = [("serial", serial.into()), ("email", email.into()), ("password", password.into())];
    Ok(Answer::json(StatusCode::CREATED, &object(state.options.casing, fields)))
}

fn check_email(state: &State, email: &str) -> Result<(), Stop> {
    if email.chars().count() < SHORTEST {
        return Err(refusal(state, &answers::EMAIL_LENGTH).into());
    }
    match email.split_once('@') {
        Some((name, domain)) if !name.is_empty() && !domain.is_empty() => Ok(()),
        _ => Err(refusal(state, &answers::WRONG_EMAIL).into()),
    }
}

fn check_password(state: &State, password: &str) -> Result<(), Stop> {
    if password.chars().count() < SHORTEST {
        return Err(refusal(state, &answers::PASSWORD_LENGTH).into());
    }
    Ok(())
}

/// Any word will do, for not all roles of the real server are known.
fn check_role(state: &State, role: &str) -> Result<(), Stop> {
    if role.is_empty() || !role.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(failure(state, StatusCode::BAD_REQUEST, "No such role.").into());
    }
    Ok(())
}

/// A path as the routes see it: without the prefix, percent-decoded. One outside the prefix is
/// marked with `!`, so that it is no route and is not mistaken for one in the records.
pub(super) fn route_path(prefix: &str, path: &str) -> String {
    let decode = |path: &str| percent_decode_str(path).decode_utf8_lossy().into_owned();
    match path.strip_prefix(prefix) {
        Some(inside) if inside.starts_with('/') => decode(inside),
        _ => format!("!{}", decode(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what lies under the prefix is a route, and an e-mail may come percent-encoded.
    #[test]
    fn paths() {
        for (prefix, path, route) in [
            ("", "/login", "/login"),
            ("/admin", "/admin/login", "/login"),
            ("/admin", "/login", "!/login"),
            ("/admin", "/administrator", "!/administrator"),
            ("", "/users/a%40b.com/set-role/X", "/users/a@b.com/set-role/X"),
        ] {
            assert_eq!(route_path(prefix, path), route);
        }
    }
}
