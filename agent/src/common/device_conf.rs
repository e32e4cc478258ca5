//! `/etc/azaion/device.conf`: the file that the host writes and the device reads.
//!
//! It has `KEY=VALUE` lines that a POSIX shell, systemd's `EnvironmentFile=` and Python parse identically, so values never need
//! quotes. Parsing is strict; errors name the file and the line, never the content.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::api::url::{ApiUrl, ApiUrlError, is_plain_value};
use crate::common::clock::Timestamp;
use crate::common::identity::{Identity, Serial, is_assigned_serial};

mod keys;
mod open;

use keys::{API_URL, EMAIL, Fields, KEYS, MODULE_SERIAL, PROVISIONED_AT};
pub use open::{ConfFile, read_bounded};

/// The file's path inside a root file system.
pub const PATH: &str = "etc/azaion/device.conf";
/// The file's mode: only root has access.
pub const MODE: u32 = 0o600;
/// Maximum size of the file in bytes: one block of the file system.
pub const LARGEST: usize = 4096;

/// Maximum number of characters in a module's serial number.
const LONGEST_MODULE_SERIAL: usize = 64;

/// The content of a `device.conf`. `Debug` does not show the password.
#[derive(Clone, Debug)]
pub struct DeviceConf {
    /// The device's serial number, as the host wrote it.
    pub serial: Option<String>,
    /// The e-mail address of the device's account.
    pub email: String,
    /// The password of the device's account.
    pub password: SecretString,
    /// The admin API.
    pub api_url: ApiUrl,
    /// When the host wrote the file: a lower bound of the true time.
    pub provisioned_at: Option<Timestamp>,
    /// The serial number (in the device tree) of the module that this file is for; another module does not use the file.
    pub module_serial: Option<String>,
}

