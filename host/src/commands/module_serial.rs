//! Validates serial numbers of modules. Each function returns why a text is invalid, as a predicate of the message.

use azaion_agent::common::device_conf::{is_module_serial, is_placeholder_serial};

/// Returns why a text can't be the serial number of a module.
pub(crate) fn objection(text: &str) -> Option<&'static str> {
    if !is_module_serial(text) {
        return Some("is invalid: it must have 1 to 64 of A-Z a-z 0-9 @ % + = : , . / _ -");
    }
    is_placeholder_serial(text.as_bytes()).then_some(
        "is invalid: a module without a serial number reports zeros; omit it, or use the number on the label",
    )
}

/// Returns why a text in a table can't be a serial number: spreadsheets reformat long numbers.
pub(crate) fn spreadsheet_number(text: &str) -> Option<&'static str> {
    let is_number =
        text.contains(['.', ',', '+']) && text.parse::<f64>().or_else(|_| text.replace(',', ".").parse()).is_ok();
    let has_exponent = text.split_once(['e', 'E']).is_some_and(|(number, exponent)| {
        number.contains(['.', ',']) && exponent.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit())
    });
    let parts: Vec<&str> = text.split(['.', ',']).collect();
    let is_digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let has_thousands =
        parts.len() > 1 && parts.iter().all(is_digits) && parts.iter().skip(1).all(|part| part.len() == 3);
    (is_number || has_exponent || has_thousands)
        .then_some("is a number that a spreadsheet reformatted; format the column as text and enter it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: a serial number is accepted unchanged; zeros, which mean that there is none, and values that are invalid in device.conf are
    // refused.
    #[test]
    fn objections() {
        for (text, why) in [
            ("1423221050123", None),
            ("0-0", None),
            ("0000000000001", None),
            ("0", Some("zeros")),
            ("0000000000000", Some("zeros")),
            ("", Some("1 to 64")),
            ("  ", Some("1 to 64")),
            ("1 2", Some("1 to 64")),
        ] {
            assert_eq!(
                objection(text).map(|said| why.is_some_and(|why| said.contains(why))),
                why.map(|_| true),
                "{text:?}"
            );
        }
    }
}
