//! Random access to the bytes of a file system image, whatever format stores them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The block size of all file systems here, in bytes.
pub const BLOCK: u64 = 4096;
/// [`BLOCK`] as the size of a buffer.
pub const BLOCK_BYTES: usize = 4096;

/// The bytes of a file system, addressed from its start.
pub trait Medium {
    /// Returns the number of bytes.
    fn size(&self) -> u64;

    /// Fills the buffer with the bytes from `offset` on.
    ///
    /// # Errors
    /// The I/O error. If the medium ends before the buffer is full, that is one.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Returns the offset in the image file at which a block can be overwritten; `None` if the file does not store the
    /// block's bytes as they are.
    fn offset_of(&self, block: u64) -> Option<u64>;
}

/// A raw image: the file consists of the bytes of the file system.
#[derive(Debug)]
pub struct Raw<'a> {
    file: &'a File,
    size: u64,
}

impl<'a> Raw<'a> {
    /// Uses a whole file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, size: file.metadata()?.len() })
    }
}

impl Medium for Raw<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn offset_of(&self, block: u64) -> Option<u64> {
        block.checked_mul(BLOCK).filter(|offset| offset.checked_add(BLOCK).is_some_and(|end| end <= self.size))
    }
}
