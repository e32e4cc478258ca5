//! Options of the development admin API.

use super::RoleForm;
use clap::ValueEnum;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The three generations of the admin API that are in use at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Generation {
    /// Until May 2026: HS256 tokens, no published keys, no refresh, business errors as 409.
    G1,
    /// ES256 tokens with published keys, refresh tokens, locked accounts as 423, limits as 429.
    G2,
    /// As G2, but every refused login gets the same opaque 401 with code 70.
    G2b,
}

/// The .NET names of the claims for user id, e-mail and role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClaimNames {
    /// `nameid`, `unique_name`, `role`.
    Short,
    /// The full claim URIs.
    Uri,
}

/// The casing of the field names in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Casing {
    /// `accessToken`
    Camel,
    /// `access_token`
    Snake,
    /// `AccessToken`
    Pascal,
}

impl Casing {
    /// Spells a field name, given in camel case, in this casing.
    pub fn spell(self, camel: &str) -> String {
        match self {
            Self::Camel => camel.to_owned(),
            Self::Snake => camel.chars().fold(String::new(), |mut name, letter| {
                if letter.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_lowercase());
                name
            }),
            Self::Pascal => {
                let mut letters = camel.chars();
                letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
            }
        }
    }
}

/// The address that the login limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Limiter {
    /// Each client's own.
    Client,
    /// The address of the proxy before the server, which is the same for all clients: they share ten logins a minute.
    Proxy,
}

/// The cost of a password hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// Argon2id with 19 MiB, 2 passes, 1 lane: the minimum that the OWASP Password Storage Cheat
    /// Sheet recommends. Some tens of milliseconds each.
    Real,
    /// Argon2id with the smallest parameters that the algorithm allows (RFC 9106, 3.1).
    Cheap,
}

