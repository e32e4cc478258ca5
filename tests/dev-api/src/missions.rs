//! Mission sessions and their revocation: `POST /sessions/mission`, `GET /sessions/revoked`, `POST
//! /sessions/{sid}/revoke`.
//!
//! A login or refresh of a device revokes the open mission sessions of that aircraft; verifiers poll the revocations.

use super::answers::{self, Answer, object};
use super::hashing::random_hex;
use super::routes::{Call, DEVICE_ROLE, Handled, Stop, body, caller, failure, parameter, refusal};
use super::state::{State, lock, utc};
use super::store::{Account, Store};
use super::tokens::Mint;
use super::{DevApi, must};
use anyhow::Context as _;
use hyper::StatusCode;
use rusqlite::{OptionalExtension as _, params};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Lifetime of a mission session in seconds: 12 h.
const LIFETIME_S: i64 = 12 * 3600;
/// Reason recorded when the login or refresh of a device ends its mission sessions.
pub const POST_FLIGHT_RECONNECT: &str = "post_flight_reconnect";
/// Reason recorded when a person revokes a session.
const REVOKED_BY_ADMIN: &str = "admin_revoked";
/// Reason recorded when a logout ends a session.
pub(super) const LOGGED_OUT: &str = "logged_out";

/// A revoked session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The session's id, as in the claim `sid`.
    pub sid: String,
    /// The reason, such as [`POST_FLIGHT_RECONNECT`].
    pub reason: String,
    /// The time of revocation, in milliseconds since 1970 on the server's clock.
    at: i64,
}

impl Store {
    /// Begins a mission session of this aircraft, given as a user's id, and returns the session's id.
    fn begin_mission(&self, aircraft: &str, expires: i64) -> anyhow::Result<String> {
        let sid = random_hex::<16>()?;
        let insert = "INSERT INTO missions (sid, aircraft, expires) VALUES (?1, ?2, ?3)";
        lock(&self.0).execute(insert, params![sid, aircraft, expires]).context("adding a mission session")?;
        Ok(sid)
    }

    /// Revokes all open mission sessions of this aircraft.
    fn end_missions(&self, aircraft: &str, now: i64) -> anyhow::Result<()> {
        let insert = "INSERT INTO revocations (sid, at, reason)
                      SELECT sid, ?2, ?3 FROM missions
                      WHERE aircraft = ?1 AND expires > ?2 AND sid NOT IN (SELECT sid FROM revocations)";
        let done = lock(&self.0).execute(insert, params![aircraft, now, POST_FLIGHT_RECONNECT]);
        done.map(drop).context("revoking mission sessions")
    }

    /// Returns the open mission sessions of this aircraft.
    fn open_missions(&self, aircraft: &str, now: i64) -> anyhow::Result<Vec<String>> {
        let query = "SELECT sid FROM missions
                     WHERE aircraft = ?1 AND expires > ?2 AND sid NOT IN (SELECT sid FROM revocations)
                     ORDER BY rowid";
        let connection = lock(&self.0);
        let mut statement = connection.prepare(query)?;
        let rows = statement.query_map(params![aircraft, now], |row| row.get(0))?;
        rows.collect::<Result<_, _>>().context("listing mission sessions")
    }

    /// Revokes one session of a person, device or mission; returns `false` if it does not exist.
    pub(super) fn end_session(&self, sid: &str, now: i64, reason: &str) -> anyhow::Result<bool> {
        let mut connection = lock(&self.0);
        let transaction = connection.transaction()?;
        let query = "SELECT 1 FROM missions WHERE sid = ?1 UNION ALL SELECT 1 FROM sessions WHERE sid = ?1";
        if transaction.query_row(query, [sid], |_| Ok(())).optional()?.is_none() {
            return Ok(false);
        }
        transaction.execute("UPDATE sessions SET ended = 1 WHERE sid = ?1", [sid])?;
        let insert = "INSERT OR IGNORE INTO revocations (sid, at, reason) VALUES (?1, ?2, ?3)";
        transaction.execute(insert, params![sid, now, reason])?;
        transaction.commit()?;
        Ok(true)
    }

    /// Revokes all sessions of this user that began with a login.
    pub(super) fn end_sessions_of(&self, email: &str, now: i64, reason: &str) -> anyhow::Result<()> {
        const THEIRS: &str = "FROM sessions WHERE ended = 0 AND user = (SELECT id FROM users WHERE email = ?1)";
        let mut connection = lock(&self.0);
        let transaction = connection.transaction()?;
        let insert = format!("INSERT OR IGNORE INTO revocations (sid, at, reason) SELECT sid, ?2, ?3 {THEIRS}");
        transaction.execute(&insert, params![email, now, reason])?;
        let update = format!("UPDATE sessions SET ended = 1 WHERE sid IN (SELECT sid {THEIRS})");
        transaction.execute(&update, [email])?;
        transaction.commit().context("ending the sessions of a user")
    }

