//! The API in memory, as documented: accounts, tokens, sessions, keys, limits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use azaion_agent::common::clock::Timestamp;
use azaion_agent::device::true_time::build_time;
use azaion_tests::dev_api::limits::{Limits, Refusal};
use serde_json::{Value, json};

use super::dice::Dice;
use super::secrets::{hmac_token, secrets};

/// The prefixes of passwords and refresh tokens.
pub(crate) const PASSWORD: &str = "PassWord";
pub(crate) const REFRESH: &str = "ReFresh";
pub(crate) const EMAIL: &str = "azaion-jetson-0042@azaion.com";
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// How long an intermediate cache keeps the list of keys.
const KEYS_CACHED: Duration = Duration::from_hours(1);
const REFRESH_LIFETIME: Duration = Duration::from_hours(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    G1,
    G2,
    G2b,
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Expired,
    Issuer,
    Role,
    Email,
    UnlistedKey,
    Form,
}

/// An answer, before an intermediary changes it.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, retry_after: None, body: body.into() }
    }

    fn error(status: u16, code: u32, retry_after: Option<u64>) -> Self {
        Self { retry_after, ..Self::new(status, json!({"ErrorCode": code, "Message": "no"}).to_string()) }
    }
}

#[derive(Debug)]
struct Session {
    family: u32,
    ends: Duration,
    is_used: bool,
}

#[derive(Debug)]
struct Issued {
    at: Duration,
    expires_at: Timestamp,
    family: u32,
}

pub(crate) struct Api {
    pub(crate) generation: Generation,
    /// The account's password; none if there is no account.
    pub(crate) password: Option<String>,
    pub(crate) is_disabled: bool,
    limits: Limits,
    /// The key that signs, and the first one that is still listed.
    key: usize,
    first_listed: usize,
    cached_keys: Option<(Duration, String)>,
    sessions: HashMap<String, Session>,
    issued: HashMap<String, Issued>,
    ended: Vec<u32>,
    serial: u32,
    /// Consecutive refusals of the credentials in this `device.conf` that the device knows of, and the last refusal
    /// overall.
    pub(crate) refusals: Vec<Duration>,
    pub(crate) last_refusal: Option<Duration>,
    /// Refresh tokens that were used a second time.
    pub(crate) reuses: u32,
    /// Logins of the systemd unit.
    pub(crate) unit_logins: Vec<Duration>,
}

impl Api {
    pub(crate) fn new(generation: Generation, password: &str) -> Self {
        Self {
            generation,
            password: Some(password.to_owned()),
            is_disabled: false,
            limits: Limits::default(),
            key: 0,
            first_listed: 0,
            cached_keys: None,
            sessions: HashMap::new(),
            issued: HashMap::new(),
            ended: Vec::new(),
            serial: 0,
            refusals: Vec::new(),
            last_refusal: None,
            reuses: 0,
            unit_logins: Vec::new(),
        }
    }

    /// Returns whether the API accepts this token now.
    pub(crate) fn accepts(&self, token: &str, now: Timestamp) -> bool {
        self.issued.get(token).is_some_and(|issued| now < issued.expires_at && !self.ended.contains(&issued.family))
    }

    /// Returns whether the API has ended the session of this token itself.
    pub(crate) fn has_ended(&self, token: &str) -> bool {
        self.issued.get(token).is_some_and(|issued| self.ended.contains(&issued.family))
    }

    /// Returns whether the API has refused the credentials since it issued this token.
    pub(crate) fn has_refused_since(&self, token: &str) -> bool {
        self.issued.get(token).is_some_and(|issued| self.last_refusal >= Some(issued.at))
    }

    /// Removes the refusals after the first `kept`, which the device does not know of.
    pub(crate) fn unheard(&mut self, kept: usize) {
        self.refusals.truncate(kept);
    }

    pub(crate) fn end_all_sessions(&mut self) {
        self.ended.extend(self.issued.values().map(|issued| issued.family));
    }

    /// Signs with a new key; the old one stays listed, or is removed.
    pub(crate) fn rotate(&mut self, is_old_listed: bool) {
        self.key += 1;
        if !is_old_listed || self.key - self.first_listed > 3 {
            self.first_listed = self.key;
        }
    }

    /// `GET /.well-known/jwks.json`
    pub(crate) fn keys(&mut self, is_uncached: bool, now: Duration) -> Reply {
        if self.generation == Generation::G1 {
            return Reply::new(404, "");
        }
        let cached = self.cached_keys.take().filter(|(then, _)| !is_uncached && now < *then + KEYS_CACHED);
        let (then, body) = cached.unwrap_or_else(|| {
            let keys: Vec<&Value> = (self.first_listed..=self.key).map(|key| secrets().jwk(key)).collect();
            (now, json!({"keys": keys}).to_string())
        });
        self.cached_keys = Some((then, body.clone()));
        Reply::new(200, body)
    }

