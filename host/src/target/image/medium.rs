//! What a file system image consists of, wherever its bytes lie.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The block size of all file systems here, in bytes.
pub const BLOCK: u64 = 4096;
/// The same, of memory.
pub const BLOCK_BYTES: usize = 4096;

/// The bytes of a file system, numbered from its start.
pub trait Medium {
    /// How many there are.
    fn size(&self) -> u64;

    /// Fills the buffer from `offset` on.
    ///
    /// # Errors
    /// The I/O error; that the medium ends before is one.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Where in the image file a block lies as it is, and so can be overwritten; none where the image only describes it.
    fn offset_of(&self, block: u64) -> Option<u64>;
}

/// A raw image: the file system's bytes are the file's.
#[derive(Debug)]
pub struct Raw<'a> {
    file: &'a File,
    size: u64,
}

impl<'a> Raw<'a> {
    /// All of a file.
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
