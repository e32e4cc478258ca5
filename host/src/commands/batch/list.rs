//! The devices of a batch: a range, a list of serials, or a CSV file with a column `serial` and optionally `module_serial`.
//!
//! The whole list is validated before the first device, so that an invalid line can't stop a batch halfway.

mod range;
mod rows;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::Serial;
use nix::fcntl::OFlag;

use crate::commands::module_serial::{objection, spreadsheet_number};
use crate::error::{Result, failure};
use crate::interrupt;
use crate::resolved_path::readable;
use rows::Row;

/// Largest size of a list, in bytes. With the limits in [`rows`], any list needs less than 256 MiB of memory.
const LARGEST: u64 = 32 << 20;
/// Largest number of invalid lines in one message.
const MOST_REPORTED: usize = 10;
/// Name of the column with the serial number of the module.
const MODULE_SERIAL: &str = "module_serial";

/// One device of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedDevice {
    pub(crate) serial: Serial,
    /// Serial number of the device's module.
    pub(crate) module_serial: Option<String>,
    /// Values of the other columns, for the report.
    pub(crate) columns: Vec<String>,
}

/// The devices of a batch; each serial occurs once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) devices: Vec<ListedDevice>,
    /// Names of the other columns of a CSV file.
    pub(crate) columns: Vec<String>,
}

impl List {
    /// Reads a range such as `AZJN-0001..AZJN-0050`, `-` for standard input, or a file.
    ///
    /// # Errors
    /// 66 if the file can't be read; 65, with the lines, if a serial is invalid or occurs twice.
    #[expect(clippy::disallowed_methods, reason = "the list has no secret and is not written")]
    pub(crate) fn read(list: &str) -> Result<Self> {
        // A range has no slash: a missing file such as `../devices.csv` is not a range.
        if let Some((first, last)) = list.split_once("..")
            && !list.contains('/')
            && !Path::new(list).exists()
        {
            let devices = range::expand(first, last)?;
            return Ok(Self { devices, columns: Vec::new() });
        }
        let name = if list == "-" { "standard input" } else { list };
        let fail = |error: io::Error| failure(Exit::Target, format!("cannot read the list {name}: {error}"));
        let mut bytes = Vec::new();
        let source: Box<dyn Read> =
            if list == "-" { Box::new(io::stdin()) } else { Box::new(open(list).map_err(fail)?) };
        interrupt::while_reading(|| source.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(fail)?;
        if bytes.len() as u64 > LARGEST {
            let message = format!("the list {name} is larger than {} MiB; divide it", LARGEST >> 20);
            return Err(failure(Exit::Data, message));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| failure(Exit::Data, format!("the list {name} is not UTF-8; save it as UTF-8")))?;
        Self::parse(text).map_err(|problems| {
            let more = problems.len().saturating_sub(MOST_REPORTED);
            let mut reported: Vec<String> =
                problems.iter().take(MOST_REPORTED).map(|p| format!("{name}:{p}")).collect();
            if more > 0 {
                reported.push(format!("and {more} more"));
            }
            failure(
                Exit::Data,
                format!("no device was provisioned, because the list is invalid: {}", reported.join("; ")),
            )
        })
    }

    /// Parses the text of a list.
    ///
    /// # Errors
    /// The invalid lines, with reasons.
    fn parse(text: &str) -> Result<Self, Vec<String>> {
        // Spreadsheets write a byte order mark and carriage returns.
        let text = text.trim_start_matches('\u{feff}');
        let (columns, rows) = rows::split(text)?;
        let module_column = columns.iter().position(|name| name.eq_ignore_ascii_case(MODULE_SERIAL));
        let list = Self { devices: validate(rows, module_column)?, columns };
        if list.devices.is_empty() { Err(vec!["1: the list has no device".to_owned()]) } else { Ok(list) }
    }
}

/// Opens a list, which may be a pipe of the shell (`<(...)`).
#[expect(clippy::disallowed_methods, reason = "the list has no secret and is not written")]
fn open(list: &str) -> io::Result<File> {
    // Opening a FIFO without a writer must not block.
    let flags = OFlag::O_NONBLOCK.bits();
    readable(File::options().read(true).custom_flags(flags).open(list)?)
}

/// Returns the devices in the order of the list; `module_column` is the index of the column with the module's serial number.
fn validate(rows: Vec<Row>, module_column: Option<usize>) -> Result<Vec<ListedDevice>, Vec<String>> {
    let (mut devices, mut problems) = (Vec::with_capacity(rows.len()), Vec::new());
    let (mut serials, mut modules) = (HashMap::new(), HashMap::new());
    for Row { line, serial, columns } in rows {
        let module_serial = module_column.and_then(|index| columns.get(index)).filter(|text| !text.is_empty()).cloned();
        if let Some(module_serial) = &module_serial {
            if let Some(why) = spreadsheet_number(module_serial).or_else(|| objection(module_serial)) {
                problems.push(format!("{line}: the {MODULE_SERIAL} {why}"));
                continue;
            }
            if let Some(earlier) = modules.insert(module_serial.clone(), line) {
                problems.push(format!("{line}: duplicate {MODULE_SERIAL} {module_serial}, already on line {earlier}"));
                continue;
            }
        }
        match serial.parse::<Serial>() {
            Err(error) => problems.push(format!("{line}: {error}")),
            Ok(serial) => match serials.insert(serial.to_string(), line) {
                Some(earlier) => problems.push(format!("{line}: duplicate serial {serial}, already on line {earlier}")),
                None => devices.push(ListedDevice { serial, module_serial, columns }),
            },
        }
    }
    if problems.is_empty() { Ok(devices) } else { Err(problems) }
}

#[cfg(test)]
mod tests;
