//! `/etc/azaion/agent.toml`: fleet policy, optional.

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

/// Bytes that the file may have at most.
const LARGEST: u64 = 64 * 1024;
/// How long one run tries for, where nothing else is said.
pub const DEFAULT_DEADLINE: Duration = Duration::from_mins(1);
/// Written by the autopilot while the aircraft flies (the suite's design document).
const DEFAULT_HOLD_FILE: &str = "/run/azaion/in-flight";
/// What the sandbox of `azaion-agent.service` hides or has of its own.
const HIDDEN: [&str; 8] = ["/tmp", "/var/tmp", "/home", "/root", "/dev", "/run/lock", "/run/user", "/run/systemd"];
/// An hour: longer is a mistake, and would keep systemd from ever starting the unit is_forced.
const LONGEST_DEADLINE_S: u64 = 3600;

/// What the fleet's owner decides for all units. Every key is optional; an unknown one is an error, so that a
/// mistyped key is not silently without effect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// PEM file with CA certificates, added to the usual roots.
    pub ca_file: Option<PathBuf>,
    /// The issuer that a token must name.
    pub issuer: String,
    /// The audience that a token must name; not checked where it is not set.
    pub audience: Option<String>,
    /// Whether a token must have a signature that can be checked.
    pub signature: SignaturePolicy,
    /// Seconds that one run tries for, 1 to 3600.
    pub deadline_s: u64,
    /// The API of a `device.conf` that names none.
    #[serde(deserialize_with = "parsed")]
    pub api_url: Option<ApiUrl>,
    /// The HTTP proxy that connections to the API are tunnelled through (CONNECT).
    #[serde(deserialize_with = "parsed")]
    pub proxy: Option<ProxyUrl>,
    /// When a token is renewed.
    pub renew: Renew,
    /// While this file exists, no call is made.
    pub hold_file: PathBuf,
}

/// When a token is renewed. A renewal ends the device's mission sessions on the server (G2b).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Renew {
    /// By the timer, when less than a third of its life is left.
    #[default]
    Ahead,
    /// By the timer until the device has been ready in this boot; after that when somebody asks for a token.
    OnDemand,
}

/// A value in the form of its `FromStr`.
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

/// The file can't be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum SettingsError {
    #[error("reading {}{}", path.display(), mode_hint(source))]
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
    /// Reads the file; where there is none, the defaults hold.
    ///
    /// # Errors
    /// What can't be read, is not TOML, or has an unknown key or a value out of range.
    pub fn read(paths: &Paths) -> Result<Self, SettingsError> {
        let path = &paths.settings();
        let mut text = String::new();
        // O_NONBLOCK: a FIFO in this place must not hang the boot.
        match File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
            Ok(file) => {
                warn_if_open(&file, path);
                file.take(LARGEST + 1).read_to_string(&mut text)
            }
            // A symlink to nowhere is no absence of policy.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !paths.has_settings() => {
                return Ok(Self::default());
            }
            Err(e) => Err(e),
        }
        .map_err(|source| SettingsError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// What a token for this account must say under this policy.
    pub fn expected<'a>(&'a self, email: &'a str) -> Expected<'a> {
        Expected { email, issuer: &self.issuer, audience: self.audience.as_deref(), signature: self.signature }
    }

    /// Reads the text of the file `path`.
    ///
    /// # Errors
    /// It is not TOML, or has an unknown key or a value out of range.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        if text.len() as u64 > LARGEST {
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

    fn check(&self) -> Result<(), &'static str> {
        if !(1..=LONGEST_DEADLINE_S).contains(&self.deadline_s) {
            return Err("deadline_s must be 1 to 3600 seconds");
        }
        if !self.hold_file.is_absolute() {
            return Err("hold_file must be an absolute path");
        }
        if HIDDEN.iter().any(|hidden| self.hold_file.starts_with(hidden)) {
            return Err(
                "hold_file is where the agent's service sees other files than all else, or none; put it below /run",
            );
        }
        if self.ca_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            return Err("ca_file must be an absolute path");
        }
        if self.issuer.is_empty() || self.audience.as_ref().is_some_and(String::is_empty) {
            return Err("issuer and audience must not be empty; leave the key out instead");
        }
        Ok(())
    }

    /// How long one run tries for.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_s)
    }
}

/// Whoever may write this file may add a CA of their own.
fn warn_if_open(file: &File, path: &Path) {
    if file.metadata().is_ok_and(|metadata| metadata.mode() & 0o022 != 0) {
        log::warn!("{} may be written by others than its owner; chmod 0644 it", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: what is there is obeyed, what is mistyped is an error with its line, never silently without effect.
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
            ("hold_file = \"/tmp/in-flight\"", Err("f: hold_file is where the agent's service sees")),
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
