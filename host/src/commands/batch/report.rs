//! `--report`: what became of each unit, in a file that a spreadsheet or a program reads.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use azaion_agent::common::exit::Exit;
use azaion_agent::common::plain_text::{escaped, write_json};
use azaion_agent::common::private_file::{Attributes, Lifetime, Staged};

use super::columns::{COLUMNS, column_in_report};
use super::record::Record;
use crate::error::{Error, Result, failure, io_failure};
use crate::resolved_path::{PathError, ResolvedPath};

/// No secret is in it.
const MODE: u32 = 0o644;

/// How a report is written.
enum Format {
    Csv,
    /// JSON Lines: one object a line, so that what a killed run has written is whole.
    Lines,
}

/// A report that is to be written: its name is valid.
pub(super) struct Report<'a> {
    path: &'a Path,
    format: Format,
}

/// A report that grows by a whole line for each unit that ends.
pub(super) struct ReportFile {
    path: PathBuf,
    file: File,
    format: Format,
    /// Columns of the list.
    columns: Vec<String>,
}

impl<'a> Report<'a> {
    /// # Errors
    /// 64 if the name says neither CSV nor JSON Lines.
    pub(super) fn new(path: &'a Path) -> Result<Self> {
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Format::Csv,
            Some("jsonl") => Format::Lines,
            _ => {
                return Err(failure(
                    Exit::Usage,
                    "--report wants a file whose name ends in .csv or .jsonl (JSON Lines)",
                ));
            }
        };
        Ok(Self { path, format })
    }

    /// Puts a report without units in place of an earlier one; last, for until then the run may end with nothing done.
    ///
    /// # Errors
    /// 74 or 77 if it can't be made.
    pub(super) fn create(self, columns: &[String]) -> Result<ReportFile> {
        let start = match self.format {
            Format::Csv => {
                row(COLUMNS.into_iter().map(str::to_owned).chain(columns.iter().map(|name| column_in_report(name))))
            }
            Format::Lines => Ok(Vec::new()),
        };
        let made = start.map_err(PathError::from).and_then(|start| create(self.path, &start));
        let file = made.map_err(|error| Error::from(error).context(format!("making {}", self.path.display())))?;
        Ok(ReportFile { path: self.path.to_owned(), file, format: self.format, columns: columns.to_vec() })
    }
}

impl ReportFile {
    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        let line = match self.format {
            Format::Csv => row(self.values(record)),
            Format::Lines => {
                let mut line = Vec::new();
                write_json(&mut line, record).map(|()| line.push(b'\n')).map(|()| line)
            }
        };
        let written = line.and_then(|line| append(&mut self.file, &line));
        written.map_err(|error| io_failure(error, format!("writing {}", self.path.display())))
    }

    fn values(&self, record: &Record) -> impl Iterator<Item = String> {
        let own = [
            record.serial.clone(),
            record.email.clone(),
            record.outcome.name().to_owned(),
            record.targets.join(" "),
            record.elapsed_ms.to_string(),
            record.exit_code.to_string(),
            record.error.clone().unwrap_or_default(),
        ];
        own.into_iter().chain(self.columns.iter().map(|name| record.columns.get(name).cloned().unwrap_or_default()))
    }
}

/// Adds a whole line, in one write, or nothing: a reader never meets half a line, not even on a full disk.
fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.stream_position()?;
    file.write_all(line).inspect_err(|_| {
        let _ = file.set_len(before);
    })
}

/// A file in place of what has its name, complete with its first bytes; a symlink is replaced, not followed.
fn create(path: &Path, start: &[u8]) -> Result<File, PathError> {
    let place = ResolvedPath::find_new_file(path)?;
    let name = place.name().to_str().ok_or_else(|| io::Error::other("the name is not UTF-8"))?;
    let directory = place.listed_directory()?;
    let staged = Staged::create(directory.as_fd(), name)?;
    let mut file = staged.file().try_clone()?;
    file.write_all(start)?;
    staged.commit(Attributes { mode: MODE, uid: None, gid: None }, Lifetime::ThisBoot)?;
    Ok(file)
}

/// A line of CSV. A spreadsheet or a terminal shows it, and a line end inside would be a record more to a simple reader.
fn row(values: impl Iterator<Item = String>) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(values.map(|value| escaped(&value).into_owned()))?;
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}