/// How the server behaves at the connection level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// A certificate of the CA, from 30 days ago until 60 days ahead of this machine's clock, as one that is renewed
    /// every 60 days out of 90.
    Valid,
    /// No TLS at all: plain http.
    Plain,
    /// A certificate of the CA that expired a day ago.
    Expired,
    /// A certificate of the CA that becomes valid in a day.
    NotYetValid,
    /// A self-signed certificate.
    SelfSigned,
    /// A self-signed certificate with the CA flag, as `openssl req -x509` creates one.
    SelfSignedCa,
    /// A certificate of the CA for another host, `wrong.example`.
    WrongName,
    /// A certificate of the CA for exactly these names, valid or not.
    Names(&'static [&'static str]),
    /// A certificate of the CA for another address, 192.0.2.1.
    WrongAddress,
    /// A certificate of the CA that has its host only in the legacy common name.
    CommonName,
    /// A certificate of an unknown CA.
    UnknownCa,
    /// A certificate of the CA that has the CA flag itself.
    LeafIsCa,
    /// A certificate of the CA for client authentication only.
    ForClients,
    /// As [`Tls::Valid`], but the server requires a client certificate.
    AsksForCertificate,
    /// A certificate of an intermediate CA, sent with the intermediate's certificate.
    Chain,
    /// A certificate of an intermediate CA, sent without the intermediate's certificate.
    BrokenChain,
    /// A certificate of the CA with this validity.
    Window {
        /// The first moment at which it is valid.
        not_before: SystemTime,
        /// The last moment at which it is valid.
        not_after: SystemTime,
    },
    /// As [`Tls::Window`], but from an unknown CA.
    ForgedWindow {
        /// The first moment at which it is valid.
        not_before: SystemTime,
        /// The last moment at which it is valid.
        not_after: SystemTime,
    },
    /// As [`Tls::Window`], but for another host, `wrong.example`.
    ForeignWindow {
        /// The first moment at which it is valid.
        not_before: SystemTime,
        /// The last moment at which it is valid.
        not_after: SystemTime,
    },
    /// As [`Tls::Valid`], but each request is answered with these raw bytes and a close.
    ThenSays(&'static [u8]),
    /// Sends these raw bytes after the client's first bytes, then closes the connection.
    Says(&'static [u8]),
    /// Resets the connection as soon as it is accepted.
    Reset,
    /// Resets the connection in the handshake, after the client's first bytes.
    ResetInHandshake,
    /// Sends nothing for as long as the client waits.
    Silent,
}

impl Tls {
    /// Whether no HTTP is spoken on the connection. Each connection is still recorded as a request, `CONNECT` with the
    /// path `/`.
    pub(super) fn is_mute(self) -> bool {
        matches!(self, Self::Says(_) | Self::Reset | Self::ResetInHandshake | Self::Silent)
    }
}

/// The options of a development admin API. [`Options::default`] is a G2 server on a free port of the loopback address,
/// without limits, with cheap hashes, and an empty database in memory.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Options {
    /// The generation.
    pub generation: Generation,
    /// The names of the token's claims.
    pub claims: ClaimNames,
    /// The casing of successful answers. An MFA answer is always in snake case.
    pub casing: Casing,
    /// The casing of errors.
    pub error_casing: Casing,
    /// The form in which roles are accepted and returned.
    pub role_form: RoleForm,
    /// The cost of a password hash.
    pub hashing: Hashing,
    /// Whether logins are limited and accounts are locked. G1 then answers as G2 does.
    pub limits: bool,
    /// The address that the login limit counts.
    pub limiter: Limiter,
    /// Whether errors with 400 are those of the API, with its code if there is one; otherwise they are
    /// `application/problem+json` as ASP.NET itself writes it.
    pub codes_in_400: bool,
    /// Whether there is a `PATCH /users/password`. Without it the answer is 405, since `/users/{email}` has other
    /// methods, and 404 if [`Options::delete_route`] is off too.
    pub password_patch: bool,
    /// Whether there is a `DELETE /users/{email}`; without it the answer is 404.
    pub delete_route: bool,
    /// The lifetime of an access token; `None`: 4 hours in G1, 15 minutes later.
    pub token_lifetime: Option<Duration>,
    /// The `iss` claim.
    pub issuer: String,
    /// The `aud` claim; `None`: `Annotators/OrangePi/Admins` in G1, `AzaionDevices` later.
    pub audience: Option<String>,
    /// How the server behaves at the connection level.
    pub tls: Tls,
    /// The address to listen on; port 0 selects a free port.
    pub listen: SocketAddr,
    /// The database file, created if missing; `None`: in memory. It keeps users and sessions for the next server, but
    /// not keys: access tokens end with the server that signed them.
    pub database: Option<PathBuf>,
    /// Seconds added to the server's clock: the `Date` header, token times and limits. The
    /// certificate does not follow it, see [`Tls::Window`].
    pub clock_offset: i64,
    /// Whether answers carry a `Date` header.
    pub date_header: bool,
    /// The prefix of all paths, such as `/admin`.
    pub path_prefix: String,
    /// For how long a cache before the server keeps the list of keys (the server allows an hour), unless a request has
    /// `Cache-Control: no-cache`; `None`: no cache.
    pub keys_cache: Option<Duration>,
    /// The idle time after which a connection is closed (nginx: `keepalive_timeout`); `None`: never.
    pub idle: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            generation: Generation::G2,
            claims: ClaimNames::Short,
            casing: Casing::Camel,
            error_casing: Casing::Camel,
            role_form: RoleForm::Name,
            hashing: Hashing::Cheap,
            limits: false,
            limiter: Limiter::Client,
            codes_in_400: true,
            password_patch: true,
            delete_route: true,
            token_lifetime: None,
            issuer: "AzaionApi".to_owned(),
            audience: None,
            tls: Tls::Valid,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            database: None,
            clock_offset: 0,
            date_header: true,
            path_prefix: String::new(),
            keys_cache: None,
            idle: None,
        }
    }
}

impl Options {
    /// Returns the lifetime of an access token.
    pub(super) fn access_lifetime(&self) -> Duration {
        const G1: Duration = Duration::from_hours(4);
        const LATER: Duration = Duration::from_mins(15);
        self.token_lifetime.unwrap_or(match self.generation {
            Generation::G1 => G1,
            Generation::G2 | Generation::G2b => LATER,
        })
    }

    /// Returns the `aud` claim.
    pub(super) fn audience(&self) -> &str {
        self.audience.as_deref().unwrap_or(match self.generation {
            Generation::G1 => "Annotators/OrangePi/Admins",
            Generation::G2 | Generation::G2b => "AzaionDevices",
        })
    }

    /// Whether the server has ES256 keys, sessions and refresh tokens.
    pub(super) fn has_sessions(&self) -> bool {
        self.generation != Generation::G1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three casings that clients must accept match those of the admin API.
    #[test]
    fn casings() {
        for (camel, snake, pascal) in [
            ("accessToken", "access_token", "AccessToken"),
            ("token", "token", "Token"),
            ("errorCode", "error_code", "ErrorCode"),
        ] {
            assert_eq!(Casing::Camel.spell(camel), camel);
            assert_eq!(Casing::Snake.spell(camel), snake);
            assert_eq!(Casing::Pascal.spell(camel), pascal);
        }
    }
}
