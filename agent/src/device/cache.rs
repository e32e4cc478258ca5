//! The token cache, which the loader reads, and the refresh token beside it, which only the agent reads.

use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::api::session::RefreshToken;
use crate::api::token::{self, Accepted, Signature, UserId};
use crate::common::clock::Timestamp;
use crate::common::device_conf::DeviceConf;
use crate::common::identity::ROLE;

use super::files::{self, Directory, FileError, Readers};
use super::paths::{REFRESH_FILE, TOKEN_FILE};
use super::settings::Settings;

/// The version of both formats.
const VERSION: u32 = 1;
const TOKEN_TYPE: &str = "Bearer";

/// `token.json`. Its lifetime counts on the boot clock, so that a wall clock that jumps does not matter.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenCache {
    /// Version of the format.
    #[cfg_attr(feature = "schema", schemars(extend("const" = VERSION)))]
    version: u32,
    /// The access token (JWT), for the header `Authorization: Bearer`. Secret.
    #[serde(serialize_with = "expose")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub access_token: SecretString,
    /// How the token is presented to the API.
    #[cfg_attr(feature = "schema", schemars(extend("const" = TOKEN_TYPE)))]
    token_type: String,
    /// E-mail address of the device's account.
    email: String,
    /// The account's id on the API; absent if the token does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Role of the account.
    #[cfg_attr(feature = "schema", schemars(extend("const" = ROLE)))]
    role: String,
    /// The API that issued the token.
    api_url: String,
    /// When the token was issued, UTC, in true time.
    pub issued_at: Timestamp,
    /// When the token expires, UTC, in true time. Readers go by `lifetime_s` instead: the clock of the device may be wrong.
    pub expires_at: Timestamp,
    /// Whether the token's signature was verified.
    pub signature: Signature,
    /// The boot that `obtained_boottime_s` counts from (`/proc/sys/kernel/random/boot_id`). In another boot the token counts as expired.
    boot_id: String,
    /// Seconds since that boot when the token was obtained (`CLOCK_BOOTTIME`).
    obtained_boottime_s: u64,
    /// Seconds from then until the token expires.
    lifetime_s: u64,
}

/// `refresh.json`.
#[derive(Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RefreshRecord {
    /// Version of the format.
    #[cfg_attr(feature = "schema", schemars(extend("const" = VERSION)))]
    version: u32,
    /// Name of the field in which the API takes the refresh token.
    field: String,
    /// The refresh token, which works once. Secret.
    #[serde(serialize_with = "expose")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    refresh_token: SecretString,
}

fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

/// A point on the boot clock of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMoment {
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
    /// `CLOCK_BOOTTIME`
    pub since_boot: Duration,
}

impl TokenCache {
    /// A cache of a token that was accepted just now.
    pub fn new(
        conf: &DeviceConf,
        access: SecretString,
        accepted: &Accepted,
        now: Timestamp,
        moment: BootMoment,
    ) -> Self {
        Self {
            version: VERSION,
            access_token: access,
            token_type: TOKEN_TYPE.into(),
            email: conf.email.clone(),
            user_id: accepted.user_id.clone(),
            role: ROLE.into(),
            api_url: conf.api_url.as_str().into(),
            issued_at: accepted.issued_at.unwrap_or(now),
            expires_at: accepted.expires_at,
            signature: accepted.signature,
            boot_id: moment.boot_id,
            obtained_boottime_s: moment.since_boot.as_secs(),
            lifetime_s: accepted.expires_at.since(now).as_secs(),
        }
    }

    /// Reads the cache.
    pub fn read(directory: &Path) -> Option<Self> {
        files::read(directory, TOKEN_FILE).filter(|cache: &Self| cache.version == VERSION)
    }

    /// Returns how much longer the token is valid. Zero for a token of another boot, since the boot clocks are not
    /// comparable.
    pub fn left(&self, now: &BootMoment) -> Duration {
        let age = now.since_boot.as_secs().checked_sub(self.obtained_boottime_s);
        match age.filter(|_| self.is_of_boot(now)) {
            Some(age) => Duration::from_secs(self.lifetime_s.saturating_sub(age)),
            None => Duration::ZERO,
        }
    }

