//! Access tokens: creating them for each generation, and validating a bearer token.

use super::hashing::random_hex;
use super::keys::Keys;
use super::store::Account;
use super::{ClaimNames, Generation, Options};
use anyhow::Context as _;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value, json};

/// The claims of a token.
pub(super) type Claims = Map<String, Value>;

/// The .NET names of three of the claims.
pub(super) struct Names {
    pub(super) id: &'static str,
    pub(super) email: &'static str,
    pub(super) role: &'static str,
}

impl ClaimNames {
    pub(super) fn names(self) -> Names {
        match self {
            Self::Short => Names { id: "nameid", email: "unique_name", role: "role" },
            Self::Uri => Names {
                id: "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier",
                email: "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
                role: "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
            },
        }
    }
}

/// The inputs for creating a token.
pub(super) struct Mint<'a> {
    pub(super) options: &'a Options,
    pub(super) keys: &'a Keys,
    /// Seconds since 1970 on the server's clock.
    pub(super) now: i64,
}

impl Mint<'_> {
    /// Returns the lifetime of a token in seconds.
    pub(super) fn lifetime(&self) -> i64 {
        i64::try_from(self.options.access_lifetime().as_secs()).unwrap_or(i64::MAX)
    }

    /// Returns the claims of a valid token for this user; `sid` is the session, from G2 on.
    pub(super) fn claims(&self, account: &Account, sid: Option<&str>) -> anyhow::Result<Claims> {
        let names = self.options.claims.names();
        let mut claims = Claims::new();
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        set(names.id, account.id.clone().into());
        set(names.email, account.email.clone().into());
        set(names.role, account.role.clone().into());
        set("iss", self.options.issuer.clone().into());
        set("aud", self.options.audience().into());
        set("iat", self.now.into());
        set("nbf", self.now.into());
        set("exp", self.now.saturating_add(self.lifetime()).into());
        if let Some(sid) = sid {
            set("sid", sid.into());
            set("jti", random_hex::<16>()?.into());
            set("amr", json!(["pwd"]));
        }
        Ok(claims)
    }

    /// Signs as this generation does.
    pub(super) fn sign(&self, claims: &Claims) -> anyhow::Result<String> {
        self.sign_with_kid(claims, self.kid())
    }

    /// Returns the id of the current key; G1 has none.
    pub(super) fn kid(&self) -> Option<&str> {
        self.options.has_sessions().then_some(self.keys.current.kid.as_str())
    }

    /// Signs as this generation does, but with this key id in the header.
    pub(super) fn sign_with_kid(&self, claims: &Claims, kid: Option<&str>) -> anyhow::Result<String> {
        match self.options.generation {
            Generation::G1 => {
                let secret = EncodingKey::from_secret(&self.keys.secret);
                encode(Algorithm::HS256, kid, claims, &secret)
            }
            Generation::G2 | Generation::G2b => encode(Algorithm::ES256, kid, claims, &self.keys.current.private),
        }
    }
}

/// Encodes a compact JWS.
pub(super) fn encode(
    algorithm: Algorithm,
    kid: Option<&str>,
    claims: &Claims,
    key: &EncodingKey,
) -> anyhow::Result<String> {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, key).context("signing a token")
}

/// The caller, from a bearer token that passed all checks.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) email: String,
    pub(super) role: String,
    /// The session, from G2 on.
    pub(super) sid: Option<String>,
}

/// Validates a bearer token: the one algorithm and key of this generation, issuer, audience and times (`now` in seconds
/// since 1970; the same clock issued them, so no skew is allowed).
pub(super) fn verify(options: &Options, keys: &Keys, token: &str, now: i64) -> Option<Caller> {
    let (algorithm, key) = match options.generation {
        Generation::G1 => (Algorithm::HS256, DecodingKey::from_secret(&keys.secret)),
        Generation::G2 | Generation::G2b => {
            let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
            (Algorithm::ES256, keys.listed(&kid)?.public())
        }
    };
    let mut checks = Validation::new(algorithm);
    checks.set_issuer(&[&options.issuer]);
    checks.set_audience(&[options.audience()]);
    checks.set_required_spec_claims(&["exp", "iss", "aud"]);
    // Those would use this machine's clock instead of the server's.
    checks.validate_exp = false;
    checks.validate_nbf = false;
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &checks).ok()?.claims;
    let time = |name| claims.get(name).and_then(Value::as_i64);
    if time("exp")? <= now || time("nbf")? > now {
        return None;
    }
    let names = options.claims.names();
    let text = |name| claims.get(name)?.as_str().map(str::to_owned);
    Some(Caller { email: text(names.email)?, role: text(names.role)?, sid: text("sid") })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A user of a test.
    pub(in super::super) fn account() -> Account {
        Account {
            id: "1".to_owned(),
            email: "one@azaion.com".to_owned(),
            hash: String::new(),
            role: "CompanionPC".to_owned(),
            enabled: true,
            mfa: false,
        }
    }

    /// The server accepts its own tokens, of each generation and with both claim namings, from their first to their
    /// last second.
    #[test]
    fn own_tokens_pass() {
        let keys = Keys::generate().unwrap();
        for generation in [Generation::G1, Generation::G2, Generation::G2b] {
            for claims in [ClaimNames::Short, ClaimNames::Uri] {
                let options = Options { generation, claims, ..Options::default() };
                let mint = Mint { options: &options, keys: &keys, now: 1000 };
                let token = mint.sign(&mint.claims(&account(), None).unwrap()).unwrap();
                let lifetime = mint.lifetime();
                assert_eq!(lifetime, if generation == Generation::G1 { 14400 } else { 900 });
                for (now, passes) in [(999, false), (1000, true), (999 + lifetime, true), (1000 + lifetime, false)] {
                    let caller = verify(&options, &keys, &token, now);
                    assert_eq!(caller.is_some(), passes, "{generation:?} at {now}");
                }
                let caller = verify(&options, &keys, &token, 1000).unwrap();
                assert_eq!(caller.email, "one@azaion.com");
                assert_eq!(caller.role, "CompanionPC");
            }
        }
    }
}
