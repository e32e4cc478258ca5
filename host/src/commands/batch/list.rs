//! The units of a batch: a range, a list of serials, or a CSV file with a column `serial`, perhaps one `module_serial`.
//!
//! All of it is judged before anything is done: a list with a bad line would otherwise be found out halfway.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::Serial;
use nix::fcntl::OFlag;

use super::columns::column_in_report;
use crate::commands::module_serial::{objection, spreadsheet_number};
use crate::error::{Result, failure};
use crate::interrupt;
use crate::resolved_path::readable;

/// Bytes that a list may have, lines with a unit or a mistake, and fields of a table: whatever it holds, it takes less than
/// 256 MiB of memory.
const LARGEST: u64 = 32 << 20;
const MOST_LINES: usize = 250_000;
const MOST_FIELDS: usize = 2_000_000;
/// Units that a range may have; one with a digit too many is found out.
const MOST: u64 = 1_000_000;
/// Bad lines that are told of at once.
const MOST_TOLD: usize = 10;
/// The column with the serial of a module.
const MODULE_SERIAL: &str = "module_serial";

/// One unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedDevice {
    pub(crate) serial: Serial,
    /// The serial of the module that it is for.
    pub(crate) module_serial: Option<String>,
    /// What the other columns say, for the report.
    pub(crate) columns: Vec<String>,
}

/// All units, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) units: Vec<ListedDevice>,
    /// Names of the other columns of a CSV file.
    pub(crate) columns: Vec<String>,
}

impl List {
    /// Reads a range such as `AZJN-0001..AZJN-0050`, `-` for standard input, or a file.
    ///
    /// # Errors
    /// 66 if there is no such file, 65 with its lines if it holds what is no serial, or one twice.
    #[expect(clippy::disallowed_methods, reason = "the list holds no secret, and nothing is written there")]
    pub(crate) fn read(list: &str) -> Result<Self> {
        // A range has no slash, and a file such as `../units.csv` that is missing is no range.
        if let Some((first, last)) = list.split_once("..")
            && !list.contains('/')
            && !Path::new(list).exists()
        {
            let units = range(first, last)?;
            return Ok(Self { units, columns: Vec::new() });
        }
        let name = if list == "-" { "standard input" } else { list };
        let fail = |error: io::Error| failure(Exit::Target, format!("the list {name} can't be read: {error}"));
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
            let more = problems.len().saturating_sub(MOST_TOLD);
            let mut told: Vec<String> = problems.iter().take(MOST_TOLD).map(|p| format!("{name}:{p}")).collect();
            if more > 0 {
                told.push(format!("and {more} more"));
            }
            failure(Exit::Data, format!("nothing was done, for the list can't be used: {}", told.join("; ")))
        })
    }

    /// The lines to blame, and why.
    fn parse(text: &str) -> Result<Self, Vec<String>> {
        // Spreadsheets write a byte order mark and carriage returns.
        let text = text.trim_start_matches('\u{feff}');
        let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let (columns, rows) = match first.and_then(separator) {
            Some(separator) => table(text, separator)?,
            None => (Vec::new(), lines(text)?),
        };
        let module = columns.iter().position(|name| name.eq_ignore_ascii_case(MODULE_SERIAL));
        let list = Self { units: validate(rows, module)?, columns };
        if list.units.is_empty() { Err(vec!["1: there is no unit in it".to_owned()]) } else { Ok(list) }
    }
}

/// A serial as it was written, its line, and what else stands there.
struct Row {
    line: u64,
    serial: String,
    columns: Vec<String>,
}

/// What separates the columns of a table, by its first line: spreadsheets write a comma, a semicolon or a tab, as the language of
/// the host wants it. `None` for a list of lines.
fn separator(first: &str) -> Option<u8> {
    let first = first.split('#').next().unwrap_or_default().trim();
    let names_the_serial = |separator: &&u8| {
        first.split(char::from(**separator)).any(|name| unquoted(name).eq_ignore_ascii_case("serial"))
    };
    if let Some(separator) = b",;\t".iter().find(names_the_serial) {
        return Some(*separator);
    }
    let count = |separator: &u8| first.bytes().filter(|byte| byte == separator).count();
    let found = b",;\t".iter().rev().max_by_key(|separator| count(separator)).filter(|separator| count(separator) > 0);
    found.copied()
}

