//! The identity of a device: its serial, and the e-mail address, role and password of its account.

use std::fmt;
use std::str::FromStr;

use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// The role of every device's account on the admin API.
pub const ROLE: &str = "CompanionPC";

/// The number of that role, which some servers require instead of its name.
pub const ROLE_NUMBER: u32 = 30;

/// Number of characters in a device's password, each from `[A-Za-z0-9]`: 190 bits of entropy.
pub const PASSWORD_LENGTH: usize = 32;

const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const PREFIX: &str = "AZJN-";
const ASSIGNED_PREFIX: &str = "azj-";
const LONGEST_NUMBER: usize = 32;

/// A device's serial number: `AZJN-` and 1 to 32 of `[A-Z0-9]`.
///
/// Lower case is refused instead of converted, because two serials must never share one e-mail address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial(String);

/// Why a text is not a serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// A serial that the server assigned.
    #[error("azj-… serials are assigned by the server; use --server-assigned instead of a serial")]
    Assigned,
    /// It does not start with `AZJN-`.
    #[error("a serial starts with AZJN-, as in AZJN-0042")]
    Prefix,
    /// Nothing, or more than 32 characters, after `AZJN-`.
    #[error("a serial has 1 to 32 characters after AZJN-, as in AZJN-0042")]
    Length,
    /// A lower-case letter.
    #[error("a serial is written in capitals, as in AZJN-00AF")]
    LowerCase,
    /// Any other character.
    #[error("a serial has only A to Z and 0 to 9 after AZJN-, as in AZJN-0042")]
    Character,
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let number = text.strip_prefix(PREFIX).ok_or_else(|| {
            let folded = text.to_ascii_uppercase();
            match () {
                () if folded.starts_with(PREFIX) => SerialError::LowerCase,
                () if is_assigned_serial(text) => SerialError::Assigned,
                () => SerialError::Prefix,
            }
        })?;
        let is_allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        if number.chars().all(is_allowed) {
            return match number.len() {
                1..=LONGEST_NUMBER => Ok(Self(text.to_owned())),
                _ => Err(SerialError::Length),
            };
        }
        let only_case = number.chars().all(|c| c.is_ascii_alphanumeric());
        Err(if only_case { SerialError::LowerCase } else { SerialError::Character })
    }
}

impl Serial {
    /// Returns the serial as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the e-mail address of the device's account: `AZJN-0042` → `azaion-jetson-0042@azaion.com`.
    pub fn email(&self) -> String {
        let number = self.0.rsplit('-').next().unwrap_or_default();
        format!("azaion-jetson-{}@azaion.com", number.to_ascii_lowercase())
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a device on the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The device's serial, as `device.conf` and messages show it.
    pub serial: String,
    /// The e-mail address of its account.
    pub email: String,
}

impl From<&Serial> for Identity {
    fn from(serial: &Serial) -> Self {
        Self { serial: serial.to_string(), email: serial.email() }
    }
}

/// Whether a text is a serial that the server assigned (`POST /devices`), such as `azj-0007`.
pub fn is_assigned_serial(text: &str) -> bool {
    let number = text.strip_prefix(ASSIGNED_PREFIX);
    number.is_some_and(|number| {
        (1..=LONGEST_NUMBER).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// Generates a password from the system's random source (`getrandom(2)`).
///
/// # Errors
/// The random source can't be read; the caller has to give up.
pub fn new_password() -> Result<SecretString, rand::rngs::SysError> {
    let mut characters = Zeroizing::new(String::with_capacity(PASSWORD_LENGTH));
    let mut random = Zeroizing::new([0; 2 * PASSWORD_LENGTH]);
    while characters.len() < PASSWORD_LENGTH {
        SysRng.try_fill_bytes(&mut *random)?;
        // Six bits are a number below 64. The two values without a character are dropped, so that all are equally likely.
        let drawn = random.iter().filter_map(|byte| ALPHANUMERIC.get(usize::from(byte >> 2)));
        let missing = PASSWORD_LENGTH - characters.len();
        characters.extend(drawn.take(missing).copied().map(char::from));
    }
    Ok(SecretString::from(characters.as_str()))
}

/// Whether a password has the form that [`new_password`] generates.
pub fn is_generated_password(password: &SecretString) -> bool {
    let password = password.expose_secret().as_bytes();
    password.len() == PASSWORD_LENGTH && password.iter().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use secrecy::ExposeSecret;

    use super::*;

    // Promise: the e-mail address contains the part of the serial after the last hyphen, in lower case.
    #[test]
    fn email_follows_from_the_serial() {
        for (serial, email) in [
            ("AZJN-0042", "azaion-jetson-0042@azaion.com"),
            ("AZJN-00AF", "azaion-jetson-00af@azaion.com"),
            ("AZJN-X", "azaion-jetson-x@azaion.com"),
        ] {
            assert_eq!(serial.parse::<Serial>().unwrap().email(), email);
        }
    }

    // Promise: a serial is `AZJN-` and 1 to 32 capital letters and digits; any other text is refused with the reason.
    #[test]
    fn serials_are_checked() {
        let longest = format!("AZJN-{}", "0".repeat(32));
        let too_long = format!("{longest}0");
        for (text, refused) in [
            ("AZJN-0042", None),
            ("AZJN-A", None),
            (&longest, None),
            (&too_long, Some(SerialError::Length)),
            ("AZJN-", Some(SerialError::Length)),
            ("AZJN-00af", Some(SerialError::LowerCase)),
            ("azjn-0042", Some(SerialError::LowerCase)),
            ("AZJN-0042-1", Some(SerialError::Character)),
            ("AZJN-\u{dc}", Some(SerialError::Character)),
            ("AZJN0042", Some(SerialError::Prefix)),
            ("azj-0007", Some(SerialError::Assigned)),
            ("azj-", Some(SerialError::Prefix)),
            ("azj-00/7", Some(SerialError::Prefix)),
            ("", Some(SerialError::Prefix)),
        ] {
            let serial = text.parse::<Serial>();
            assert_eq!(serial.as_ref().err().copied(), refused, "{text}");
            if let Ok(serial) = serial {
                assert_eq!((serial.as_str(), serial.to_string().as_str()), (text, text));
            }
        }
    }

    // Promise: a password has 32 characters from [A-Za-z0-9], no two are equal, and every character occurs.
    #[test]
    fn passwords_are_random_and_plain() {
        let passwords: Vec<_> = (0..400).map(|_| new_password().unwrap()).collect();
        let texts: HashSet<&str> = passwords.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(texts.len(), 400);
        assert!(texts.iter().all(|t| t.len() == 32 && t.bytes().all(|b| b.is_ascii_alphanumeric())));
        let seen: HashSet<u8> = texts.iter().flat_map(|t| t.bytes()).collect();
        assert_eq!(seen.len(), 62);
    }
}
