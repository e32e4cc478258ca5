//! A zstd file, decompressed block by block, so that the block of each byte of content is known.
//!
//! The library decompresses the blocks and verifies content checksums. Memory use is the window and a block.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use twox_hash::XxHash64;
use zeroize::Zeroizing;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::frame::{
    BLOCK_HEADER, BlockHeader, CHECKSUM, FrameHeader, LONGEST_BLOCK, LONGEST_HEADER, MAGIC, SKIPPABLE_HEADER, damaged,
    skippable_length,
};
use crate::interrupt;
use crate::target::error::Result;
use crate::target::image::problem::Problem;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;
/// The base-2 logarithm of the largest window.
const LARGEST_WINDOW_LOG: u32 = 27;
/// Bytes of the skippable frame in which pzstd records the length of the frame behind it.
const LENGTH_RECORD: u64 = 12;
/// The most skippable frames that are remembered.
const MOST_SKIPPED: usize = 1000;

/// Limit of the content, in bytes: the larger of this and the size of the file times the ratio. Partitions are mostly zeros, of
/// which the format packs 32 KiB into a byte; a compressed root file system has some hundred MiB and more.
const MOST_CONTENT: u64 = 16 << 30;
const MOST_RATIO: u64 = 512;

/// A frame of the file.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Offset in the file.
    pub(super) offset: u64,
    pub(super) header: FrameHeader,
    /// Bytes of the header.
    pub(super) header_length: u64,
    /// Offset of the frame's content in the whole content.
    pub(super) start: u64,
    /// Offset of the skippable frame right before this one in which pzstd records its length.
    pub(super) length_record: Option<u64>,
}

/// The boundary before a block, at which a stream can be split.
#[derive(Clone, Debug)]
pub(super) struct Boundary {
    pub(super) frame: Frame,
    /// Offset of the block header in the file.
    pub(super) offset: u64,
    /// Offset of the header of the previous block in the same frame.
    pub(super) previous: Option<u64>,
    /// Offset of the block's content in the whole content.
    pub(super) start: u64,
    /// The state of the content checksum before the block, if the frame has one.
    pub(super) hash: XxHash64,
}

/// A block and its content.
pub(super) struct Block {
    pub(super) boundary: Boundary,
    pub(super) content: Zeroizing<Vec<u8>>,
}

impl Block {
    /// Returns the offset in the whole content at which the block ends.
    pub(super) fn end(&self) -> u64 {
        self.boundary.start + self.content.len() as u64
    }
}

/// A reader with an offset of its own, independent of the file position.
struct FileReader<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Reads the blocks of a file, in order.
pub(super) struct BlockReader<'f> {
    input: BufReader<FileReader<'f>>,
    /// Offset in the file of the next byte of input.
    offset: u64,
    decoder: Decoder<'static>,
    /// The input that is passed to the decoder at once.
    compressed: Vec<u8>,
    frame: Option<OpenFrame>,
    /// Skippable frames: offset and length in the file.
    skipped: Vec<(u64, u64)>,
    /// Bytes of content so far.
    end: u64,
    /// Limit of `end`.
    most: u64,
    /// Buffers to be used again.
    spare: Vec<Zeroizing<Vec<u8>>>,
}

struct OpenFrame {
    frame: Frame,
    previous: Option<u64>,
    hash: XxHash64,
}

impl std::fmt::Debug for BlockReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockReader").field("offset", &self.offset).field("end", &self.end).finish_non_exhaustive()
    }
}

impl<'f> BlockReader<'f> {
    /// Starts at the first byte of a file.
    ///
    /// # Errors
    /// The library can't be used, or the I/O error.
    pub(super) fn new(file: &'f File) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(LARGEST_WINDOW_LOG))?;
        Ok(Self {
            input: BufReader::with_capacity(CHUNK, FileReader { file, offset: 0 }),
            offset: 0,
            decoder,
            compressed: Vec::new(),
            frame: None,
            skipped: Vec::new(),
            end: 0,
            most: MOST_CONTENT.max(file.metadata()?.len().saturating_mul(MOST_RATIO)),
            spare: Vec::new(),
        })
    }

    /// Returns the offset in the file of the next byte to be read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the skippable frames so far: offset and length in the file.
    pub(super) fn skipped(&self) -> &[(u64, u64)] {
        &self.skipped
    }

    /// Forgets skippable frames before an offset in the file.
    pub(super) fn forget_skipped_before(&mut self, from: u64) {
        self.skipped.retain(|(offset, _)| *offset > from);
    }

