//! What a development admin API can be asked to be.

use super::RoleForm;
use clap::ValueEnum;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The three generations of the admin API that are in the field at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Generation {
    /// Until May 2026: HS256 tokens, no published keys, no refresh, business errors as 409.
    G1,
    /// ES256 tokens with published keys, refresh tokens, locked accounts as 423, limits as 429.
    G2,
    /// As G2, but every refused login is one opaque 401 with code 70.
    G2b,
}

/// How .NET names the claims of user id, e-mail and role.
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

/// Whose address the login limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Limiter {
    /// Each client's own.
    Client,
    /// That of the proxy before the server, which is the same for all clients: they share ten logins a minute.
    Proxy,
}

/// How dear a password hash is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// Argon2id with 19 MiB, 2 passes, 1 lane: the minimum that the OWASP Password Storage Cheat
    /// Sheet recommends. Some tens of milliseconds each.
    Real,
    /// Argon2id with the smallest parameters that the algorithm allows (RFC 9106, 3.1).
    Cheap,
}

/// How the server presents itself on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// A certificate of the CA, from 30 days ago until 60 days ahead of this machine's clock, as
    /// one that is renewed every 60 days out of 90.
    Valid,
    /// No TLS at all: plain http.
    Plain,
    /// A certificate of the CA that ended a day ago.
    Expired,
    /// A certificate of the CA that begins in a day.
    NotYetValid,
    /// A certificate that no CA has signed.
    SelfSigned,
    /// A certificate that no CA has signed, and that is marked as that of a CA, as `openssl req -x509` makes one.
    SelfSignedCa,
    /// A certificate of the CA for another host, `wrong.example`.
    WrongName,
    /// A certificate of the CA for these names alone, whatever is in them.
    Names(&'static [&'static str]),
    /// A certificate of the CA for another address, 192.0.2.1.
    WrongAddress,
    /// A certificate of the CA that names its host in the old way alone, as the common name.
    CommonName,
    /// A certificate of a CA that nobody knows.
    UnknownCa,
    /// A certificate of the CA that is a CA itself.
    LeafIsCa,
    /// A certificate of the CA that is good for a client, not for a server.
    ForClients,
    /// As [`Tls::Valid`], but the client must show a certificate of its own.
    AsksForCertificate,
    /// A certificate of a CA below the CA, and that one's certificate with it.
    Chain,
    /// A certificate of a CA below the CA, without that one's certificate.
    BrokenChain,
    /// A certificate of the CA with this validity.
    Window {
        /// The first moment at which it is valid.
        not_before: SystemTime,
        /// The last moment at which it is valid.
        not_after: SystemTime,
    },
    /// As [`Tls::Window`], but of a CA that nobody knows.
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
    /// As [`Tls::Valid`], and each request is met with these bytes, whatever they are, and the end.
    ThenSays(&'static [u8]),
    /// These bytes, whatever they are, after the first that the client has sent, and the end.
    Says(&'static [u8]),
    /// The connection is reset as soon as it is there.
    Reset,
    /// The connection is reset in the handshake, after the first bytes that the client has sent.
    ResetInHandshake,
    /// Not a word, for as long as the client waits.
    Silent,
}

impl Tls {
    /// Whether there is no HTTP on the connection. Each is noted as a request all the same, `CONNECT` with the path `/`.
    pub(super) fn is_mute(self) -> bool {
        matches!(self, Self::Says(_) | Self::Reset | Self::ResetInHandshake | Self::Silent)
    }
}

/// What the development admin API is to be. [`Options::default`] is a G2 server on a free port of
/// the loopback address, without limits, with cheap hashes, and an empty database in memory.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Options {
    /// Which of the three generations.
    pub generation: Generation,
    /// How the token's claims are named.
    pub claims: ClaimNames,
    /// How the fields of answers that are no errors are named. An MFA answer is in snake case whatever this says.
    pub casing: Casing,
    /// How the fields of errors are named.
    pub error_casing: Casing,
    /// In which form roles are taken and given.
    pub role_form: RoleForm,
    /// How dear a password hash is.
    pub hashing: Hashing,
    /// Whether logins are limited and accounts are locked. G1 then answers as G2 does.
    pub limits: bool,
    /// Whose address the login limit counts.
    pub limiter: Limiter,
    /// Whether errors with 400 are those of the API, with its code where there is one; without, they are
    /// `application/problem+json` as ASP.NET itself writes it.
    pub codes_in_400: bool,
    /// Whether there is a `PATCH /users/password`. Without it the answer is 405, since `/users/{email}` has other
    /// methods, and 404 if [`Options::delete_route`] is off too.
    pub password_patch: bool,
    /// Whether there is a `DELETE /users/{email}`; without it the answer is 404.
    pub delete_route: bool,
    /// How long an access token lives; `None`: 4 hours in G1, 15 minutes later.
    pub token_lifetime: Option<Duration>,
    /// The `iss` claim.
    pub issuer: String,
    /// The `aud` claim; `None`: `Annotators/OrangePi/Admins` in G1, `AzaionDevices` later.
    pub audience: Option<String>,
    /// How the server presents itself on the connection.
    pub tls: Tls,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The database file, made if missing; `None`: in memory. It keeps users and sessions for the
    /// next server, but not keys: access tokens end with the server that signed them.
    pub database: Option<PathBuf>,
    /// Seconds added to the server's clock: the `Date` header, token times and limits. The
    /// certificate does not follow it, see [`Tls::Window`].
    pub clock_offset: i64,
    /// Whether answers carry a `Date` header.
    pub date_header: bool,
    /// What all paths begin with, such as `/admin`.
    pub path_prefix: String,
    /// For how long a cache before the server keeps the list of keys (the server allows an hour), unless a request says
    /// `Cache-Control: no-cache`; `None`: there is no cache.
    pub keys_cache: Option<Duration>,
    /// After how long a connection that nobody uses is closed (nginx: `keepalive_timeout`); `None`: never.
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
    /// How long an access token lives.
    pub(super) fn access_lifetime(&self) -> Duration {
        const G1: Duration = Duration::from_hours(4);
        const LATER: Duration = Duration::from_mins(15);
        self.token_lifetime.unwrap_or(match self.generation {
            Generation::G1 => G1,
            Generation::G2 | Generation::G2b => LATER,
        })
    }

    /// The `aud` claim.
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

    /// The three casings that clients must accept are spelled as the admin API spells them.
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