    /// `POST /login`
    pub(crate) fn login(&mut self, body: &Value, now: Duration, flaw: Option<Flaw>, dice: &mut Dice) -> Reply {
        let is_g2b = self.generation == Generation::G2b;
        match self.limits.attempt(ADDRESS, EMAIL, milliseconds(now)) {
            Ok(()) => {}
            Err(Refusal::Limited(wait) | Refusal::Locked(wait)) if is_g2b => {
                return Reply::error(401, 70, Some(wait.unsigned_abs()));
            }
            Err(Refusal::Limited(wait)) => return Reply::error(429, 51, Some(wait.unsigned_abs())),
            Err(Refusal::Locked(wait)) => return Reply::error(423, 50, Some(wait.unsigned_abs())),
        }
        let code = match &self.password {
            None => 10,
            Some(password) if body["password"] != password.as_str() => 30,
            Some(_) if self.is_disabled => 38,
            Some(_) => {
                self.limits.succeeded(EMAIL);
                self.refusals.clear();
                self.serial += 1;
                return self.tokens(self.serial, now, flaw, dice);
            }
        };
        self.limits.failed(EMAIL, milliseconds(now));
        self.refusals.push(now);
        self.last_refusal = Some(now);
        if is_g2b { Reply::error(401, 70, None) } else { Reply::error(409, code, None) }
    }

    /// `POST /token/refresh`
    pub(crate) fn refresh(&mut self, body: &Value, now: Duration, flaw: Option<Flaw>, dice: &mut Dice) -> Reply {
        let token = body.as_object().and_then(|body| body.values().next()?.as_str()).unwrap_or_default();
        let can_log_in = self.password.is_some() && !self.is_disabled;
        match self.sessions.get_mut(token) {
            Some(session) if session.is_used => {
                let family = session.family;
                self.ended.push(family);
                self.reuses += 1;
                Reply::error(401, 52, None)
            }
            Some(session) if now < session.ends && can_log_in && !self.ended.contains(&session.family) => {
                session.is_used = true;
                let family = session.family;
                self.tokens(family, now, flaw, dice)
            }
            _ => Reply::error(401, 52, None),
        }
    }

    fn tokens(&mut self, family: u32, now: Duration, flaw: Option<Flaw>, dice: &mut Dice) -> Reply {
        let server_now = time_at(now);
        let lifetime = if self.generation == Generation::G1 { 4 * 3600 } else { 900 };
        let start = server_now.unix() - if flaw == Some(Flaw::Expired) { lifetime + 1 } else { 0 };
        let id = dice.next();
        let claims = json!({
            "iss": if flaw == Some(Flaw::Issuer) { "somebody" } else { "AzaionApi" },
            "aud": "Annotators/OrangePi/Admins",
            "role": if flaw == Some(Flaw::Role) { "ApiAdmin" } else { "CompanionPC" },
            "unique_name": if flaw == Some(Flaw::Email) { "azaion-jetson-0043@azaion.com" } else { EMAIL },
            "nameid": "7f5f4f56-1f0e-4a39-9d8a-0f6a1c2b3d4e",
            "iat": start, "nbf": start, "exp": start + lifetime, "jti": format!("{id:016x}"),
        });
        let key = (flaw != Some(Flaw::UnlistedKey)).then_some(self.key);
        // No device can detect that.
        let flaw = flaw.filter(|flaw| *flaw != Flaw::UnlistedKey || self.generation != Generation::G1);
        let access = match self.generation {
            _ if flaw == Some(Flaw::Form) => return Reply::new(200, json!({"ok": true}).to_string()),
            Generation::G1 => hmac_token(&claims),
            Generation::G2 | Generation::G2b => secrets().token(&claims, key),
        };
        if flaw.is_none() {
            let expires_at = server_now.plus(Duration::from_secs(lifetime));
            self.issued.insert(access.clone(), Issued { at: now, expires_at, family });
        }
        if self.generation == Generation::G1 {
            return Reply::new(200, json!({"token": access}).to_string());
        }
        let refresh = format!("{REFRESH}{:016x}{:016x}", dice.next(), dice.next());
        self.sessions.insert(refresh.clone(), Session { family, ends: now + REFRESH_LIFETIME, is_used: false });
        let body = match id % 2 {
            0 => json!({"accessToken": access, "refreshToken": refresh, "token": access}),
            _ => json!({"AccessToken": access, "RefreshToken": refresh}),
        };
        Reply::new(200, body.to_string())
    }
}

/// Returns the true time so long after the start of a history.
pub(crate) fn time_at(now: Duration) -> Timestamp {
    build_time().plus(Duration::from_hours(24) + now)
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
