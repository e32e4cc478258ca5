//! `/etc/azaion/agent.toml`: the optional policy of the fleet.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::fcntl::OFlag;
use serde::de;
use serde::{Deserialize, Deserializer};

use crate::api::http::mode_hint;
use crate::api::proxy_url::ProxyUrl;
use crate::api::token::{DEFAULT_ISSUER, Expected, SignaturePolicy};
use crate::api::url::ApiUrl;

use super::paths::Paths;

/// The maximum size of the file in bytes.
const MAX_SIZE: u64 = 64 * 1024;
/// How long one run tries, unless `agent.toml` sets another time.
pub const DEFAULT_DEADLINE: Duration = Duration::from_mins(1);
/// The default hold file. The autopilot creates it while the aircraft flies (the suite's design document).
const DEFAULT_HOLD_FILE: &str = "/run/azaion/in-flight";
/// Directories that the sandbox of `azaion-agent.service` hides or replaces.
const HIDDEN: [&str; 8] = ["/tmp", "/var/tmp", "/home", "/root", "/dev", "/run/lock", "/run/user", "/run/systemd"];
/// The maximum deadline, an hour. A longer one is a mistake, and systemd would not start the unit again meanwhile.
const LONGEST_DEADLINE_S: u64 = 3600;

/// The policy of the fleet's owner for all devices. Every key is optional. An unknown key is an error, so that a
/// mistyped key is not silently ignored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// PEM file with CA certificates that are trusted in addition to the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// The issuer that a token must have.
    pub issuer: String,
    /// The audience that a token must have. `None`: not checked.
    pub audience: Option<String>,
    /// Whether a token must have a signature that can be verified.
    pub signature: SignaturePolicy,
    /// How long one run tries, 1 to 3600 seconds.
    pub deadline_s: u64,
    /// The API for a `device.conf` that names none.
    #[serde(deserialize_with = "parsed")]
    pub api_url: Option<ApiUrl>,
    /// The HTTP proxy for connections to the API (CONNECT).
    #[serde(deserialize_with = "parsed")]
    pub proxy: Option<ProxyUrl>,
    /// When a token is renewed.
    pub renew: Renew,
    /// While this file exists, the device makes no API call.
    pub hold_file: PathBuf,
}

/// When a token is renewed. A renewal ends the device's mission sessions on the server (G2b).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Renew {
    /// By the timer, when less than a third of its life is left.
    #[default]
    Ahead,
    /// By the timer until the device has been ready in this boot; after that only when a caller needs a token.
    OnDemand,
}

/// Deserializes a value with its `FromStr`.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ca_file: None,
            issuer: DEFAULT_ISSUER.to_owned(),
            audience: None,
            signature: SignaturePolicy::Auto,
            deadline_s: DEFAULT_DEADLINE.as_secs(),
            api_url: None,
            proxy: None,
            renew: Renew::default(),
            hold_file: DEFAULT_HOLD_FILE.into(),
        }
    }
}

/// The error of reading the file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum SettingsError {
    #[error("cannot read {}{}", path.display(), mode_hint(source))]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}{}: {message}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    Toml { path: PathBuf, line: Option<usize>, message: String },
    #[error("{}: {message}", path.display())]
    Value { path: PathBuf, message: &'static str },
}

impl Settings {
    /// Reads the file. A missing file gives the defaults.
    ///
    /// # Errors
    /// The file can't be read, is not TOML, or has an unknown key or a value out of range.
    pub fn read(paths: &Paths) -> Result<Self, SettingsError> {
        let path = &paths.settings();
        let mut text = String::new();
        // O_NONBLOCK: a FIFO of this name must not hang the boot.
        match File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
            Ok(file) => {
                warn_if_writable_by_others(&file, path);
                file.take(MAX_SIZE + 1).read_to_string(&mut text)
            }
            // A dangling symlink is an error, not a missing policy.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !paths.has_settings() => {
                return Ok(Self::default());
            }
            Err(e) => Err(e),
        }
        .map_err(|source| SettingsError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Returns the claims that this policy requires of a token for this account.
    pub fn expected<'a>(&'a self, email: &'a str) -> Expected<'a> {
        Expected { email, issuer: &self.issuer, audience: self.audience.as_deref(), signature: self.signature }
    }

    /// Parses the text of the file `path`.
    ///
    /// # Errors
    /// The text is not TOML, or has an unknown key or a value out of range.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        if text.len() as u64 > MAX_SIZE {
            return Err(SettingsError::Value { path: path.to_owned(), message: "is larger than 64 KiB" });
        }
        let settings: Self = toml::from_str(text).map_err(|e| SettingsError::Toml {
            path: path.to_owned(),
            line: e.span().and_then(|span| Some(1 + text.get(..span.start)?.matches('\n').count())),
            message: e.message().to_owned(),
        })?;
        settings.check().map_err(|message| SettingsError::Value { path: path.to_owned(), message })?;
        Ok(settings)
    }

    /// Validates the values.
    fn check(&self) -> Result<(), &'static str> {
        if !(1..=LONGEST_DEADLINE_S).contains(&self.deadline_s) {
            return Err("deadline_s must be 1 to 3600 seconds");
        }
        if !self.hold_file.is_absolute() {
            return Err("hold_file must be an absolute path");
        }
        if HIDDEN.iter().any(|hidden| self.hold_file.starts_with(hidden)) {
            return Err(
                "hold_file is in a directory that the sandbox of azaion-agent.service hides; choose a path below /run",
            );
        }
        if self.ca_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            return Err("ca_file must be an absolute path");
        }
        if self.issuer.is_empty() || self.audience.as_ref().is_some_and(String::is_empty) {
            return Err("issuer and audience must not be empty; remove the key instead");
        }
        Ok(())
    }

    /// Returns how long one run tries.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_s)
    }
}

