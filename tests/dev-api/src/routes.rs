//! Handles a request: finds the route, authenticates the caller, and parses body and query.
//!
//! Handlers are plain blocking code, because both Argon2 and the database block; the server runs them on blocking
//! threads.

use super::answers::{Answer, Problem};
use super::state::{State, lock};
use super::tokens::{self, Caller};
use super::{BadToken, Options, devices, hardware, login, missions, users};
use bytes::Bytes;
use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// The role that may manage users.
pub(super) const ADMIN_ROLE: &str = "ApiAdmin";
/// The role of devices.
pub(super) const DEVICE_ROLE: &str = "CompanionPC";

/// A request that has arrived completely.
pub(super) struct Call {
    pub(super) method: String,
    /// Without the server's prefix, percent-decoded.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) peer: IpAddr,
    pub(super) content_type: Option<String>,
    pub(super) authorization: Option<String>,
    /// Whether it has `Cache-Control: no-cache`.
    pub(super) is_no_cache: bool,
    pub(super) body: Bytes,
}

/// Why a handler stops early.
pub(super) enum Stop {
    /// With this answer.
    Answer(Answer),
    /// An internal error of this server, answered with 500.
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

/// The result of a handler.
pub(super) type Handled = Result<Answer, Stop>;

/// Handles a request; a successful login or refresh answers with the bad token, if given.
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
    let segments: Vec<&str> = call.path.split('/').skip(1).collect();
    let Some(route) = find(&state.options, &call.method, &segments) else {
        return Ok(no_route(state, &segments));
    };
    if route.is_for_admins() {
        admin(state, call)?;
    }
    match route {
        Route::Live | Route::Ready => Ok(Answer::empty(StatusCode::OK)),
        Route::Login => login::login(state, call, bad_token),
        Route::Refresh => login::refresh(state, call, bad_token),
        Route::Logout(which) => login::logout(state, call, which),
        Route::Keys => Ok(jwks(state, call)),
        Route::BeginMission => missions::begin(state, call),
        Route::RevokedSessions => missions::revoked(state, call),
        Route::RevokeSession(sid) => missions::revoke(state, sid),
        Route::CurrentUser => users::current(state, call),
        Route::ListUsers => users::list(state, call),
        Route::CreateUser => users::create(state, call),
        Route::DeleteUser(email) => users::delete(state, email),
        Route::SetPassword => users::set_password(state, call),
        Route::SetRole(email, role) => users::set_role(state, email, role),
        Route::SetEnabled(email, on) => users::set_enabled(state, email, on),
        Route::AddDevice => devices::add(state),
        Route::SetHardware => hardware::set(state, call),
        Route::CheckHardware => hardware::check(state, call),
        Route::GetResource => hardware::get(state, call),
    }
}

