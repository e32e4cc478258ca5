//! `--report`: writes the result of each device to a file for spreadsheets or programs.

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

/// Mode of a report, which has no secret.
const MODE: u32 = 0o644;

/// File format of a report.
enum Format {
    Csv,
    /// JSON Lines: one object per line, so the output of a killed run is complete up to there.
    Lines,
}

/// A report to be created; its name is valid.
pub(super) struct Report<'a> {
    path: &'a Path,
    format: Format,
}

/// An open report. Each finished device appends one complete line.
pub(super) struct ReportFile {
    path: PathBuf,
    file: File,
    format: Format,
    /// Names of the list's columns.
    columns: Vec<String>,
}

impl<'a> Report<'a> {
    /// Returns the report with the format of its name.
    ///
    /// # Errors
    /// 64 if the name ends neither in `.csv` nor in `.jsonl`.
    pub(super) fn new(path: &'a Path) -> Result<Self> {
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Format::Csv,
            Some("jsonl") => Format::Lines,
            _ => {
                return Err(failure(
                    Exit::Usage,
                    "invalid --report: the file name must end in .csv or .jsonl (JSON Lines)",
                ));
            }
        };
        Ok(Self { path, format })
    }

    /// Replaces an earlier report by one without devices. Called last, because an earlier step may still fail the run.
    ///
    /// # Errors
    /// 74 or 77 if the file can't be created.
    pub(super) fn create(self, columns: &[String]) -> Result<ReportFile> {
        let start = match self.format {
            Format::Csv => {
                row(COLUMNS.into_iter().map(str::to_owned).chain(columns.iter().map(|name| column_in_report(name))))
            }
            Format::Lines => Ok(Vec::new()),
        };
        let created = start.map_err(PathError::from).and_then(|start| create(self.path, &start));
        let file = created.map_err(|error| Error::from(error).context(format!("creating {}", self.path.display())))?;
        Ok(ReportFile { path: self.path.to_owned(), file, format: self.format, columns: columns.to_vec() })
    }
}

impl ReportFile {
    /// Appends the line of a device.
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

/// Appends a complete line in one write, or nothing: a reader never gets half a line, not even on a full disk.
fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.stream_position()?;
    file.write_all(line).inspect_err(|_| {
        let _ = file.set_len(before);
    })
}

/// Replaces a file by one that begins with `start`. A symlink is replaced, not followed.
fn create(path: &Path, start: &[u8]) -> Result<File, PathError> {
    let resolved = ResolvedPath::find_new_file(path)?;
    let name = resolved.name().to_str().ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
    let directory = resolved.listed_directory()?;
    let staged = Staged::create(directory.as_fd(), name)?;
    let mut file = staged.file().try_clone()?;
    file.write_all(start)?;
    staged.commit(Attributes { mode: MODE, uid: None, gid: None }, Lifetime::ThisBoot)?;
    Ok(file)
}

/// Formats a line of CSV. Control characters are escaped: a spreadsheet or terminal shows the line, and simple readers would take a line
/// break in a value for another record.
fn row(values: impl Iterator<Item = String>) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(values.map(|value| escaped(&value).into_owned()))?;
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}
