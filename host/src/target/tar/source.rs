//! An archive as a sequence of bytes, wherever they come from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::target::error::Result;
use crate::target::problem::Problem;

/// The bytes of an archive, read from its start to its end.
pub trait Source {
    /// Fills the buffer with the bytes that follow.
    ///
    /// # Errors
    /// The archive ends before, or can't be read.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Problem>;

    /// Skips bytes.
    ///
    /// # Errors
    /// The archive ends before, or can't be read.
    fn skip(&mut self, length: u64) -> Result<(), Problem>;

    /// Everything that follows, if it is not more than `most` bytes.
    ///
    /// # Errors
    /// It is more, or can't be read.
    fn rest(&mut self, most: u64) -> Result<Vec<u8>, Problem>;
}

/// An archive that is a plain file.
#[derive(Debug)]
pub struct Plain<'f> {
    file: &'f File,
    size: u64,
    position: u64,
}

impl<'f> Plain<'f> {
    /// Starts at the first byte of a file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn new(file: &'f File) -> io::Result<Self> {
        Ok(Self { file, size: file.metadata()?.len(), position: 0 })
    }

    fn advance(&mut self, length: u64) -> Result<u64, Problem> {
        let end = self.position.checked_add(length).filter(|&end| end <= self.size);
        Ok(std::mem::replace(&mut self.position, end.ok_or(CUT)?))
    }
}

impl Source for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Problem> {
        let start = self.advance(buffer.len() as u64)?;
        Ok(self.file.read_exact_at(buffer, start)?)
    }

    fn skip(&mut self, length: u64) -> Result<(), Problem> {
        self.advance(length).map(drop)
    }

    fn rest(&mut self, most: u64) -> Result<Vec<u8>, Problem> {
        let left = self.size - self.position;
        if left > most {
            return Err(TOO_MUCH);
        }
        let mut bytes = vec![0; usize::try_from(left).unwrap_or_default()];
        self.read(&mut bytes)?;
        Ok(bytes)
    }
}

/// The archive ends too early.
pub(in crate::target) const CUT: Problem =
    Problem::Damaged { what: "tar archive", how: "it is cut", advice: "generate the images again" };
/// The archive goes on behind its end.
pub(in crate::target) const TOO_MUCH: Problem =
    Problem::Damaged { what: "tar archive", how: "too much follows its end", advice: "generate the images again" };