fn unquoted(text: &str) -> &str {
    text.trim_matches('"').trim()
}

/// Opens a list; a pipe that the shell has made (`<(...)`) is one, too.
#[expect(clippy::disallowed_methods, reason = "the list holds no secret, and nothing is written there")]
fn open(list: &str) -> io::Result<File> {
    // A FIFO without a writer must not hang this host.
    let flags = OFlag::O_NONBLOCK.bits();
    readable(File::options().read(true).custom_flags(flags).open(list)?)
}

fn too_many() -> Vec<String> {
    let message = format!("1: it has more than {MOST_LINES} lines or {MOST_FIELDS} fields; divide it");
    vec![message]
}

fn lines(text: &str) -> Result<Vec<Row>, Vec<String>> {
    let row = |(line, text): (u64, &str)| {
        let serial = text.split('#').next().unwrap_or_default().trim().to_owned();
        (!serial.is_empty()).then_some(Row { line, serial, columns: Vec::new() })
    };
    let rows: Vec<Row> = (1..).zip(text.lines()).filter_map(row).take(MOST_LINES + 1).collect();
    if rows.len() > MOST_LINES { Err(too_many()) } else { Ok(rows) }
}

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
    // The report has each column under its name.
    let mut seen = HashSet::new();
    if let Some(name) =
        names.iter().find(|name| !name.is_empty() && !seen.insert(column_in_report(name).to_ascii_lowercase()))
    {
        return Err(vec![format!("1: two columns have the name {name}; rename or delete one")]);
    }
    let Some(place) = names.iter().position(|name| name.eq_ignore_ascii_case("serial")) else {
        return Err(vec!["1: the first line names the columns, and none of them is `serial`".to_owned()]);
    };
    // Spreadsheets leave columns without a name at the end.
    let is_named = |index: usize| names.get(index).is_some_and(|name| !name.is_empty());
    let others = |record: &csv::StringRecord| {
        let others = record.iter().enumerate().filter(|(index, _)| *index != place && is_named(*index));
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
                serial: record.get(place).unwrap_or_default().to_owned(),
                columns: others(&record),
            }),
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                problems.push(format!("{line}: it has more or fewer columns than the first line"));
            }
        }
    }
    if problems.is_empty() { Ok((others(&names), rows)) } else { Err(problems) }
}

/// Units in the order of the list; `module` says in which of the other columns the module's serial is.
fn validate(rows: Vec<Row>, module: Option<usize>) -> Result<Vec<ListedDevice>, Vec<String>> {
    let (mut units, mut problems) = (Vec::with_capacity(rows.len()), Vec::new());
    let (mut known, mut modules) = (HashMap::new(), HashMap::new());
    for Row { line, serial, columns } in rows {
        let module_serial = module.and_then(|place| columns.get(place)).filter(|text| !text.is_empty()).cloned();
        if let Some(module_serial) = &module_serial {
            if let Some(why) = spreadsheet_number(module_serial).or_else(|| objection(module_serial)) {
                problems.push(format!("{line}: its {MODULE_SERIAL} {why}"));
                continue;
            }
            if let Some(earlier) = modules.insert(module_serial.clone(), line) {
                problems.push(format!("{line}: the {MODULE_SERIAL} {module_serial} stands in line {earlier} already"));
                continue;
            }
        }
        match serial.parse::<Serial>() {
            Err(error) => problems.push(format!("{line}: {error}")),
            Ok(serial) => match known.insert(serial.to_string(), line) {
                Some(earlier) => problems.push(format!("{line}: {serial} stands in line {earlier} already")),
                None => units.push(ListedDevice { serial, module_serial, columns }),
            },
        }
    }
    if problems.is_empty() { Ok(units) } else { Err(problems) }
}

