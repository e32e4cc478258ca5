//! A zstd file, decompressed block by block, so that each byte of content is known by the block that it comes from.
//!
//! The library decompresses and verifies content checksums; memory is the window and what is retained.

use std::collections::VecDeque;
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
use crate::target::image::tar::source::{CUT, Source};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;
/// The base-2 logarithm of the largest window.
const LARGEST_WINDOW_LOG: u32 = 27;
/// Bytes of the skippable frame in which pzstd notes the length of the frame behind it.
const LENGTH_NOTE: u64 = 12;
/// Skippable frames that may follow what is retained.
const MOST_SKIPPED: usize = 1000;

/// Bytes of content that a file may have: this, or so many times its own size, whichever is more. Partitions are mostly zeros,
/// of which the format packs 32 KiB into a byte; a compressed root file system has some hundred MiB and more.
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
    /// Offset of its content in all content.
    pub(super) start: u64,
    /// Offset of the skippable frame right before it in which pzstd notes the length of this one.
    pub(super) length_note: Option<u64>,
}

/// The boundary before a block, where a stream can be cut.
#[derive(Clone, Debug)]
pub(super) struct Boundary {
    pub(super) frame: Frame,
    /// Offset of the block header in the file.
    pub(super) offset: u64,
    /// That of the block before it in the same frame.
    pub(super) previous: Option<u64>,
    /// Offset of the block's content in all content.
    pub(super) start: u64,
    /// The content checksum's state, of the frame's content before the block, if the frame has one.
    pub(super) hash: XxHash64,
}

/// A block and its content.
pub(super) struct Block {
    pub(super) boundary: Boundary,
    pub(super) content: Zeroizing<Vec<u8>>,
}

impl Block {
    /// Offset of its end in all content.
    pub(super) fn end(&self) -> u64 {
        self.boundary.start + self.content.len() as u64
    }
}

/// A file read by offset, whatever else reads it.
struct Bytes<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// The content of a file. As a [`Source`], it retains the blocks from the start of the last `read` on.
pub struct Stream<'f> {
    input: BufReader<Bytes<'f>>,
    /// Offset in the file of the next byte of input.
    offset: u64,
    decoder: Decoder<'static>,
    /// What is given to the decoder at a time.
    compressed: Vec<u8>,
    frame: Option<OpenFrame>,
    /// Skippable frames since the oldest retained block: offset and length in the file.
    pub(super) skipped: Vec<(u64, u64)>,
    /// Bytes of content so far.
    end: u64,
    /// Bytes that there may be.
    most: u64,
    retained: VecDeque<Block>,
    /// Of the [`Source`], in all content.
    position: u64,
    /// Buffers to be used again.
    spare: Vec<Zeroizing<Vec<u8>>>,
}

struct OpenFrame {
    frame: Frame,
    previous: Option<u64>,
    hash: XxHash64,
}

impl std::fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("offset", &self.offset).field("end", &self.end).finish_non_exhaustive()
    }
}

impl<'f> Stream<'f> {
    /// Starts at the first byte of a file.
    ///
    /// # Errors
    /// The library can't be used.
    pub fn new(file: &'f File) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(LARGEST_WINDOW_LOG))?;
        Ok(Self {
            input: BufReader::with_capacity(CHUNK, Bytes { file, offset: 0 }),
            offset: 0,
            decoder,
            compressed: Vec::new(),
            frame: None,
            skipped: Vec::new(),
            end: 0,
            most: MOST_CONTENT.max(file.metadata()?.len().saturating_mul(MOST_RATIO)),
            retained: VecDeque::new(),
            position: 0,
            spare: Vec::new(),
        })
    }

    /// The next block with its content, in the order of the file; none at its end.
    ///
    /// # Errors
    /// The file is cut, damaged, or can't be read.
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

    /// Takes back the memory of a block.
    pub(super) fn reuse(&mut self, block: Block) {
        self.spare.push(block.content);
    }

    /// Reads the header of the next frame, over skippable ones; none at the end of the file.
    fn open_frame(&mut self) -> Result<Option<OpenFrame>, Problem> {
        let mut length_note = None;
        loop {
            let offset = self.offset;
            if self.input.fill_buf()?.is_empty() {
                return Ok(None);
            }
            let mut start = [0; SKIPPABLE_HEADER];
            let (magic, rest) = start.split_at_mut(MAGIC.len());
            self.input.read_exact(magic).map_err(cut)?;
            if magic == MAGIC {
                self.compressed.extend_from_slice(&MAGIC);
                let (header, header_length) = self.read_frame_header()?;
                self.offset += header_length;
                let frame = Frame { offset, header, header_length, start: self.end, length_note };
                return Ok(Some(OpenFrame { frame, previous: None, hash: XxHash64::with_seed(0) }));
            }
            self.input.read_exact(rest).map_err(cut)?;
            let length = skippable_length(start).ok_or(damaged("something that is no frame follows"))?;
            if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? != length {
                return Err(damaged("it is cut"));
            }
            let length = SKIPPABLE_HEADER as u64 + length;
            self.offset += length;
            length_note = (length == LENGTH_NOTE).then_some(offset);
            if self.skipped.len() == MOST_SKIPPED {
                return Err(damaged("it has too many skippable frames"));
            }
            self.skipped.push((offset, length));
        }
    }

