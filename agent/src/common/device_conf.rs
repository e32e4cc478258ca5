//! `/etc/azaion/device.conf`: the one format that the station writes and the device reads.
//!
//! `KEY=VALUE` lines that a POSIX shell, systemd's `EnvironmentFile=` and Python all read alike, so no
//! quoting is ever needed. Parsing is strict and names file and line, never the content.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::geteuid;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::api::url::{ApiUrl, ApiUrlError, is_plain_value};
use crate::common::clock::Timestamp;
use crate::common::identity::{Identity, Serial, is_assigned_serial};
use crate::common::private_file::kind_of;

/// Where the file lies inside a root file system.
pub const PATH: &str = "etc/azaion/device.conf";
/// The file's mode: for root alone.
pub const MODE: u32 = 0o600;
/// Bytes that the file may have at most: one block of the file system.
pub const LARGEST: usize = 4096;
/// Mode bits that let somebody else read or change the password.
const FORBIDDEN_BITS: u32 = 0o027;

const SERIAL: &str = "AZAION_DEVICE_SERIAL";
const EMAIL: &str = "AZAION_DEVICE_EMAIL";
const PASSWORD: &str = "AZAION_DEVICE_PASSWORD";
const API_URL: &str = "AZAION_API_URL";
const PROVISIONED_AT: &str = "AZAION_PROVISIONED_AT";
const MODULE_SERIAL: &str = "AZAION_MODULE_SERIAL";

const KNOWN: [&str; 6] = [SERIAL, EMAIL, PASSWORD, API_URL, PROVISIONED_AT, MODULE_SERIAL];
/// Characters that a module's serial number may have.
const LONGEST_MODULE_SERIAL: usize = 64;

/// What a device knows about itself. `Debug` does not show the password.
#[derive(Clone, Debug)]
pub struct DeviceConf {
    /// The device's serial, as the station wrote it.
    pub serial: Option<String>,
    /// The e-mail of its account.
    pub email: String,
    /// The password of its account.
    pub password: SecretString,
    /// The admin API.
    pub api_url: ApiUrl,
    /// When the station wrote the file: a time that has certainly passed.
    pub provisioned_at: Option<Timestamp>,
    /// The module that this is for, by the serial number in its device tree; on another one it is not used.
    pub module_serial: Option<String>,
}

