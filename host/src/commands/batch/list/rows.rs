//! Splits the text of a list into rows: one serial per line, or a table as spreadsheets write it.

use std::collections::HashSet;

use super::super::columns::column_in_report;
use crate::error::Result;

/// Largest number of lines with a device or a mistake.
pub(super) const MOST_LINES: usize = 250_000;
/// Largest number of fields of a table.
pub(super) const MOST_FIELDS: usize = 2_000_000;

/// One row of a list: its line, the serial as written, and the values of the other columns.
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) serial: String,
    pub(super) columns: Vec<String>,
}

/// Splits a list into the names of its columns other than `serial`, and its rows.
///
/// # Errors
/// The invalid lines, with reasons.
pub(super) fn split(text: &str) -> Result<(Vec<String>, Vec<Row>), Vec<String>> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    match first.and_then(separator) {
        Some(separator) => table(text, separator),
        None => Ok((Vec::new(), lines(text)?)),
    }
}

/// Returns the separator of a table's columns, from its first line: a comma, a semicolon or a tab, depending on the language of the
/// spreadsheet. Returns `None` for a list with one serial per line.
fn separator(first: &str) -> Option<u8> {
    let first = first.split('#').next().unwrap_or_default().trim();
    let has_serial_column = |separator: &&u8| {
        first.split(char::from(**separator)).any(|name| unquoted(name).eq_ignore_ascii_case("serial"))
    };
    if let Some(separator) = b",;\t".iter().find(has_serial_column) {
        return Some(*separator);
    }
    let count = |separator: &u8| first.bytes().filter(|byte| byte == separator).count();
    let most_frequent =
        b",;\t".iter().rev().max_by_key(|separator| count(separator)).filter(|separator| count(separator) > 0);
    most_frequent.copied()
}

fn unquoted(text: &str) -> &str {
    text.trim_matches('"').trim()
}

fn too_many() -> Vec<String> {
    let message = format!("1: the list has more than {MOST_LINES} lines or {MOST_FIELDS} fields; divide it");
    vec![message]
}

/// Parses a list with one serial per line; `#` starts a comment.
fn lines(text: &str) -> Result<Vec<Row>, Vec<String>> {
    let row = |(line, text): (u64, &str)| {
        let serial = text.split('#').next().unwrap_or_default().trim().to_owned();
        (!serial.is_empty()).then_some(Row { line, serial, columns: Vec::new() })
    };
    let rows: Vec<Row> = (1..).zip(text.lines()).filter_map(row).take(MOST_LINES + 1).collect();
    if rows.len() > MOST_LINES { Err(too_many()) } else { Ok(rows) }
}

/// Parses a table: the names of the columns other than `serial`, and the rows.
fn table(text: &str, separator: u8) -> Result<(Vec<String>, Vec<Row>), Vec<String>> {
    if text.bytes().filter(|&byte| byte == separator).count() > MOST_FIELDS {
        return Err(too_many());
    }
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let names = reader.headers().map_err(|error| vec![format!("1: {error}")])?.clone();
    // The report has one column for each name.
    let mut seen = HashSet::new();
    if let Some(name) =
        names.iter().find(|name| !name.is_empty() && !seen.insert(column_in_report(name).to_ascii_lowercase()))
    {
        return Err(vec![format!("1: two columns have the name {name}; rename or delete one of them")]);
    }
    let Some(serial_column) = names.iter().position(|name| name.eq_ignore_ascii_case("serial")) else {
        return Err(vec!["1: the first line has the column names, and none of them is `serial`".to_owned()]);
    };
    // Spreadsheets append columns without a name.
    let is_named = |index: usize| names.get(index).is_some_and(|name| !name.is_empty());
    let others = |record: &csv::StringRecord| {
        let others = record.iter().enumerate().filter(|(index, _)| *index != serial_column && is_named(*index));
        others.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for record in reader.records() {
        if rows.len() + problems.len() == MOST_LINES {
            return Err(too_many());
        }
        match record {
            Ok(record) => rows.push(Row {
                line: record.position().map_or(0, csv::Position::line),
                serial: record.get(serial_column).unwrap_or_default().to_owned(),
                columns: others(&record),
            }),
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                problems.push(format!("{line}: the line has more or fewer columns than the first line"));
            }
        }
    }
    if problems.is_empty() { Ok((others(&names), rows)) } else { Err(problems) }
}
