//! Whether this is the board that the unit's image was made for.
//!
//! A guard against mix-ups, and no proof: a module's serial number is no secret, and whoever can change the image can
//! change what it asks for.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::common::device_conf::{DeviceConf, is_placeholder_serial};

use super::paths::Paths;

/// Bytes of a serial number that are looked at: more than a `device.conf` can name, so that a longer one is another.
const LOOKED_AT: u64 = 256;

/// What is known of the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Board {
    /// `device.conf` names no module, or only a placeholder: any will do.
    Any,
    /// It has the module that `device.conf` names.
    Right(String),
    /// Which module it has is not known, and why not: such boards can't be told apart.
    Unknown(String),
}

/// Another unit's image is on this board: its credentials must not be used here.
#[derive(Debug, thiserror::Error)]
#[error(
    "device.conf is that of {whose} on the module {wanted}, and this is the module {found}; flash this unit with its own \
     image, or, if {whose} is to be on this module, provision it again with --module-serial {found}"
)]
pub struct WrongBoard {
    whose: String,
    wanted: String,
    found: String,
}

/// Compares the module that `device.conf` names with the one that the device tree does.
///
/// # Errors
/// It is another one.
pub fn check(paths: &Paths, conf: &DeviceConf) -> Result<Board, WrongBoard> {
    let wanted = conf.module_serial.as_ref().filter(|wanted| !is_placeholder_serial(wanted.as_bytes()));
    let Some(wanted) = wanted else { return Ok(Board::Any) };
    match module_serial(paths) {
        Err(why) => Ok(Board::Unknown(why)),
        Ok(found) if found == wanted.as_bytes() => Ok(Board::Right(wanted.clone())),
        Ok(found) => {
            // For people, whatever is in it.
            let found = found.escape_ascii().to_string();
            Err(WrongBoard { whose: conf.whose().to_owned(), wanted: wanted.clone(), found })
        }
    }
}

/// The module's serial number, or why it is not known.
fn module_serial(paths: &Paths) -> Result<Vec<u8>, String> {
    let [usual, other] = paths.module_serial();
    let bytes = match read(&usual) {
        Err(_) if other.exists() => read(&other).map_err(|error| format!("{}: {error}", other.display()))?,
        read => read.map_err(|error| format!("{}: {error}", usual.display()))?,
    };
    // A text of a device tree ends with a NUL.
    let end = bytes.iter().rposition(|byte| ![b'\0', b'\n'].contains(byte)).map_or(0, |last| last + 1);
    match bytes.get(..end).unwrap_or_default() {
        [] => Err("the device tree has an empty serial number".to_owned()),
        serial if is_placeholder_serial(serial) => {
            Err(format!("the device tree has a placeholder for the serial number ({})", excerpt(serial)))
        }
        serial => Ok(serial.to_vec()),
    }
}

/// For people, whatever is in it.
fn excerpt(serial: &[u8]) -> String {
    serial.get(..16).unwrap_or(serial).escape_ascii().to_string()
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // O_NONBLOCK: a FIFO in this place must not hang the boot.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file)?;
    file.take(LOOKED_AT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
