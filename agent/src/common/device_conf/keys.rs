//! The keys of `device.conf`: one table from which parsing and rendering follow.

use std::borrow::Cow;
use std::collections::HashSet;

use secrecy::{ExposeSecret, SecretString};

use crate::api::url::{ApiUrl, is_plain_value};
use crate::common::clock::Timestamp;

use super::{DeviceConf, Problem, is_email, is_module_serial};

/// A key of `device.conf`: its name, and how its value is parsed and rendered.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Parses a value, which is not empty and has only plain characters.
    parse: for<'a> fn(&mut Fields<'a>, &'a str) -> Result<(), Problem>,
    /// Returns the value to write; `None` leaves the line out.
    pub(super) render: fn(&DeviceConf) -> Option<Cow<'_, str>>,
}

/// All keys, in the order in which they are written.
pub(super) const KEYS: [&Key; 6] = [&SERIAL, &EMAIL, &PASSWORD, &API_URL, &PROVISIONED_AT, &MODULE_SERIAL];

/// The device's serial number.
const SERIAL: Key = Key {
    name: "AZAION_DEVICE_SERIAL",
    parse: |fields, value| {
        fields.serial = Some(value);
        Ok(())
    },
    render: |conf| conf.serial.as_deref().map(Cow::Borrowed),
};

/// The e-mail address of the device's account.
pub(super) const EMAIL: Key = Key {
    name: "AZAION_DEVICE_EMAIL",
    parse: |fields, value| {
        fields.email = Some(value).filter(|value| is_email(value)).ok_or(Problem::Email).map(Some)?;
        Ok(())
    },
    render: |conf| Some(Cow::Borrowed(&conf.email)),
};

/// The password of the device's account.
const PASSWORD: Key = Key {
    name: "AZAION_DEVICE_PASSWORD",
    parse: |fields, value| {
        fields.password = Some(value);
        Ok(())
    },
    render: |conf| Some(Cow::Borrowed(conf.password.expose_secret())),
};

/// The URL of the admin API.
pub(super) const API_URL: Key = Key {
    name: "AZAION_API_URL",
    parse: |fields, value| {
        fields.api_url = Some(value.parse().map_err(Problem::ApiUrl)?);
        Ok(())
    },
    render: |conf| Some(Cow::Borrowed(conf.api_url.as_str())),
};

/// The time at which the host wrote the file.
pub(super) const PROVISIONED_AT: Key = Key {
    name: "AZAION_PROVISIONED_AT",
    parse: |fields, value| {
        fields.provisioned_at = Some(value.parse().map_err(|_| Problem::ProvisionedAt)?);
        Ok(())
    },
    render: |conf| conf.provisioned_at.map(|time| Cow::Owned(time.to_string())),
};

/// The serial number of the module that the file is for.
pub(super) const MODULE_SERIAL: Key = Key {
    name: "AZAION_MODULE_SERIAL",
    parse: |fields, value| {
        fields.module_serial =
            Some(value).filter(|value| is_module_serial(value)).ok_or(Problem::ModuleSerial).map(Some)?;
        Ok(())
    },
    render: |conf| conf.module_serial.as_deref().map(Cow::Borrowed),
};

/// The values parsed so far, and the keys seen so far.
#[derive(Default)]
pub(super) struct Fields<'a> {
    seen: HashSet<&'a str>,
    serial: Option<&'a str>,
    email: Option<&'a str>,
    password: Option<&'a str>,
    api_url: Option<ApiUrl>,
    provisioned_at: Option<Timestamp>,
    module_serial: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Parses one assignment; returns whether its key is known.
    pub(super) fn parse_line(&mut self, line: &'a str) -> Result<bool, Problem> {
        let (name, value) =
            line.split_once('=').filter(|(name, _)| is_key_name(name)).ok_or(Problem::NotAnAssignment)?;
        let key = KEYS.into_iter().find(|key| key.name == name);
        if !self.seen.insert(name) {
            return Err(key.map_or(Problem::DuplicateUnknown, |key| Problem::Duplicate(key.name)));
        }
        if !is_plain_value(value) {
            return Err(Problem::Character);
        }
        let Some(key) = key else { return Ok(false) };
        if value.is_empty() {
            return Err(Problem::Empty(key.name));
        }
        (key.parse)(self, value)?;
        Ok(true)
    }

    /// Returns the configuration; `default_api` is the API of a file that names none.
    pub(super) fn finish(self, default_api: Option<&ApiUrl>) -> Result<DeviceConf, Problem> {
        let missing = |key: &Key| Problem::Missing(key.name);
        Ok(DeviceConf {
            serial: self.serial.map(str::to_owned),
            email: self.email.ok_or(missing(&EMAIL))?.to_owned(),
            password: SecretString::from(self.password.ok_or(missing(&PASSWORD))?),
            api_url: self.api_url.or_else(|| default_api.cloned()).ok_or(missing(&API_URL))?,
            provisioned_at: self.provisioned_at,
            module_serial: self.module_serial.map(str::to_owned),
        })
    }
}

/// Whether a POSIX shell accepts the name as that of a variable.
fn is_key_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
}