    /// Reads the rest of a frame header, after its magic number, byte by byte, for only its start says how long it is.
    fn read_frame_header(&mut self) -> Result<(FrameHeader, u64), Problem> {
        loop {
            match FrameHeader::parse(&self.compressed) {
                Err(Problem::Damaged { .. }) if self.compressed.len() < LONGEST_HEADER => {}
                parsed => return parsed.map(|(header, length)| (header, length as u64)),
            }
            let mut byte = [0];
            self.input.read_exact(&mut byte).map_err(cut)?;
            self.compressed.extend_from_slice(&byte);
        }
    }

    /// Reads a block, decompresses it, and closes its frame if it is the last one.
    fn read_block(&mut self, mut open: OpenFrame) -> Result<Block, Problem> {
        interrupt::check()?;
        let offset = self.offset;
        let mut header = [0; BLOCK_HEADER];
        self.input.read_exact(&mut header).map_err(cut)?;
        self.compressed.extend_from_slice(&header);
        let header = BlockHeader::parse(header)?;
        let checksum = if header.is_last && open.frame.header.has_checksum() { CHECKSUM } else { 0 };
        let length = header.length + checksum;
        let read = (&mut self.input).take(length).read_to_end(&mut self.compressed)?;
        if read as u64 != length {
            return Err(damaged("it is cut"));
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
                "decompresses to more than 512 times its size and more than 16 GiB, as no root file system does; generate the images again",
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

    /// Decompresses what was read: the decoder keeps no input back, for it gets whole blocks.
    fn decompress(&mut self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let mut content = self.spare.pop().unwrap_or_default();
        content.clear();
        content.reserve_exact(LONGEST_BLOCK as usize);
        let mut input = InBuffer::around(&self.compressed);
        let mut output = OutBuffer::around(&mut *content);
        while input.pos() < self.compressed.len() {
            let before = (input.pos(), output.pos());
            self.decoder.run(&mut input, &mut output).map_err(|error| why(&error))?;
            if before == (input.pos(), output.pos()) {
                return Err(damaged("a block has more content than it may"));
            }
        }
        Ok(content)
    }

    /// The block at the position, or none at the end of the file.
    fn at_position(&mut self) -> Result<Option<&Block>, Problem> {
        while self.retained.back().is_none_or(|block| block.end() <= self.position) {
            match self.next_block()? {
                Some(block) => self.retained.push_back(block),
                None => return Ok(None),
            }
        }
        let position = self.position;
        Ok(self.retained.iter().find(|block| block.end() > position))
    }

    /// Forgets what lies before the position, but for the last block, in which the content may end.
    fn forget(&mut self) {
        while self.retained.len() > 1 && self.retained.front().is_some_and(|block| block.end() <= self.position) {
            self.spare.extend(self.retained.pop_front().map(|block| block.content));
        }
        let from = self.retained.front().map_or(self.offset, |block| block.boundary.offset);
        self.skipped.retain(|(offset, _)| *offset > from);
    }

    /// Of the retained blocks, that with this byte of content, or the last one if the content ends there: the boundary before it,
    /// and its content up to that byte.
    pub(super) fn cut_at(&self, end: u64) -> Option<(Boundary, Zeroizing<Vec<u8>>)> {
        let block = self.retained.iter().find(|block| block.end() > end).or(self.retained.back())?;
        let length = usize::try_from(end.checked_sub(block.boundary.start)?).ok()?;
        Some((block.boundary.clone(), Zeroizing::new(block.content.get(..length)?.to_vec())))
    }
}

impl Source for Stream<'_> {
    fn read(&mut self, mut buffer: &mut [u8]) -> Result<usize, Problem> {
        self.forget();
        let before = self.position;
        while !buffer.is_empty() {
            let position = self.position;
            let Some(block) = self.at_position()? else { break };
            let content = rest_of(block, position);
            let length = content.len().min(buffer.len());
            let (part, rest) = buffer.split_at_mut(length);
            part.copy_from_slice(content.get(..length).unwrap_or_default());
            buffer = rest;
            self.position += length as u64;
        }
        Ok(usize::try_from(self.position - before).unwrap_or_default())
    }

    fn skip(&mut self, mut length: u64) -> Result<(), Problem> {
        while length > 0 {
            self.forget();
            let position = self.position;
            let left = rest_of(self.at_position()?.ok_or(CUT)?, position).len() as u64;
            let step = left.min(length);
            self.position += step;
            length -= step;
        }
        Ok(())
    }
}

/// The content of a block from a position on.
fn rest_of(block: &Block, position: u64) -> &[u8] {
    let skip = usize::try_from(position - block.boundary.start).unwrap_or(usize::MAX);
    block.content.get(skip..).unwrap_or_default()
}

fn cut(error: io::Error) -> Problem {
    if error.kind() == io::ErrorKind::UnexpectedEof { damaged("it is cut") } else { Problem::Io(error) }
}

/// Why the library refuses a block.
fn why(error: &io::Error) -> Problem {
    let text = error.to_string();
    if text.contains("checksum") {
        damaged("its content has another checksum")
    } else {
        damaged("a block can't be decompressed")
    }
}
