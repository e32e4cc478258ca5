//! Expands a range of serials, such as `AZJN-0001..AZJN-0050`.

use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::Serial;

use super::ListedDevice;
use crate::error::{Result, failure};

/// Largest number of devices in a range; detects a number with too many digits.
const MOST: u64 = 1_000_000;

/// Returns the devices from one serial to another, both included. The serials may differ only in the number at their end, which must
/// have the same number of digits.
pub(super) fn expand(first: &str, last: &str) -> Result<Vec<ListedDevice>> {
    let invalid = |why: &str| failure(Exit::Data, format!("invalid range {first}..{last}: {why}"));
    for end in [first, last] {
        end.parse::<Serial>().map_err(|error| invalid(&format!("{end}: {error}")))?;
    }
    let ((prefix, from), (other, to)) = (split_number(first), split_number(last));
    if prefix != other || from.len() != to.len() || from.is_empty() {
        return Err(invalid(
            "both ends must be equal except for a number with as many digits, as in AZJN-0001..AZJN-0050",
        ));
    }
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| invalid("the numbers are too large"));
    let (from, to, width) = (number(from)?, number(to)?, from.len());
    if from > to {
        return Err(invalid("the last serial is before the first"));
    }
    if to - from >= MOST {
        return Err(invalid("it has more than a million devices"));
    }
    let device = |number| {
        let serial =
            format!("{prefix}{number:0width$}").parse::<Serial>().map_err(|error| invalid(&error.to_string()))?;
        Ok(ListedDevice { serial, module_serial: None, columns: Vec::new() })
    };
    (from..=to).map(device).collect()
}

/// Splits a serial before the digits at its end.
fn split_number(serial: &str) -> (&str, &str) {
    serial.split_at(serial.trim_end_matches(|c: char| c.is_ascii_digit()).len())
}