/// Warns if other users may write the file, since they could add their own CA.
fn warn_if_writable_by_others(file: &File, path: &Path) {
    if file.metadata().is_ok_and(|metadata| metadata.mode() & 0o022 != 0) {
        log::warn!("other users can write {}; run chmod 0644 on it", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: every key takes effect, and a mistyped key is an error with its line, never silently ignored.
    #[test]
    fn mistyped_policy_is_an_error() {
        let defaults = Settings::default();
        for (text, expected) in [
            ("", Ok(defaults.clone())),
            ("# nothing\n", Ok(defaults.clone())),
            ("deadline_s = 5\n", Ok(Settings { deadline_s: 5, ..defaults.clone() })),
            ("signature = \"required\"", Ok(Settings { signature: SignaturePolicy::Required, ..defaults.clone() })),
            (
                "ca_file = \"/etc/azaion/ca.pem\"",
                Ok(Settings { ca_file: Some("/etc/azaion/ca.pem".into()), ..defaults.clone() }),
            ),
            (
                "issuer = \"I\"\naudience = \"A\"",
                Ok(Settings { issuer: "I".into(), audience: Some("A".into()), ..defaults.clone() }),
            ),
            (
                "api_url = \"https://api.example\"\nproxy = \"http://proxy.example:3128\"",
                Ok(Settings {
                    api_url: Some("https://api.example".parse().unwrap()),
                    proxy: Some("http://proxy.example:3128".parse().unwrap()),
                    ..defaults.clone()
                }),
            ),
            ("renew = \"ahead\"", Ok(defaults.clone())),
            ("renew = \"on-demand\"", Ok(Settings { renew: Renew::OnDemand, ..defaults.clone() })),
            ("hold_file = \"/run/f\"", Ok(Settings { hold_file: "/run/f".into(), ..defaults })),
            ("api_url = \"http://api.example\"", Err("f:1: plain http is accepted only")),
            ("proxy = \"http://user:hush@proxy.example\"", Err("f:1: a user or password inside the proxy")),
            ("renew = \"never\"", Err("f:1: unknown variant `never`")),
            ("hold_file = \"/tmp/in-flight\"", Err("f: hold_file is in a directory that the sandbox")),
            ("hold_file = \"in-flight\"", Err("f: hold_file must be an absolute path")),
            ("\nsignatur = \"required\"", Err("f:2: unknown field `signatur`")),
            ("signature = \"none\"", Err("f:1: unknown variant `none`")),
            ("deadline_s = 0", Err("f: deadline_s must be")),
            ("deadline_s = 3601", Err("f: deadline_s must be")),
            ("deadline_s = -1", Err("f:1: invalid value")),
            ("deadline_s = \"60\"", Err("f:1: invalid type")),
            ("ca_file = \"ca.pem\"", Err("f: ca_file must be an absolute path")),
            ("issuer = \"\"", Err("f: issuer and audience must not be empty")),
            ("audience = \"\"", Err("f: issuer and audience must not be empty")),
            ("issuer = \"I\"\nissuer = \"J\"", Err("f:2: duplicate key")),
            ("= 5", Err("f:1: ")),
            ("[agent]\ndeadline_s = 5", Err("f:1: unknown field `agent`")),
        ] {
            let got = Settings::parse(text, Path::new("f")).map_err(|e| e.to_string());
            match (&got, &expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
                (Err(got), Err(expected)) => assert!(got.starts_with(expected), "{text}: {got}"),
                _ => panic!("{text}: {got:?}, not {expected:?}"),
            }
        }
    }
}