/// From one serial to another, both included: the same but for a number of as many digits.
fn range(first: &str, last: &str) -> Result<Vec<ListedDevice>> {
    let bad = |why: &str| failure(Exit::Data, format!("the range {first}..{last} can't be used: {why}"));
    for end in [first, last] {
        end.parse::<Serial>().map_err(|error| bad(&format!("{end}: {error}")))?;
    }
    let ((prefix, from), (other, to)) = (split(first), split(last));
    if prefix != other || from.len() != to.len() || from.is_empty() {
        return Err(bad("its ends must be the same but for a number of as many digits, as in AZJN-0001..AZJN-0050"));
    }
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| bad("its numbers are too large"));
    let (from, to, width) = (number(from)?, number(to)?, from.len());
    if from > to {
        return Err(bad("it ends before it begins"));
    }
    if to - from >= MOST {
        return Err(bad("it has more than a million units"));
    }
    let unit = |number| {
        let serial = format!("{prefix}{number:0width$}").parse::<Serial>().map_err(|error| bad(&error.to_string()))?;
        Ok(ListedDevice { serial, module_serial: None, columns: Vec::new() })
    };
    (from..=to).map(unit).collect()
}

/// A serial without the digits at its end, and those.
fn split(serial: &str) -> (&str, &str) {
    serial.split_at(serial.trim_end_matches(|c: char| c.is_ascii_digit()).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serials(units: &[ListedDevice]) -> Vec<String> {
        units.iter().map(|unit| unit.serial.to_string()).collect()
    }

    // Promise: a range has both its ends, and its numbers keep their zeros.
    #[test]
    fn ranges() {
        for (list, expected) in [
            ("AZJN-0001..AZJN-0003", &["AZJN-0001", "AZJN-0002", "AZJN-0003"][..]),
            ("AZJN-9..AZJN-9", &["AZJN-9"]),
            ("AZJN-B099..AZJN-B100", &["AZJN-B099", "AZJN-B100"]),
        ] {
            assert_eq!(serials(&List::read(list).unwrap().units), expected);
        }
        assert_eq!(List::read("AZJN-000001..AZJN-010000").unwrap().units.len(), 10_000);
    }

    // Promise: a range that can't be meant is refused, with the reason.
    #[test]
    fn bad_ranges() {
        for (list, why) in [
            ("AZJN-0003..AZJN-0001", "ends before"),
            ("AZJN-9..AZJN-10", "as many digits"),
            ("AZJN-A1..AZJN-B2", "as many digits"),
            ("AZJN-A..AZJN-B", "as many digits"),
            ("AZJN-0000001..AZJN-9999999", "a million"),
            ("AZJN-1..", "AZJN-"),
            ("azjn-1..azjn-2", "AZJN-"),
            ("AZJN-00000000000000000000000000000001..AZJN-99999999999999999999999999999999", "too large"),
        ] {
            let error = List::read(list).unwrap_err().to_string();
            assert!(error.contains(why), "{list}: {error}");
        }
    }

    // Promise: lists of lines and of columns are read as people and spreadsheets write them.
    #[test]
    fn files() {
        let two = ["AZJN-1", "AZJN-2"];
        for text in [
            "AZJN-1\nAZJN-2",
            "AZJN-1\t# spare; blue, old\nAZJN-2",
            "# line 7\n\n AZJN-1 \r\nAZJN-2 # spare\n",
            "\u{feff}serial\r\nAZJN-1\r\nAZJN-2\r\n",
        ] {
            let list = List::parse(text).unwrap();
            assert_eq!((serials(&list.units), list.columns.len()), (two.map(String::from).to_vec(), 0), "{text}");
        }
        let list = List::parse("serial;order, customer;;\nAZJN-1;7;;\nAZJN-2;8;;\n").unwrap();
        assert_eq!(
            (serials(&list.units), list.columns),
            (two.map(String::from).to_vec(), vec!["order, customer".into()])
        );
        let list = List::parse("order,Serial,note\n7,AZJN-1,\"a, b\"\n8,AZJN-2,\n").unwrap();
        assert_eq!(
            (serials(&list.units), list.columns),
            (two.map(String::from).to_vec(), vec!["order".into(), "note".into()])
        );
        assert_eq!(list.units[0].columns, ["7", "a, b"]);
        for separator in [";", "\t"] {
            let table = "order,Serial,note\n7,AZJN-1,\"a, b; c\"\n8,AZJN-2,M-3\n".replace(',', separator);
            let list = List::parse(&table.replace("a; b", "a, b")).unwrap();
            assert_eq!((serials(&list.units), list.columns.len()), (two.map(String::from).to_vec(), 2), "{table:?}");
            assert_eq!(list.units[1].columns, ["8", "M-3"]);
        }
        let list = List::parse("serial,module_serial\nAZJN-1,14E12\nAZJN-2,M-3.1\n").unwrap();
        assert_eq!(list.units[0].module_serial.as_deref(), Some("14E12"));
        let list = List::parse("module_serial,serial\n1421222333,AZJN-1\n,AZJN-2\n").unwrap();
        let modules = list.units.iter().map(|unit| unit.module_serial.as_deref());
        assert_eq!(modules.collect::<Vec<_>>(), [Some("1421222333"), None]);
    }

    // Promise: a list that would take too much memory, or hang, is refused.
    #[test]
    fn too_large() {
        for text in ["A\n".repeat(MOST_LINES + 1), "serial,x\n".repeat(MOST_LINES + 2), ",".repeat(MOST_FIELDS + 1)] {
            let problems = List::parse(&text).unwrap_err();
            assert!(problems[0].contains("divide it"), "{}", problems[0]);
        }
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        File::create(&list).unwrap().set_len(LARGEST + 1).unwrap();
        let read = || List::read(list.to_str().unwrap()).unwrap_err().to_string();
        assert!(read().contains("larger than 32 MiB"));
        // Two bytes for a character: the limit lies within one.
        std::fs::write(&list, "x".to_owned() + &"\u{e4}".repeat((LARGEST >> 1) as usize + 1)).unwrap();
        assert!(read().contains("larger than 32 MiB"));
        std::fs::remove_file(&list).unwrap();
        nix::unistd::mkfifo(&list, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read().contains("is a FIFO"));
    }

    // Promise: what is wrong in a list is told with its line, all at once, before anything is done.
    #[test]
    fn bad_files() {
        for (text, lines) in [
            ("AZJN-1\nazjn-2\nAZJN-1\n", &["2: ", "3: AZJN-1 stands in line 1"][..]),
            ("serial,note\nAZJN-1\nAZJN-2,x\n", &["2: "]),
            ("name,note\nAZJN-1,x\n", &["1: the first line"]),
            ("# nothing\n", &["1: there is no unit"]),
            ("serial\n", &["1: there is no unit"]),
            ("serial,module_serial\nAZJN-1,\nAZJN-2,a b\n", &["3: its module_serial"]),
            ("AZJN-1 AZJN-2\n", &["1: "]),
            ("serial,note,Note\nAZJN-1,x,y\n", &["1: two columns have the name Note"]),
            ("serial,Serial\nAZJN-1,AZJN-2\n", &["1: two columns"]),
            ("serial,module_serial\nAZJN-1,1.42292E+12\n", &["2: its module_serial is a number as a spreadsheet"]),
            ("serial,module_serial\nAZJN-1,1422924012345.0\n", &["2: its module_serial is a number as a spreadsheet"]),
            ("serial;module_serial\nAZJN-1;1,42292E+12\n", &["2: its module_serial is a number as a spreadsheet"]),
            ("serial;module_serial\nAZJN-1;1422924012345,0\n", &["2: its module_serial is a number as a spreadsheet"]),
            ("serial,error,list_error\nAZJN-1,x,y\n", &["1: two columns have the name list_error"]),
            ("serial,module_serial\nAZJN-1,\"1,422,924,012,345\"\n", &["2: its module_serial is a number"]),
            ("serial;module_serial\nAZJN-1;1.422.924\n", &["2: its module_serial is a number"]),
            ("serial,module_serial\nAZJN-1,1E+12\n", &["2: its module_serial is a number as a spreadsheet"]),
            ("serial,module_serial\nAZJN-1,14\nAZJN-2,14\n", &["3: the module_serial 14 stands in line 2"]),
        ] {
            let problems = List::parse(text).unwrap_err();
            let is_told =
                problems.len() == lines.len() && problems.iter().zip(lines).all(|(p, line)| p.starts_with(line));
            assert!(is_told, "{text:?}: {problems:?}");
        }
    }
}