    /// Reads and decompresses the next block, or returns `None` at the end of the file.
    ///
    /// # Errors
    /// The file is cut short, damaged, or can't be read.
    pub(super) fn next_block(&mut self) -> Result<Option<Block>, Problem> {
        self.compressed.clear();
        let open = match self.frame.take() {
            Some(open) => open,
            None => match self.open_frame()? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        self.read_block(open).map(Some)
    }

    /// Takes back the buffer of a block for later blocks.
    pub(super) fn reuse(&mut self, block: Block) {
        self.spare.push(block.content);
    }

    /// Skips skippable frames and reads the header of the next frame, or returns `None` at the end of the file.
    fn open_frame(&mut self) -> Result<Option<OpenFrame>, Problem> {
        let mut length_record = None;
        loop {
            let offset = self.offset;
            if self.input.fill_buf()?.is_empty() {
                return Ok(None);
            }
            let mut start = [0; SKIPPABLE_HEADER];
            let (magic, rest) = start.split_at_mut(MAGIC.len());
            self.input.read_exact(magic).map_err(read_error)?;
            if magic == MAGIC {
                self.compressed.extend_from_slice(&MAGIC);
                let (header, header_length) = self.read_frame_header()?;
                self.offset += header_length;
                let frame = Frame { offset, header, header_length, start: self.end, length_record };
                return Ok(Some(OpenFrame { frame, previous: None, hash: XxHash64::with_seed(0) }));
            }
            self.input.read_exact(rest).map_err(read_error)?;
            let length = skippable_length(start).ok_or(damaged("data that is no frame follows"))?;
            if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? != length {
                return Err(damaged("it is cut short"));
            }
            let length = SKIPPABLE_HEADER as u64 + length;
            self.offset += length;
            length_record = (length == LENGTH_RECORD).then_some(offset);
            if self.skipped.len() == MOST_SKIPPED {
                return Err(damaged("it has too many skippable frames"));
            }
            self.skipped.push((offset, length));
        }
    }

    /// Reads the rest of a frame header, after its magic number. Reads byte by byte, because its length follows from its start.
    fn read_frame_header(&mut self) -> Result<(FrameHeader, u64), Problem> {
        loop {
            match FrameHeader::parse(&self.compressed) {
                Err(Problem::Damaged { .. }) if self.compressed.len() < LONGEST_HEADER => {}
                parsed => return parsed.map(|(header, length)| (header, length as u64)),
            }
            let mut byte = [0];
            self.input.read_exact(&mut byte).map_err(read_error)?;
            self.compressed.extend_from_slice(&byte);
        }
    }

    /// Reads a block, decompresses it, and closes its frame if it is the last one.
    fn read_block(&mut self, mut open: OpenFrame) -> Result<Block, Problem> {
        interrupt::check()?;
        let offset = self.offset;
        let mut header = [0; BLOCK_HEADER];
        self.input.read_exact(&mut header).map_err(read_error)?;
        self.compressed.extend_from_slice(&header);
        let header = BlockHeader::parse(header)?;
        let checksum = if header.is_last && open.frame.header.has_checksum() { CHECKSUM } else { 0 };
        let length = header.length + checksum;
        let read = (&mut self.input).take(length).read_to_end(&mut self.compressed)?;
        if read as u64 != length {
            return Err(damaged("it is cut short"));
        }
        self.offset += BLOCK_HEADER as u64 + length;
        let content = self.decompress()?;

        let boundary = Boundary {
            frame: open.frame.clone(),
            offset,
            previous: open.previous,
            start: self.end,
            hash: open.hash.clone(),
        };
        self.end += content.len() as u64;
        if self.end > self.most {
            return Err(Problem::Refused(
                "decompresses to more than 512 times its size and more than 16 GiB, more than any root file system; generate the images again",
            ));
        }
        if !header.is_last {
            if open.frame.header.has_checksum() {
                open.hash.write(&content);
            }
            open.previous = Some(offset);
            self.frame = Some(open);
        }
        Ok(Block { boundary, content })
    }

    /// Decompresses the input that was read. The decoder consumes all of it, because it gets whole blocks.
    fn decompress(&mut self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let mut content = self.spare.pop().unwrap_or_default();
        content.clear();
        content.reserve_exact(LONGEST_BLOCK as usize);
        let mut input = InBuffer::around(&self.compressed);
        let mut output = OutBuffer::around(&mut *content);
        while input.pos() < self.compressed.len() {
            let before = (input.pos(), output.pos());
            self.decoder.run(&mut input, &mut output).map_err(|error| decoding_error(&error))?;
            if before == (input.pos(), output.pos()) {
                return Err(damaged("a block decompresses to more than 128 KiB"));
            }
        }
        Ok(content)
    }
}

/// Returns the error for a read that failed or found the end of the file.
fn read_error(error: io::Error) -> Problem {
    if error.kind() == io::ErrorKind::UnexpectedEof { damaged("it is cut short") } else { Problem::Io(error) }
}

/// Returns the error for a block that the library refuses.
fn decoding_error(error: &io::Error) -> Problem {
    let text = error.to_string();
    if text.contains("checksum") {
        damaged("its content does not match its checksum")
    } else {
        damaged("a block can't be decompressed")
    }
}
