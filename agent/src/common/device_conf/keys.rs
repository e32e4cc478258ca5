//! The keys of `device.conf`: one table from which parsing and rendering follow.

use std::borrow::Cow;
use std::collections::HashSet;

use secrecy::{ExposeSecret, SecretString};

use crate::api::url::{ApiUrl, is_plain_value};
use crate::common::clock::Timestamp;

use super::{DeviceConf, Problem, is_email, is_module_serial};

/// Defines [`Key`] from a table with one entry per key.
///
/// A key exists only as an entry of this table, and an entry without a name, a parser or a renderer does not compile.
macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident = $name:literal { parse: $parse:expr, render: $render:expr })*) => {
        /// A key of `device.conf`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Key {
            $($(#[$doc])* $key,)*
        }

        impl Key {
            /// All keys, in the order in which they are written.
            pub(super) const ALL: &[Self] = &[$(Self::$key),*];

            /// Returns the key's name in the file.
            pub(super) const fn name(self) -> &'static str {
                match self {
                    $(Self::$key => $name,)*
                }
            }

            /// Parses a value of this key into `fields`. The value is not empty and has only plain characters.
            fn parse<'a>(self, fields: &mut Fields<'a>, value: &'a str) -> Result<(), Problem> {
                let parse: fn(&mut Fields<'a>, &'a str) -> Result<(), Problem> = match self {
                    $(Self::$key => $parse,)*
                };
                parse(fields, value)
            }

            /// Returns the value to write for this key; `None` leaves the line out.
            pub(super) fn render(self, conf: &DeviceConf) -> Option<Cow<'_, str>> {
                let render: fn(&DeviceConf) -> Option<Cow<'_, str>> = match self {
                    $(Self::$key => $render,)*
                };
                render(conf)
            }
        }
    };
}

keys! {
    /// The device's serial number.
    Serial = "AZAION_DEVICE_SERIAL" {
        parse: |fields, value| {
            fields.serial = Some(value);
            Ok(())
        },
        render: |conf| conf.serial.as_deref().map(Cow::Borrowed)
    }

    /// The e-mail address of the device's account.
    Email = "AZAION_DEVICE_EMAIL" {
        parse: |fields, value| {
            fields.email = Some(value).filter(|value| is_email(value)).ok_or(Problem::Email).map(Some)?;
            Ok(())
        },
        render: |conf| Some(Cow::Borrowed(&conf.email))
    }

    /// The password of the device's account.
    Password = "AZAION_DEVICE_PASSWORD" {
        parse: |fields, value| {
            fields.password = Some(value);
            Ok(())
        },
        render: |conf| Some(Cow::Borrowed(conf.password.expose_secret()))
    }

    /// The URL of the admin API.
    ApiUrl = "AZAION_API_URL" {
        parse: |fields, value| {
            fields.api_url = Some(value.parse().map_err(Problem::ApiUrl)?);
            Ok(())
        },
        render: |conf| Some(Cow::Borrowed(conf.api_url.as_str()))
    }

    /// The time at which the host wrote the file.
    ProvisionedAt = "AZAION_PROVISIONED_AT" {
        parse: |fields, value| {
            fields.provisioned_at = Some(value.parse().map_err(|_| Problem::ProvisionedAt)?);
            Ok(())
        },
        render: |conf| conf.provisioned_at.map(|time| Cow::Owned(time.to_string()))
    }

    /// The serial number of the module that the file is for.
    ModuleSerial = "AZAION_MODULE_SERIAL" {
        parse: |fields, value| {
            fields.module_serial =
                Some(value).filter(|value| is_module_serial(value)).ok_or(Problem::ModuleSerial).map(Some)?;
            Ok(())
        },
        render: |conf| conf.module_serial.as_deref().map(Cow::Borrowed)
    }
}

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
        let key = Key::ALL.iter().copied().find(|key| key.name() == name);
        if !self.seen.insert(name) {
            return Err(key.map_or(Problem::DuplicateUnknown, |key| Problem::Duplicate(key.name())));
        }
        if !is_plain_value(value) {
            return Err(Problem::Character);
        }
        let Some(key) = key else { return Ok(false) };
        if value.is_empty() {
            return Err(Problem::Empty(key.name()));
        }
        key.parse(self, value)?;
        Ok(true)
    }

    /// Returns the configuration; `default_api` is the API of a file that names none.
    pub(super) fn finish(self, default_api: Option<&ApiUrl>) -> Result<DeviceConf, Problem> {
        let missing = |key: Key| Problem::Missing(key.name());
        Ok(DeviceConf {
            serial: self.serial.map(str::to_owned),
            email: self.email.ok_or(missing(Key::Email))?.to_owned(),
            password: SecretString::from(self.password.ok_or(missing(Key::Password))?),
            api_url: self.api_url.or_else(|| default_api.cloned()).ok_or(missing(Key::ApiUrl))?,
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
