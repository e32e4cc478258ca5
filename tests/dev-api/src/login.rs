//! `POST /login` and `POST /token/refresh`.

use super::answers::{self, Answer, Problem, object};
use super::hashing::{random_hex, verify};
use super::limits::Refusal;
use super::missions::{LOGGED_OUT, end_by_login};
use super::routes::{Call, Handled, Stop, body, caller, failure, refusal};
use super::state::{State, lock, utc};
use super::store::{Account, Session};
use super::tokens::Mint;
use super::{BadToken, Limiter};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::net::Ipv4Addr;

#[derive(serde::Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

pub(super) fn login(state: &State, call: &Call, bad_token: Option<&BadToken>) -> Handled {
    let credentials: Credentials = body(state, call)?;
    let now = state.now();
    limit(state, call, &credentials.email, now)?;
    let account = authenticate(state, &credentials, now)?;
    if !state.options.has_sessions() {
        return logged_in(state, &account, None, bad_token, now);
    }
    if account.mfa {
        return Ok(mfa_required()?);
    }
    let session = state.store.begin_session(&account.id, now)?;
    logged_in(state, &account, Some(&session), bad_token, now)
}

/// Counts the attempt and rejects it if there were too many.
fn limit(state: &State, call: &Call, email: &str, now: i64) -> Result<(), Stop> {
    if !state.options.limits {
        return Ok(());
    }
    let address = match state.options.limiter {
        Limiter::Client => call.peer,
        Limiter::Proxy => Ipv4Addr::LOCALHOST.into(),
    };
    let outcome = lock(&state.limits).attempt(address, email, now);
    outcome.map_err(|refusal| match refusal {
        Refusal::Limited(seconds) => refused(state, &answers::LIMITED, Some(seconds)),
        Refusal::Locked(seconds) => refused(state, &answers::LOCKED, Some(seconds)),
    })
}

fn refused(state: &State, problem: &Problem, retry_after: Option<i64>) -> Stop {
    Answer::refused_login(&state.options, problem, retry_after).into()
}

/// Returns the account of these credentials. Failures are counted, unless limits are off.
fn authenticate(state: &State, credentials: &Credentials, now: i64) -> Result<Account, Stop> {
    let account = state.store.account(&credentials.email)?;
    let hash = account.as_ref().map_or(&state.decoy_hash, |a| &a.hash);
    let matches = verify(&credentials.password, hash);
    let problem = match account {
        None => &answers::NO_SUCH_EMAIL,
        Some(_) if !matches => &answers::WRONG_PASSWORD,
        // The password was correct, so this failure does not count as guessing.
        Some(account) if !account.enabled => return Err(refused(state, &answers::DISABLED, None)),
        Some(account) => {
            if state.options.limits {
                lock(&state.limits).succeeded(&credentials.email);
            }
            return Ok(account);
        }
    };
    if state.options.limits {
        lock(&state.limits).failed(&credentials.email, now);
    }
    Err(refused(state, problem, None))
}

/// The answer for an account with a second factor, in snake case whatever the server's casing.
fn mfa_required() -> anyhow::Result<Answer> {
    const SECONDS: u32 = 300;
    let body = json!({
        "mfa_required": true,
        "mfa_token": random_hex::<16>()?,
        "expires_in": SECONDS,
    });
    Ok(Answer::json(StatusCode::OK, &body))
}

pub(super) fn refresh(state: &State, call: &Call, bad_token: Option<&BadToken>) -> Handled {
    let fields: Map<String, Value> = body(state, call)?;
    // Only in the casing of the login answer: a client that uses another one would fail against one of the real
    // servers.
    let name = state.options.casing.spell("refreshToken");
    let Some(token) = fields.get(&name).and_then(Value::as_str) else {
        return Err(failure(state, StatusCode::BAD_REQUEST, "The refresh token is missing.").into());
    };
    let now = state.now();
    match state.store.refresh(token, now)? {
        Some((account, session)) => logged_in(state, &account, Some(&session), bad_token, now),
        None => Err(refusal(state, &answers::INVALID_REFRESH).into()),
    }
}

/// The sessions of the caller that a logout ends.
pub(super) enum Sessions {
    /// The one of the token.
    This,
    /// All of them.
    All,
}

/// `POST /logout` and `POST /logout/all`: refresh tokens end, access tokens stay valid.
pub(super) fn logout(state: &State, call: &Call, which: Sessions) -> Handled {
    let caller = caller(state, call)?;
    match (which, caller.sid) {
        (Sessions::This, Some(sid)) => state.store.end_session(&sid, state.now(), LOGGED_OUT).map(drop)?,
        (Sessions::This, None) => {}
        (Sessions::All, _) => state.store.end_sessions_of(&caller.email, state.now(), LOGGED_OUT)?,
    }
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// Builds the answer to a successful login or refresh.
fn logged_in(
    state: &State,
    account: &Account,
    session: Option<&Session>,
    bad_token: Option<&BadToken>,
    now: i64,
) -> Handled {
    let keys = lock(&state.keys);
    let mint = Mint { options: &state.options, keys: &keys, now: now.div_euclid(1000) };
    let claims = mint.claims(account, session.map(|session| session.sid.as_str()))?;
    let token = match bad_token {
        Some(bad) => bad.forge(&mint, claims)?,
        None => Some(mint.sign(&claims)?.into()),
    };
    let mut fields: Vec<(&str, Value)> = Vec::new();
    if let Some(session) = session {
        end_by_login(state, account, now)?;
        let expires = mint.now.saturating_add(mint.lifetime()).saturating_mul(1000);
        fields.extend(token.clone().map(|token| ("accessToken", token)));
        fields.push(("accessExp", utc(expires).into()));
        fields.push(("refreshToken", session.refresh_token.as_str().into()));
        fields.push(("refreshExp", utc(session.refresh_expires).into()));
    }
    fields.extend(token.map(|token| ("token", token)));
    let body = object(state.options.casing, fields);
    Ok(Answer::json(StatusCode::OK, &body))
}