    /// Returns the revocations since this time, in chronological order.
    fn revocations(&self, since: i64) -> anyhow::Result<Vec<Revocation>> {
        let connection = lock(&self.0);
        let mut statement =
            connection.prepare("SELECT sid, reason, at FROM revocations WHERE at >= ?1 ORDER BY rowid")?;
        let rows = statement.query_map([since], |row| {
            Ok(Revocation { sid: row.get("sid")?, reason: row.get("reason")?, at: row.get("at")? })
        })?;
        rows.collect::<Result<_, _>>().context("listing revocations")
    }
}

/// Revokes the sessions that a login or refresh of this account ends.
pub(super) fn end_by_login(state: &State, account: &Account, now: i64) -> anyhow::Result<()> {
    if account.role == DEVICE_ROLE { state.store.end_missions(&account.id, now) } else { Ok(()) }
}

#[derive(serde::Deserialize)]
struct NewMission {
    /// In snake case whatever the server's casing.
    aircraft_id: String,
}

/// `POST /sessions/mission`, for any person; which roles the real server requires is unknown.
pub(super) fn begin(state: &State, call: &Call) -> Handled {
    let caller = caller(state, call)?;
    if caller.role == DEVICE_ROLE {
        return Err(failure(state, StatusCode::FORBIDDEN, "A device can't do this.").into());
    }
    let wanted: NewMission = body(state, call)?;
    let aircraft = state.store.account_of_id(&wanted.aircraft_id)?.filter(|account| account.role == DEVICE_ROLE);
    let Some(aircraft) = aircraft else { return Err(refusal(state, &answers::NO_SUCH_SESSION).into()) };
    let Some(person) = state.store.account(&caller.email)? else {
        return Err(failure(state, StatusCode::UNAUTHORIZED, "The user is gone.").into());
    };
    let keys = lock(&state.keys);
    let mint = Mint { options: &state.options, keys: &keys, now: state.now().div_euclid(1000) };
    let expires = mint.now + LIFETIME_S;
    let sid = state.store.begin_mission(&aircraft.id, expires * 1000)?;
    let mut claims = mint.claims(&person, Some(&sid))?;
    // Without a role it is valid for no route of this server; verifiers on the ground and in the air read the aircraft.
    claims.remove(state.options.claims.names().role);
    claims.insert("aircraft_id".to_owned(), aircraft.id.into());
    claims.insert("exp".to_owned(), expires.into());
    let token = mint.sign(&claims)?;
    let fields = [("token", token.into()), ("sid", sid.into()), ("expiresAt", utc(expires * 1000).into())];
    Ok(Answer::json(StatusCode::OK, &object(state.options.casing, fields)))
}

/// `GET /sessions/revoked?since=TIME`, for verifiers of tokens.
pub(super) fn revoked(state: &State, call: &Call) -> Handled {
    caller(state, call)?;
    let since = match parameter(call, "since") {
        None => 0,
        Some(text) => milliseconds(&text).ok_or_else(|| {
            Stop::from(failure(state, StatusCode::BAD_REQUEST, "The parameter since is not an RFC 3339 time."))
        })?,
    };
    let described = |revocation: Revocation| {
        let at = utc(revocation.at);
        let fields = [("sid", revocation.sid.into()), ("revokedAt", at.into()), ("reason", revocation.reason.into())];
        object(state.options.casing, fields)
    };
    let list: Vec<Value> = state.store.revocations(since)?.into_iter().map(described).collect();
    Ok(Answer::json(StatusCode::OK, &list.into()))
}

/// `POST /sessions/{sid}/revoke`.
pub(super) fn revoke(state: &State, sid: &str) -> Handled {
    if state.store.end_session(sid, state.now(), REVOKED_BY_ADMIN)? {
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    } else {
        Err(refusal(state, &answers::NO_SUCH_SESSION).into())
    }
}

fn milliseconds(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

impl DevApi {
    /// Begins a mission session of a device, as a person does with `POST /sessions/mission`, and returns its id.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn start_mission(&self, email: &str) -> String {
        must(self.state.store.begin_mission(&self.id_of(email), self.state.now() + LIFETIME_S * 1000))
    }

    /// Returns the open mission sessions of a device.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn open_missions(&self, email: &str) -> Vec<String> {
        must(self.state.store.open_missions(&self.id_of(email), self.state.now()))
    }

    /// Returns all revocations in chronological order.
    pub fn revocations(&self) -> Vec<Revocation> {
        must(self.state.store.revocations(0))
    }

    /// Returns a user's id, a GUID: the claim `nameid`, and the `aircraft_id` of mission sessions.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn id_of(&self, email: &str) -> String {
        must(self.state.store.account(email).and_then(|found| found.context("no such user"))).id
    }
}