/// A file that is not a `device.conf`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{}", file.display(), line.map_or(String::new(), |line| format!(":{line}")))]
pub struct DeviceConfError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a `device.conf`.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum Problem {
    #[error("is missing; provision this unit")]
    NoFile,
    #[error("can't be read")]
    Io(#[source] Arc<io::Error>),
    #[error("is a symlink; put the file itself there")]
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
    #[error("has a carriage return; save it with Unix line ends")]
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
    #[error("sets {0} to nothing")]
    Empty(&'static str),
    #[error("sets {EMAIL} to something that is not an e-mail address")]
    Email,
    #[error("sets {API_URL}: {0}")]
    ApiUrl(ApiUrlError),
    #[error("sets {PROVISIONED_AT} to something that is not an RFC 3339 time in UTC")]
    ProvisionedAt,
    #[error("sets {MODULE_SERIAL} to something longer than {LONGEST_MODULE_SERIAL} characters")]
    ModuleSerial,
    #[error("does not set {0}; provision the device again")]
    Missing(&'static str),
}

impl DeviceConfError {
    /// Whether it lacks nothing but the address of the API.
    pub fn lacks_api_url(&self) -> bool {
        matches!(self.problem, Problem::Missing(API_URL))
    }

    /// Whether the caller is simply not root.
    pub fn is_permission_denied(&self) -> bool {
        matches!(&self.problem, Problem::Io(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl DeviceConf {
    /// Whose it is. One of another program may have no serial, which the e-mail of an identity that the server has made says, too.
    pub fn identity(&self) -> Option<Identity> {
        let assigned = || self.email.split('@').next().filter(|user| is_assigned_serial(user)).map(str::to_owned);
        Some(Identity { serial: self.serial.clone().or_else(assigned)?, email: self.email.clone() })
    }

    /// The file's text. [`DeviceConf::parse`] gives back what was rendered.
    pub fn render(&self) -> SecretString {
        let mut text = Zeroizing::new(String::with_capacity(LARGEST));
        let mut line = |key: &str, value: &str| {
            for part in [key, "=", value, "\n"] {
                text.push_str(part);
            }
        };
        if let Some(serial) = &self.serial {
            line(SERIAL, serial);
        }
        line(EMAIL, &self.email);
        line(PASSWORD, self.password.expose_secret());
        line(API_URL, self.api_url.as_str());
        if let Some(time) = self.provisioned_at {
            line(PROVISIONED_AT, &time.to_string());
        }
        if let Some(module) = &self.module_serial {
            line(MODULE_SERIAL, module);
        }
        SecretString::from(text.as_str())
    }

    /// Whether it is that of the device with this serial. A file of another program may have the e-mail alone.
    pub fn is_of(&self, serial: &Serial) -> bool {
        self.email == serial.email() && self.serial.as_deref().is_none_or(|own| own == serial.as_str())
    }

    /// Who it is about, for people.
    pub fn whose(&self) -> &str {
        self.serial.as_deref().unwrap_or(&self.email)
    }

    /// Parses the bytes of a file that has to name the API; `file` is only named in errors and warnings.
    ///
    /// # Errors
    /// Whatever does not follow the format, with the line to blame.
    pub fn parse(bytes: &[u8], file: &Path) -> Result<Self, DeviceConfError> {
        Self::parse_with(bytes, file, None)
    }

    /// The same, where a file without an address means the API `default_api`.
    ///
    /// # Errors
    /// As [`DeviceConf::parse`].
    pub fn parse_with(bytes: &[u8], file: &Path, default_api: Option<&ApiUrl>) -> Result<Self, DeviceConfError> {
        let fail = |line, problem| DeviceConfError { file: file.to_owned(), line, problem };
        let text = text_of(bytes).map_err(|(line, problem)| fail(line, problem))?;
        let mut fields = Fields { default_api, ..Fields::default() };
        for (number, line) in (1..).zip(text.split('\n')) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let is_known = fields.take(line).map_err(|problem| fail(Some(number), problem))?;
            if !is_known {
                log::warn!("{}:{number}: unknown key ignored", file.display());
            }
        }
        fields.finish().map_err(|problem| fail(None, problem))
    }

    /// Opens `path`, refuses what others could have read or changed, and parses it.
    ///
    /// # Errors
    /// As [`ConfFile::open`] and [`ConfFile::read`].
    pub fn read(path: &Path) -> Result<Self, DeviceConfError> {
        ConfFile::open(path)?.read(None)
    }
}

/// An open `device.conf` that others could neither have read nor changed. Who has it can read it without the right to open
/// it.
#[derive(Debug)]
pub struct ConfFile {
    path: PathBuf,
    file: File,
    fingerprint: String,
}

impl ConfFile {
    /// Opens `path`; its content is not looked at yet.
    ///
    /// # Errors
    /// A symlink, something that is not a file, a mode that lets others in, an I/O error.
    pub fn open(path: &Path) -> Result<Self, DeviceConfError> {
        let fail = |problem| DeviceConfError { file: path.to_owned(), line: None, problem };
        let file = open_private(path).map_err(fail)?;
        let metadata = file.metadata().map_err(|e| fail(Problem::Io(e.into())))?;
        let (inode, size) = (metadata.ino(), metadata.size());
        let changed = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        let [mtime, mtime_nsec, ctime, ctime_nsec] = changed;
        let fingerprint = format!("{inode}:{mtime}.{mtime_nsec}:{ctime}.{ctime_nsec}:{size}");
        Ok(Self { path: path.to_owned(), file, fingerprint })
    }

    /// Reads and parses it from its start; `default_api` is the API of a file that names none.
    ///
    /// # Errors
    /// As [`DeviceConf::parse`]; besides an I/O error.
    pub fn read(&self, default_api: Option<&ApiUrl>) -> Result<DeviceConf, DeviceConfError> {
        let mut file = &self.file;
        let bytes = file.rewind().and_then(|()| read_bounded(file)).map_err(|error| DeviceConfError {
            file: self.path.clone(),
            line: None,
            problem: Problem::Io(error.into()),
        })?;
        DeviceConf::parse_with(&bytes, &self.path, default_api)
    }

    /// A text that changes whenever the file is replaced or written to, and tells nothing of its content. It is that of
    /// the moment when the file was opened.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn open_private(path: &Path) -> Result<File, Problem> {
    let io = |errno: nix::errno::Errno| Problem::Io(Arc::new(errno.into()));
    // O_NONBLOCK: a FIFO in this place must not hang the boot.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(|errno| match errno {
        nix::errno::Errno::ELOOP => Problem::Symlink,
        nix::errno::Errno::ENOENT => Problem::NoFile,
        other => io(other),
    })?;
    let stat = fstat(&file).map_err(io)?;
    if kind_of(&stat) != SFlag::S_IFREG {
        return Err(Problem::NotAFile);
    }
    if stat.st_mode & FORBIDDEN_BITS != 0 {
        return Err(Problem::Mode(stat.st_mode & 0o7777));
    }
    if stat.st_uid != 0 && geteuid().is_root() {
        // Not refused: an image builder that maps owners wrongly must not put a unit out of service.
        log::warn!("{} belongs to user {}, who can change it; chown it to root", path.display(), stat.st_uid);
    }
    Ok(File::from(file))
}

/// Reads at most one byte more than a `device.conf` may have, so that parsing sees that it is too large.
///
/// # Errors
/// The I/O error.
pub fn read_bounded(file: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST + 1));
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Size and encoding, judged before any line is.
fn text_of(bytes: &[u8]) -> Result<&str, (Option<usize>, Problem)> {
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

/// The values as they come, and the keys seen so far.
#[derive(Default)]
struct Fields<'a> {
    default_api: Option<&'a ApiUrl>,
    seen: HashSet<&'a str>,
    serial: Option<&'a str>,
    email: Option<&'a str>,
    password: Option<&'a str>,
    api_url: Option<ApiUrl>,
    provisioned_at: Option<Timestamp>,
    module_serial: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Takes one assignment; whether its key is known.
    fn take(&mut self, line: &'a str) -> Result<bool, Problem> {
        let (key, value) = line.split_once('=').filter(|(key, _)| is_key(key)).ok_or(Problem::NotAnAssignment)?;
        let known = KNOWN.into_iter().find(|&known| known == key);
        if !self.seen.insert(key) {
            return Err(known.map_or(Problem::DuplicateUnknown, Problem::Duplicate));
        }
        if !is_plain_value(value) {
            return Err(Problem::Character);
        }
        let Some(known) = known else { return Ok(false) };
        if value.is_empty() {
            return Err(Problem::Empty(known));
        }
        match known {
            SERIAL => self.serial = Some(value),
            EMAIL => self.email = Some(value).filter(|v| is_email(v)).ok_or(Problem::Email).map(Some)?,
            PASSWORD => self.password = Some(value),
            API_URL => self.api_url = Some(value.parse().map_err(Problem::ApiUrl)?),
            PROVISIONED_AT => self.provisioned_at = Some(value.parse().map_err(|_| Problem::ProvisionedAt)?),
            _ if is_module_serial(value) => self.module_serial = Some(value),
            _ => return Err(Problem::ModuleSerial),
        }
        Ok(true)
    }

    fn finish(self) -> Result<DeviceConf, Problem> {
        Ok(DeviceConf {
            serial: self.serial.map(str::to_owned),
            email: self.email.ok_or(Problem::Missing(EMAIL))?.to_owned(),
            password: SecretString::from(self.password.ok_or(Problem::Missing(PASSWORD))?),
            api_url: self.api_url.or_else(|| self.default_api.cloned()).ok_or(Problem::Missing(API_URL))?,
            provisioned_at: self.provisioned_at,
            module_serial: self.module_serial.map(str::to_owned),
        })
    }
}

/// Whether a text can stand for a module's serial number.
pub fn is_module_serial(text: &str) -> bool {
    is_plain_value(text) && (1..=LONGEST_MODULE_SERIAL).contains(&text.len())
}

/// Whether a module's serial number is none: modules without one have zeros, blanks or bytes 0xFF in its place, or nothing.
pub fn is_placeholder_serial(serial: &[u8]) -> bool {
    let serial = serial.trim_ascii();
    [b'0', 0, 0xFF].iter().any(|filler| serial.iter().all(|byte| byte == filler))
}

/// A name that a POSIX shell takes as a variable.
fn is_key(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && !key.is_empty()
}

/// Whether a text has the form of an e-mail address.
pub fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
}

#[cfg(test)]
mod tests;
