//! `--report`: what became of each unit, in a file that a spreadsheet or a program reads.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use azaion_agent::exit::Exit;
use azaion_agent::plain_text::{escaped, write_json};
use azaion_agent::private_file::{Attributes, Lifetime, Staged};

use super::record::Record;
use crate::error::{Error, Result, failure, io_failure};
use crate::place::{Place, PlaceError};

/// The columns of a CSV report; those of the list follow.
const COLUMNS: [&str; 7] = ["serial", "email", "outcome", "target", "duration_ms", "exit_code", "error"];

/// No secret is in it.
const MODE: u32 = 0o644;

/// A report that is written as units end, so that a run that is killed leaves what it had done.
pub(super) struct ReportFile {
    path: PathBuf,
    format: Format,
}

enum Format {
    /// With the columns of the list.
    Csv(Box<csv::Writer<File>>, Vec<String>),
    /// An array; whether it has an element.
    Json(BufWriter<File>, bool),
}

impl ReportFile {
    /// Starts an empty one.
    ///
    /// # Errors
    /// 64 if its name says neither CSV nor JSON, 74 or 77 if it can't be made.
    pub(super) fn create(path: &Path, columns: &[String]) -> Result<Self> {
        let make = || {
            let doing = || format!("making {}", path.display());
            create(path).map_err(|error| Error::from(error).context(doing()))
        };
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Format::Csv(Box::new(csv::Writer::from_writer(make()?)), columns.to_vec()),
            Some("json") => Format::Json(BufWriter::new(make()?), false),
            _ => return Err(failure(Exit::Usage, "--report wants a file whose name ends in .csv or .json")),
        };
        let mut report = Self { path: path.to_owned(), format };
        let started = match &mut report.format {
            Format::Csv(writer, columns) => row(writer, COLUMNS.into_iter().chain(columns.iter().map(String::as_str))),
            Format::Json(writer, _) => writer.write_all(b"[\n"),
        };
        report.judge(started)?;
        Ok(report)
    }

    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        let written = match &mut self.format {
            Format::Csv(writer, columns) => {
                let (targets, time) = (record.targets.join(" "), record.elapsed_ms.to_string());
                let (code, error) = (record.exit_code.to_string(), record.error.as_deref().unwrap_or_default());
                let own = [&record.serial, &record.email, &record.outcome, targets.as_str(), &time, &code, error];
                let others = columns.iter().map(|name| record.columns.get(name).map_or("", String::as_str));
                row(writer, own.into_iter().chain(others))
            }
            Format::Json(writer, has_some) => {
                let between: &[u8] = if *has_some { b",\n" } else { b"" };
                *has_some = true;
                writer.write_all(between).and_then(|()| write_json(&mut *writer, record)).and_then(|()| writer.flush())
            }
        };
        self.judge(written)
    }

    /// Ends it.
    pub(super) fn finish(mut self) -> Result<()> {
        let written = match &mut self.format {
            Format::Csv(writer, _) => writer.flush(),
            Format::Json(writer, _) => writer.write_all(b"\n]\n").and_then(|()| writer.flush()),
        };
        self.judge(written)
    }

    fn judge(&self, written: io::Result<()>) -> Result<()> {
        written.map_err(|error| io_failure(error, format!("writing {}", self.path.display())))
    }
}

/// An empty file in place of what has its name; a symlink is replaced, not followed.
fn create(path: &Path) -> Result<File, PlaceError> {
    let place = Place::of_new_file(path)?;
    let name = place.name().to_str().ok_or_else(|| io::Error::other("the name is not UTF-8"))?;
    let directory = place.listed_directory()?;
    let staged = Staged::create(directory.as_fd(), name)?;
    let file = staged.file().try_clone()?;
    staged.commit(Attributes { mode: MODE, uid: None, gid: None }, Lifetime::ThisBoot)?;
    Ok(file)
}

fn row<'a>(writer: &mut csv::Writer<File>, values: impl Iterator<Item = &'a str>) -> io::Result<()> {
    // A spreadsheet or a terminal shows it, and a line end inside would be a record more to a simple reader.
    writer
        .write_record(values.map(|value| escaped(value).into_owned()))
        .map_err(io::Error::from)
        .and_then(|()| writer.flush())
}
