//! Checks that this is the module that the device's image was made for.
//!
//! This guards against mix-ups, but proves nothing: a module's serial number is no secret, and a person who can change
//! the image can change `device.conf`.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::common::device_conf::{DeviceConf, is_placeholder_serial};

use super::paths::Paths;

/// The maximum number of bytes read of a serial number. `device.conf` can't hold one of this length, so a longer one
/// never matches.
const MAX_SERIAL: u64 = 256;

/// The result of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Board {
    /// `device.conf` names no module, or a placeholder, so every module is accepted.
    Any,
    /// The device has the module that `device.conf` names.
    Right(String),
    /// The serial number of the module can't be read, for this reason.
    Unknown(String),
}

/// The image of another device is on this module: its credentials must not be used here.
#[derive(Debug, thiserror::Error)]
#[error(
    "device.conf belongs to {whose} on the module {wanted}, but this is the module {found}; flash this device with its own \
     image, or, to use this module for {whose}, provision it again with --module-serial {found}"
)]
pub struct WrongBoard {
    whose: String,
    wanted: String,
    found: String,
}

/// Compares the module serial in `device.conf` with the one in the device tree.
///
/// # Errors
/// They differ.
pub fn check(paths: &Paths, conf: &DeviceConf) -> Result<Board, WrongBoard> {
    let wanted = conf.module_serial.as_ref().filter(|wanted| !is_placeholder_serial(wanted.as_bytes()));
    let Some(wanted) = wanted else { return Ok(Board::Any) };
    match module_serial(paths) {
        Err(why) => Ok(Board::Unknown(why)),
        Ok(found) if found == wanted.as_bytes() => Ok(Board::Right(wanted.clone())),
        Ok(found) => {
            // For a message: the device tree may hold any bytes.
            let found = found.escape_ascii().to_string();
            Err(WrongBoard { whose: conf.whose().to_owned(), wanted: wanted.clone(), found })
        }
    }
}

/// Reads the module's serial number, or returns the reason why it is not known.
fn module_serial(paths: &Paths) -> Result<Vec<u8>, String> {
    let [usual, other] = paths.module_serial();
    let bytes = match read(&usual) {
        Err(_) if other.exists() => read(&other).map_err(|error| format!("{}: {error}", other.display()))?,
        read => read.map_err(|error| format!("{}: {error}", usual.display()))?,
    };
    // A string in a device tree ends with a NUL.
    let end = bytes.iter().rposition(|byte| ![b'\0', b'\n'].contains(byte)).map_or(0, |last| last + 1);
    match bytes.get(..end).unwrap_or_default() {
        [] => Err("the device tree has an empty serial number".to_owned()),
        serial if is_placeholder_serial(serial) => {
            Err(format!("the device tree has a placeholder for the serial number ({})", excerpt(serial)))
        }
        serial => Ok(serial.to_vec()),
    }
}

/// Returns the start of the serial number for a message, with escapes for bytes that are not printable.
fn excerpt(serial: &[u8]) -> String {
    serial.get(..16).unwrap_or(serial).escape_ascii().to_string()
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // O_NONBLOCK: a FIFO in this place must not hang the boot.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file)?;
    file.take(MAX_SERIAL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
