//! `flash.cfg`, which NVIDIA's initrd flow writes beside the images: which file the flasher writes to the APP partition.
//!
//! The flasher sources the file with bash, `images/internal/flash.cfg` before `images/external/flash.cfg`, and the last
//! assignment of a variable wins. Here nothing is executed or expanded: only plain assignments are understood.

use crate::error::{Result, io_failure};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

const NAME: &str = "flash.cfg";
/// The file of the internal device, as seen from the directory of the external one.
const OF_INTERNAL: &str = "../internal/flash.cfg";
/// Bytes that a `flash.cfg` may have; real ones have less than 1 KiB.
const LARGEST: usize = 64 * 1024;

/// The image of the internal device, and of the external one.
const APP: &str = "APP";
const APP_EXT: &str = "APP_ext";

const BLANK: [char; 2] = [' ', '\t'];

/// The last assignment of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    /// Its line, from 1.
    line: usize,
    /// What bash would assign; `None` if that is not understood here.
    value: Option<String>,
}

/// An assignment and the file that it is in.
#[derive(Debug)]
struct Located {
    file: PathBuf,
    assignment: Assignment,
}

/// The effective variables of all files that the flasher sources.
type Variables = BTreeMap<String, Located>;

/// Which device the images of a directory are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Internal,
    External,
    /// The directory is one of the user's own.
    Unknown,
}

/// Why the flasher may write another file than this image, and what to do about that; `None` if nothing says so.
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

/// NVIDIA's scripts name the directories.
#[expect(clippy::disallowed_methods, reason = "a warning follows from it, nothing else")]
fn device_of(directory: &Path) -> Device {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let real = directory.canonicalize().unwrap_or_default();
    match real.file_name().and_then(|name| name.to_str()) {
        Some("internal") => Device::Internal,
        Some("external") => Device::External,
        _ => Device::Unknown,
    }
}

/// Reads the files in the order in which they are sourced.
fn read_all(directory: &Path, device: Device) -> Result<Variables> {
    let mut variables = Variables::new();
    let internal = (device == Device::External).then_some(OF_INTERNAL);
    for file in internal.into_iter().chain([NAME]).map(|name| directory.join(name)) {
        let text = read(&file).map_err(|error| io_failure(error, format!("cannot read {}", file.display())))?;
        let assignments = parse(text.as_deref().unwrap_or_default()).into_iter();
        let located = |assignment| Located { file: file.clone(), assignment };
        variables.extend(assignments.map(|(name, assignment)| (name.to_owned(), located(assignment))));
    }
    Ok(variables)
}

/// The text of a file, if there is one.
#[expect(clippy::disallowed_methods, reason = "a warning follows from it, nothing else")]
fn read(file: &Path) -> io::Result<Option<String>> {
    // O_NONBLOCK: a FIFO in this place must not hang the check.
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
    // What is not UTF-8 becomes a character that no value may have.
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
        // The image of slot B (A/B); that it has a variable of its own is not established.
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

/// Whether a variable may name an image of this device. How the variable for slot B (A/B) is called is not established:
/// any that starts with `APP` counts, except the other device's.
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

/// A value is relative to the directory of its `flash.cfg`.
fn file_name(value: &str) -> &str {
    value.strip_prefix("./").unwrap_or(value)
}

/// The last assignment of each variable.
///
/// A line that is not understood makes each variable whose name occurs in it unknown, until a later line assigns it. It
/// changes nothing else.
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

/// A name and its value, if the statement is an assignment; and the text that follows.
type Statement<'a> = (Option<(&'a str, String)>, &'a str);

/// Splits a blank line, a comment or an assignment off the text; `None` if its first line is something else.
fn statement(text: &str) -> Option<Statement<'_>> {
    let text = text.trim_start_matches(BLANK);
    if let Some(after) = end_of_line(text) {
        return Some((None, after));
    }
    let exported = text.strip_prefix("export").filter(|rest| rest.starts_with(BLANK));
    let (name, value) = exported.map_or(text, |rest| rest.trim_start_matches(BLANK)).split_once('=')?;
    let is_name = name.chars().all(is_of_name) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty();
    let (value, after) = word(value).filter(|_| is_name)?;
    Some((Some((name, value)), end_of_line(after.trim_start_matches(BLANK))?))
}

/// The text after the line's end, if nothing but a comment comes before that.
fn end_of_line(text: &str) -> Option<&str> {
    match text.chars().next() {
        None => Some(text),
        Some('\n' | '#') => Some(text.split_once('\n').map_or("", |(_, after)| after)),
        Some(_) => None,
    }
}

/// Splits a word off the text and takes its quotes away; `None` if bash might make something else of it.
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

/// Whether bash takes a character as it is also where it is not quoted.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c)
}

/// Whether a character may be in quotes. The replacement character stands for what is not UTF-8.
fn is_text(c: char) -> bool {
    c == '\n' || !(c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whatever in a line might be the name of a variable.
fn names_in(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| !is_of_name(c)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
