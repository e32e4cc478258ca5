//! The sources of an archive's bytes: a plain file, or a decompressed stream.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::target::error::Result;
use crate::target::image::problem::Problem;

/// The bytes of an archive, read once from start to end.
pub trait Source {
    /// Fills the buffer with the next bytes, and returns how many were read: fewer only at the end.
    ///
    /// # Errors
    /// The archive can't be read.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Problem>;

    /// Skips `length` bytes.
    ///
    /// # Errors
    /// The archive ends earlier, or can't be read.
    fn skip(&mut self, length: u64) -> Result<(), Problem>;
}

/// An uncompressed archive in a file.
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
}

impl Source for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        self.file.read_exact_at(buffer.get_mut(..length).unwrap_or_default(), self.position)?;
        self.position += length as u64;
        Ok(length)
    }

    fn skip(&mut self, length: u64) -> Result<(), Problem> {
        self.position = self.position.checked_add(length).filter(|&end| end <= self.size).ok_or(CUT)?;
        Ok(())
    }
}

/// The error for an archive that ends too early.
pub(in crate::target) const CUT: Problem =
    Problem::Damaged { what: "tar archive", how: "it is cut short", advice: "generate the images again" };