/// What a request asks for.
enum Route<'a> {
    Live,
    Ready,
    Login,
    Refresh,
    Logout(login::Sessions),
    Keys,
    BeginMission,
    RevokedSessions,
    RevokeSession(&'a str),
    CurrentUser,
    ListUsers,
    CreateUser,
    DeleteUser(&'a str),
    SetPassword,
    /// Of this e-mail, to this role.
    SetRole(&'a str, &'a str),
    /// Of this e-mail; `false` disables.
    SetEnabled(&'a str, bool),
    AddDevice,
    SetHardware,
    CheckHardware,
    GetResource,
}

impl Route<'_> {
    fn is_for_admins(&self) -> bool {
        matches!(
            self,
            Self::RevokeSession(_)
                | Self::ListUsers
                | Self::CreateUser
                | Self::DeleteUser(_)
                | Self::SetPassword
                | Self::SetRole(..)
                | Self::SetEnabled(..)
                | Self::AddDevice
                | Self::SetHardware
        )
    }
}

/// Returns the route of this method and path, if this server has it.
fn find<'a>(options: &Options, method: &str, segments: &[&'a str]) -> Option<Route<'a>> {
    let (g1, later) = (!options.has_sessions(), options.has_sessions());
    Some(match (method, segments) {
        ("GET", ["health", "live"]) => Route::Live,
        ("GET", ["health", "ready"]) => Route::Ready,
        ("POST", ["login"]) => Route::Login,
        ("POST", ["token", "refresh"]) if later => Route::Refresh,
        ("POST", ["logout"]) if later => Route::Logout(login::Sessions::This),
        ("POST", ["logout", "all"]) if later => Route::Logout(login::Sessions::All),
        ("GET", [".well-known", "jwks.json"]) if later => Route::Keys,
        ("POST", ["sessions", "mission"]) if later => Route::BeginMission,
        ("GET", ["sessions", "revoked"]) if later => Route::RevokedSessions,
        ("POST", ["sessions", sid, "revoke"]) if later => Route::RevokeSession(sid),
        ("GET", ["users", "current"]) => Route::CurrentUser,
        ("GET", ["users"]) => Route::ListUsers,
        ("POST", ["users"]) => Route::CreateUser,
        ("PATCH", ["users", "password"]) if options.password_patch => Route::SetPassword,
        ("PUT", ["users", "hardware", "set"]) if g1 => Route::SetHardware,
        ("PUT", ["users", email, "set-role", role]) => Route::SetRole(email, role),
        ("PUT", ["users", email, "enable"]) => Route::SetEnabled(email, true),
        ("PUT", ["users", email, "disable"]) => Route::SetEnabled(email, false),
        // Fixed paths come before those with a parameter.
        (_, ["users", "current"]) => return None,
        (_, ["users", "password"]) if options.password_patch => return None,
        ("DELETE", ["users", email]) if options.delete_route => Route::DeleteUser(email),
        ("POST", ["devices"]) if later => Route::AddDevice,
        ("POST", ["resources", "check"]) if g1 => Route::CheckHardware,
        ("POST", ["resources", "get"] | ["resources", "get", _]) if g1 => Route::GetResource,
        _ => return None,
    })
}

/// Returns 405 if the path has other methods, else 404.
fn no_route(state: &State, segments: &[&str]) -> Answer {
    const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let is_there = |method: &&str| find(&state.options, method, segments).is_some();
    let methods: Vec<&str> = METHODS.into_iter().filter(is_there).collect();
    if methods.is_empty() {
        return failure(state, StatusCode::NOT_FOUND, "No such route.");
    }
    failure(state, StatusCode::METHOD_NOT_ALLOWED, "No such method here.").with("allow", &methods.join(", "))
}

/// Builds an error without a code.
pub(super) fn failure(state: &State, status: StatusCode, message: &str) -> Answer {
    Answer::failure(&state.options, status, message)
}

/// Builds an error with its code.
pub(super) fn refusal(state: &State, problem: &Problem) -> Answer {
    Answer::problem(&state.options, problem)
}

/// Parses a JSON body as ASP.NET does: 415 without the content type, 400 if it can't be parsed.
pub(super) fn body<T: DeserializeOwned>(state: &State, call: &Call) -> Result<T, Stop> {
    let content_type = call.content_type.as_deref().unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(failure(state, status, "The body should be JSON.").into());
    }
    // Objects only: serde would accept an array of the fields as well.
    let fields = serde_json::from_slice::<Map<String, Value>>(&call.body);
    fields.and_then(|fields| T::deserialize(Value::Object(fields))).map_err(|_| {
        // The answer omits the reason, which could quote a password.
        failure(state, StatusCode::BAD_REQUEST, "The body can't be read.").into()
    })
}

/// Returns the caller; 401 without a valid bearer token.
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

/// Returns 403 for any caller but an admin.
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

/// Returns a parameter of the query.
pub(super) fn parameter(call: &Call, name: &str) -> Option<String> {
    form_urlencoded::parse(call.query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Returns a path as the routes match it: without the prefix, percent-decoded. A path outside the prefix gets a leading
/// `!`, so that it matches no route and is recognisable in the records.
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

    /// Only paths under the prefix are routes, and an e-mail may be percent-encoded.
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