    /// Returns whether more than a third of the token's lifetime is left.
    pub fn is_fresh(&self, now: &BootMoment) -> bool {
        self.left(now).as_secs().saturating_mul(3) > self.lifetime_s
    }

    /// Returns whether the token was obtained in this boot.
    pub fn is_of_boot(&self, now: &BootMoment) -> bool {
        self.boot_id == now.boot_id
    }

    /// Returns whether the token belongs to this account on this API, and agrees with the present policy.
    pub fn is_of(&self, conf: &DeviceConf, settings: &Settings) -> bool {
        self.email == conf.email
            && self.api_url == conf.api_url.as_str()
            && token::still_agrees(&self.access_token, self.signature, settings.expected(&conf.email))
    }
}

/// Writes both files. The refresh token comes first, so that every token that the loader sees can be renewed.
///
/// # Errors
/// The I/O error.
pub fn write(directory: &Directory, cache: &TokenCache, refresh: Option<RefreshToken>) -> Result<(), FileError> {
    match refresh {
        Some(RefreshToken { field, token }) => {
            directory.write(
                REFRESH_FILE,
                Readers::Agent,
                &RefreshRecord { version: VERSION, field, refresh_token: token },
            )?;
        }
        None => directory.remove(REFRESH_FILE)?,
    }
    directory.write(TOKEN_FILE, Readers::Group, cache)
}

/// Reads the refresh token and deletes its file, since the token works once: a second use ends the session on the
/// server.
///
/// # Errors
/// The I/O error.
pub fn take_refresh(directory: &Directory, path: &Path) -> Result<Option<RefreshToken>, FileError> {
    let Some(record) = files::read::<RefreshRecord>(path, REFRESH_FILE) else {
        return Ok(None);
    };
    directory.remove(REFRESH_FILE)?;
    Ok((record.version == VERSION).then_some(RefreshToken { field: record.field, token: record.refresh_token }))
}

/// Removes both files.
///
/// # Errors
/// The I/O error.
pub fn clear(directory: &Directory) -> Result<(), FileError> {
    directory.remove(TOKEN_FILE)?;
    directory.remove(REFRESH_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(lifetime_s: u64) -> TokenCache {
        let conf = "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=p\nAZAION_API_URL=https://a.example\n";
        let conf = DeviceConf::parse(conf.as_bytes(), Path::new("f")).unwrap();
        let now = Timestamp::from_unix(1_800_000_000);
        let expires_at = now.plus(Duration::from_secs(lifetime_s));
        let accepted = Accepted { issued_at: None, expires_at, signature: Signature::Verified, user_id: None };
        TokenCache::new(&conf, SecretString::from("hush"), &accepted, now, at("b1", 100))
    }

    fn at(boot_id: &str, seconds: u64) -> BootMoment {
        BootMoment { boot_id: boot_id.into(), since_boot: Duration::from_secs(seconds) }
    }

    // Promise: lifetimes count on the boot clock, and a token is renewed when less than a third of its lifetime is
    // left.
    #[test]
    fn lifetimes_count_on_the_boot_clock() {
        let cache = cache(900);
        for (moment, left, fresh) in [
            (at("b1", 100), 900, true),
            (at("b1", 699), 301, true),
            (at("b1", 700), 300, false),
            (at("b1", 999), 1, false),
            (at("b1", 5000), 0, false),
            (at("b2", 101), 0, false),
            (at("b1", 99), 0, false),
        ] {
            assert_eq!((cache.left(&moment).as_secs(), cache.is_fresh(&moment)), (left, fresh), "{moment:?}");
        }
    }

    // Promise: the token never shows in a `Debug`.
    #[test]
    fn the_token_is_not_shown() {
        assert!(!format!("{:?}", cache(9)).contains("hush"));
    }
}
