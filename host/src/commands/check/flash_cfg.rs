//! Parses `flash.cfg`, which NVIDIA's initrd flow writes beside the images, to find the file that the flasher writes to the APP partition.
//!
//! The flasher sources the files with bash, `images/internal/flash.cfg` before `images/external/flash.cfg`, and the last assignment of a
//! variable wins. This parser executes and expands nothing: it only parses plain assignments.

use crate::error::{Result, io_failure};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

const NAME: &str = "flash.cfg";
/// Path of the internal device's file, relative to the directory of the external one.
const INTERNAL_NAME: &str = "../internal/flash.cfg";
/// Largest size of a `flash.cfg`, in bytes; real ones have less than 1 KiB.
const LARGEST: usize = 64 * 1024;

/// Variables with the image of the internal device and of the external one.
const APP: &str = "APP";
const APP_EXT: &str = "APP_ext";

const BLANK: [char; 2] = [' ', '\t'];

/// The last assignment of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    /// Its line number, from 1.
    line: usize,
    /// The value that bash would assign; `None` if it can't be parsed.
    value: Option<String>,
}

/// An assignment and the file that it is in.
#[derive(Debug)]
struct Located {
    file: PathBuf,
    assignment: Assignment,
}

/// Effective variables of all files that the flasher sources.
type Variables = BTreeMap<String, Located>;

/// The device that the images of a directory are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Internal,
    External,
    /// The user has chosen another directory.
    Unknown,
}

/// Returns a warning if the flasher may write another file than this image, with the remedy.
pub(crate) fn warning(image: &Path) -> Option<String> {
    let name = image.file_name()?.to_str()?;
    let directory = image.parent().unwrap_or(Path::new(""));
    let device = device_of(directory);
    match read_all(directory, device) {
        Ok(variables) => mismatch(name, device, &variables),
        Err(error) => Some(format!(
            "{}, so it is not known whether the flasher writes {name}; check {APP} and {APP_EXT} in that file by hand",
            error.line()
        )),
    }
}

/// Returns the device for a directory, by the name that NVIDIA's scripts give it.
#[expect(clippy::disallowed_methods, reason = "the result is only used in warnings")]
fn device_of(directory: &Path) -> Device {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let canonical = directory.canonicalize().unwrap_or_default();
    match canonical.file_name().and_then(|name| name.to_str()) {
        Some("internal") => Device::Internal,
        Some("external") => Device::External,
        _ => Device::Unknown,
    }
}

/// Reads the files in the order in which the flasher sources them.
fn read_all(directory: &Path, device: Device) -> Result<Variables> {
    let mut variables = Variables::new();
    let internal = (device == Device::External).then_some(INTERNAL_NAME);
    for file in internal.into_iter().chain([NAME]).map(|name| directory.join(name)) {
        let text = read(&file).map_err(|error| io_failure(error, format!("cannot read {}", file.display())))?;
        let assignments = parse(text.as_deref().unwrap_or_default()).into_iter();
        let located = |assignment| Located { file: file.clone(), assignment };
        variables.extend(assignments.map(|(name, assignment)| (name.to_owned(), located(assignment))));
    }
    Ok(variables)
}

/// Returns the text of a file, if it exists.
#[expect(clippy::disallowed_methods, reason = "the result is only used in warnings")]
fn read(file: &Path) -> io::Result<Option<String>> {
    // O_NONBLOCK: a FIFO with this name must not block the check.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} KiB", LARGEST / 1024)));
    }
    // Invalid UTF-8 becomes a character that no value may have.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Compares the image's file name with the variables.
fn mismatch(name: &str, device: Device, variables: &Variables) -> Option<String> {
    let variable = match device {
        Device::Internal => APP,
        Device::Unknown if !variables.contains_key(APP_EXT) => APP,
        Device::External | Device::Unknown => APP_EXT,
    };
    let Located { file, assignment: Assignment { line, value } } = variables.get(variable)?;
    let file = file.display();
    if variables.iter().any(|(other, located)| is_for(device, other) && located.names(name)) {
        return None;
    }
    Some(match value.as_deref() {
        // The image of slot B (A/B); it is unknown whether it has its own variable.
        Some(value) if name.strip_suffix("_b") == Some(file_name(value)) => return None,
        Some("") => format!(
            "{file}: {variable} is empty (line {line}), so the flasher does not write {name}; generate the images again"
        ),
        Some(value) => format!(
            "{file}: {variable} is {value:?} (line {line}), so the flasher writes that file and not {name}; \
             provision that one, or generate the images again"
        ),
        None => format!(
            "{file}: line {line} is not a plain assignment of {variable}, so it is not known whether the flasher writes \
             {name}; compare that line with the name, or generate the images again"
        ),
    })
}