/// A `device.conf` cannot be read or is invalid.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{}", file.display(), line.map_or(String::new(), |line| format!(":{line}")))]
pub struct DeviceConfError {
    /// The file.
    pub file: PathBuf,
    /// The line with the error, counted from 1, if it is in one line.
    pub line: Option<usize>,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a `device.conf`.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum Problem {
    #[error("is missing; provision this device")]
    NoFile,
    #[error("can't be read")]
    Io(#[source] Arc<io::Error>),
    #[error("is a symlink; replace it with the file itself")]
    Symlink,
    #[error("is not a regular file")]
    NotAFile,
    #[error(
        "has mode {0:04o}: others could read or change the password; chmod 0600 it, and give the device a new password"
    )]
    Mode(u32),
    #[error("is larger than 4096 bytes")]
    TooLarge,
    #[error("starts with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    #[error("has a carriage return; save it with Unix line endings")]
    CarriageReturn,
    #[error("has a NUL byte")]
    Nul,
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("is not KEY=VALUE, a # comment or empty")]
    NotAnAssignment,
    #[error("has a value with a character other than A-Z a-z 0-9 @ % + = : , . / _ - (no quotes, no blanks)")]
    Character,
    #[error("sets {0} a second time")]
    Duplicate(&'static str),
    #[error("sets a key a second time")]
    DuplicateUnknown,
    #[error("sets {0} to an empty value")]
    Empty(&'static str),
    #[error("sets {} to something that is not an e-mail address", EMAIL.name)]
    Email,
    #[error("sets {key}: {0}", key = API_URL.name)]
    ApiUrl(ApiUrlError),
    #[error("sets {} to something that is not an RFC 3339 time in UTC", PROVISIONED_AT.name)]
    ProvisionedAt,
    #[error("sets {} to something longer than {LONGEST_MODULE_SERIAL} characters", MODULE_SERIAL.name)]
    ModuleSerial,
    #[error("does not set {0}; provision the device again")]
    Missing(&'static str),
}

impl DeviceConfError {
    /// Whether the only thing missing is the URL of the API.
    pub fn lacks_api_url(&self) -> bool {
        matches!(self.problem, Problem::Missing(name) if name == API_URL.name)
    }

    /// Whether the caller lacks the permission to read the file, because it does not run as root.
    pub fn is_permission_denied(&self) -> bool {
        matches!(&self.problem, Problem::Io(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl DeviceConf {
    /// Returns the identity of the device.
    ///
    /// A file of another program may have no serial; if the server assigned the identity, the e-mail address contains it.
    pub fn identity(&self) -> Option<Identity> {
        let assigned = || self.email.split('@').next().filter(|user| is_assigned_serial(user)).map(str::to_owned);
        Some(Identity { serial: self.serial.clone().or_else(assigned)?, email: self.email.clone() })
    }

    /// Renders the file's text; [`DeviceConf::parse`] is the inverse.
    pub fn render(&self) -> SecretString {
        let mut text = Zeroizing::new(String::with_capacity(LARGEST));
        for key in KEYS {
            if let Some(value) = (key.render)(self) {
                for part in [key.name, "=", &value, "\n"] {
                    text.push_str(part);
                }
            }
        }
        SecretString::from(text.as_str())
    }

    /// Whether the file belongs to the device with this serial. A file of another program may have only the e-mail address.
    pub fn is_of(&self, serial: &Serial) -> bool {
        self.email == serial.email() && self.serial.as_deref().is_none_or(|own| own == serial.as_str())
    }

    /// Returns the name of the device for messages: its serial, or else its e-mail address.
    pub fn whose(&self) -> &str {
        self.serial.as_deref().unwrap_or(&self.email)
    }

    /// Parses the bytes of a file that has to name the API; `file` is used only in errors and warnings.
    ///
    /// # Errors
    /// A violation of the format, with its line.
    pub fn parse(bytes: &[u8], file: &Path) -> Result<Self, DeviceConfError> {
        Self::parse_with(bytes, file, None)
    }

    /// Parses the bytes of a file as [`DeviceConf::parse`]; `default_api` is the API of a file that names none.
    ///
    /// # Errors
    /// As [`DeviceConf::parse`].
    pub fn parse_with(bytes: &[u8], file: &Path, default_api: Option<&ApiUrl>) -> Result<Self, DeviceConfError> {
        let fail = |line, problem| DeviceConfError { file: file.to_owned(), line, problem };
        let text = decode(bytes).map_err(|(line, problem)| fail(line, problem))?;
        let mut fields = Fields::default();
        for (number, line) in (1..).zip(text.split('\n')) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let is_known = fields.parse_line(line).map_err(|problem| fail(Some(number), problem))?;
            if !is_known {
                log::warn!("{}:{number}: unknown key ignored", file.display());
            }
        }
        fields.finish(default_api).map_err(|problem| fail(None, problem))
    }

    /// Opens `path`, refuses a file that other users can have read or changed, and parses it.
    ///
    /// # Errors
    /// As [`ConfFile::open`] and [`ConfFile::read`].
    pub fn read(path: &Path) -> Result<Self, DeviceConfError> {
        ConfFile::open(path)?.read(None)
    }
}

/// Checks size and encoding of the whole file, before any line is parsed.
fn decode(bytes: &[u8]) -> Result<&str, (Option<usize>, Problem)> {
    let line_at = |index: usize| Some(1 + bytes.iter().take(index).filter(|&&b| b == b'\n').count());
    if bytes.len() > LARGEST {
        return Err((None, Problem::TooLarge));
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err((Some(1), Problem::ByteOrderMark));
    }
    if let Some(index) = bytes.iter().position(|&b| b == 0) {
        return Err((line_at(index), Problem::Nul));
    }
    if let Some(index) = bytes.iter().position(|&b| b == b'\r') {
        return Err((line_at(index), Problem::CarriageReturn));
    }
    std::str::from_utf8(bytes).map_err(|e| (line_at(e.valid_up_to()), Problem::NotUtf8))
}

/// Whether a text is a valid serial number of a module.
pub fn is_module_serial(text: &str) -> bool {
    is_plain_value(text) && (1..=LONGEST_MODULE_SERIAL).contains(&text.len())
}

/// Whether a module's serial number is a placeholder: empty, or only zeros, blanks or bytes 0xFF, as in modules without a number.
pub fn is_placeholder_serial(serial: &[u8]) -> bool {
    let serial = serial.trim_ascii();
    [b'0', 0, 0xFF].iter().any(|filler| serial.iter().all(|byte| byte == filler))
}

/// Whether a text has the form of an e-mail address.
pub fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
}

#[cfg(test)]
mod tests;