/// Returns whether a variable may name an image of this device. The name of the variable for slot B (A/B) is unknown: every variable
/// that starts with `APP` counts, except the other device's.
fn is_for(device: Device, variable: &str) -> bool {
    variable.starts_with(APP)
        && match device {
            Device::Internal => variable != APP_EXT,
            Device::External => variable != APP,
            Device::Unknown => true,
        }
}

impl Located {
    fn names(&self, image: &str) -> bool {
        self.assignment.value.as_deref().is_some_and(|value| file_name(value) == image)
    }
}

/// Returns the file name in a value, which is relative to the directory of its `flash.cfg`.
fn file_name(value: &str) -> &str {
    value.strip_prefix("./").unwrap_or(value)
}

/// Returns the last assignment of each variable.
///
/// A line that can't be parsed makes the variables whose names occur in it unknown, until a later line assigns them. It has no other
/// effect.
fn parse(text: &str) -> BTreeMap<&str, Assignment> {
    let mut variables = BTreeMap::new();
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let after = if let Some((assigned, after)) = statement(rest) {
            variables.extend(assigned.map(|(name, value)| (name, Assignment { line, value: Some(value) })));
            after
        } else {
            let (unknown, after) = rest.split_once('\n').unwrap_or((rest, ""));
            variables.extend(names_in(unknown).map(|name| (name, Assignment { line, value: None })));
            after
        };
        let length = rest.len() - after.len();
        line += rest.bytes().take(length).filter(|&byte| byte == b'\n').count();
        rest = after;
    }
    variables
}

/// A parsed statement: name and value, if it is an assignment, and the remaining text.
type Statement<'a> = (Option<(&'a str, String)>, &'a str);

/// Parses a blank line, a comment or an assignment at the start of the text; returns `None` for anything else.
fn statement(text: &str) -> Option<Statement<'_>> {
    let text = text.trim_start_matches(BLANK);
    if let Some(after) = end_of_line(text) {
        return Some((None, after));
    }
    let exported = text.strip_prefix("export").filter(|rest| rest.starts_with(BLANK));
    let (name, value) = exported.map_or(text, |rest| rest.trim_start_matches(BLANK)).split_once('=')?;
    let is_name = name.chars().all(is_name_char) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty();
    let (value, after) = word(value).filter(|_| is_name)?;
    Some((Some((name, value)), end_of_line(after.trim_start_matches(BLANK))?))
}

/// Returns the text after the end of the line, if only a comment comes before it.
fn end_of_line(text: &str) -> Option<&str> {
    match text.chars().next() {
        None => Some(text),
        Some('\n' | '#') => Some(text.split_once('\n').map_or("", |(_, after)| after)),
        Some(_) => None,
    }
}

/// Parses a word at the start of the text and removes its quotes; returns `None` if bash might interpret it differently.
fn word(text: &str) -> Option<(String, &str)> {
    let (mut word, mut rest) = (String::new(), text);
    loop {
        let after = rest.trim_start_matches(is_plain);
        word.push_str(rest.strip_suffix(after)?);
        let Some(quote) = after.chars().next().filter(|&c| c != '\n' && !BLANK.contains(&c)) else {
            return Some((word, after));
        };
        let (quoted, after) = after.strip_prefix(quote)?.split_once(quote)?;
        let is_literal = match quote {
            '"' => |c: char| !matches!(c, '$' | '`' | '\\'),
            '\'' => |_| true,
            _ => return None,
        };
        if !quoted.chars().all(|c| is_literal(c) && is_text(c)) {
            return None;
        }
        word.push_str(quoted);
        rest = after;
    }
}

/// Returns whether bash takes a character literally without quotes.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c)
}

/// Returns whether a character may be in quotes. The replacement character stands for invalid UTF-8.
fn is_text(c: char) -> bool {
    c == '\n' || !(c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

/// Returns whether a character may be in the name of a variable.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns all texts in a line that may be names of variables.
fn names_in(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| !is_name_char(c)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
