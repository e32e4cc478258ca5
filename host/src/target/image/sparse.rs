//! Android sparse images: a table of chunks that describes a raw image (`system.img` of flash.sh and mksparse).
//!
//! Source: AOSP's libsparse, `sparse_format.h`. Numbers from the image are never trusted.

mod writer;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use writer::Writer;

use super::copy::copy;
use super::ext4;
use super::medium::{BLOCK, BLOCK_BYTES, Medium};
pub use super::problem::Problem;
use crate::target::error::Result;
use Problem::Refused;

const MAGIC: u32 = 0xED26_FF3A;
/// Of the headers of version 1.0, in bytes.
const HEADER: usize = 28;
const CHUNK_HEADER: usize = 12;
/// Where in the header the checksum of the raw image is; 0 is none.
const CHECKSUM: usize = 24;
const RAW: u16 = 0xCAC1;
const FILL: u16 = 0xCAC2;
const DONT_CARE: u16 = 0xCAC3;
const CRC32: u16 = 0xCAC4;

/// More than any image has: of 14 GiB, one has some thousands. Each takes 32 bytes of memory.
const MOST_CHUNKS: u32 = 1_000_000;
/// Bytes that chunks of one word other than zero may unpack to, and the part of the file besides: its tenth.
const MOST_FILLED: u64 = 16 << 20;
/// Bytes of the same word that are written at a time.
const WORDS: usize = 64 << 10;

fn damaged(how: &'static str) -> Problem {
    Problem::Damaged { what: "table of chunks", how, advice: "generate it again" }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// As it is, from this offset in the file on.
    Raw(u64),
    /// Four bytes again and again.
    Fill([u8; 4]),
    /// Anything; zeros here.
    DontCare,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: u64,
    blocks: u64,
    body: Body,
}

/// Whether it is a word other than zero.
fn is_filled(body: Body) -> bool {
    matches!(body, Body::Fill(word) if word != [0; 4])
}

/// Small parts of a file that lie close together, read together.
struct Headers<'f> {
    file: &'f File,
    /// Offset of what was read last.
    start: u64,
    bytes: Vec<u8>,
}

impl Headers<'_> {
    /// The bytes at an offset, if the file has them.
    fn at<const N: usize>(&mut self, offset: u64) -> io::Result<Option<[u8; N]>> {
        if let Some(known) = self.known(offset) {
            return Ok(Some(known));
        }
        self.bytes.resize(BLOCK_BYTES, 0);
        let mut length = 0;
        while let Some(room) = self.bytes.get_mut(length..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, offset + length as u64)? {
                0 => break,
                read => length += read,
            }
        }
        self.bytes.truncate(length);
        self.start = offset;
        Ok(self.known(offset))
    }

    fn known<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..)?.first_chunk().copied()
    }
}

/// A sparse image as the raw one that it describes.
#[derive(Debug)]
pub struct Sparse<'a> {
    file: &'a File,
    chunks: Vec<Chunk>,
    blocks: u64,
    chunk_header: u16,
    first_chunk: u64,
    /// Where the last chunk ends.
    end: u64,
    /// Whether it carries checksums of the raw image, which a changed block would make wrong (`make_ext4fs -c`).
    has_checksums: bool,
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..).and_then(|tail| tail.first_chunk()).copied().map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|tail| tail.first_chunk()).copied().map_or(0, u32::from_le_bytes)
}

impl<'a> Sparse<'a> {
    /// Reads the table of chunks.
    ///
    /// # Errors
    /// The file is cut, or contradicts itself.
    pub fn open(file: &'a File) -> Result<Self, Problem> {
        let size = file.metadata()?.len();
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(|_| damaged("the header is cut"))?;
        let (file_header, chunk_header) = (u16_at(&header, 8), u16_at(&header, 10));
        if u32_at(&header, 0) != MAGIC || u16_at(&header, 4) != 1 {
            return Err(Refused("is a sparse image of another version than 1; generate it with mksparse or img2simg"));
        }
        let has_room = usize::from(file_header) >= HEADER && usize::from(chunk_header) >= CHUNK_HEADER;
        if !has_room || u64::from(file_header) > size {
            return Err(damaged("the headers have no room"));
        }
        if u64::from(u32_at(&header, 12)) != BLOCK {
            return Err(Refused("has blocks of another size than 4096 bytes; generate it with those"));
        }
        let chunks = u32_at(&header, 20);
        if chunks > MOST_CHUNKS {
            return Err(damaged("there are too many"));
        }
        let mut sparse = Self {
            file,
            chunks: Vec::new(),
            blocks: 0,
            chunk_header,
            first_chunk: file_header.into(),
            end: file_header.into(),
            has_checksums: u32_at(&header, CHECKSUM) != 0,
        };
        let mut headers = Headers { file, start: 0, bytes: Vec::new() };
        for _ in 0..chunks {
            sparse.read_chunk(&mut headers, size)?;
        }
        if sparse.blocks != u64::from(u32_at(&header, 16)) {
            return Err(damaged("the chunks are not as many blocks as the header says"));
        }
        Ok(sparse)
    }

    fn read_chunk(&mut self, headers: &mut Headers<'_>, size: u64) -> Result<(), Problem> {
        let header: [u8; CHUNK_HEADER] = headers.at(self.end)?.ok_or(damaged("the file ends before its chunks do"))?;
        let (blocks, total) = (u64::from(u32_at(&header, 4)), u64::from(u32_at(&header, 8)));
        let start = self.end + u64::from(self.chunk_header);
        let bytes = total.checked_sub(self.chunk_header.into()).ok_or(damaged("a chunk is smaller than its header"))?;
        let end = start.checked_add(bytes).filter(|&end| end <= size).ok_or(damaged("a chunk is cut"))?;
        let body = match u16_at(&header, 0) {
            RAW if Some(bytes) == blocks.checked_mul(BLOCK) => Body::Raw(start),
            FILL if bytes == 4 => Body::Fill(headers.at(start)?.ok_or(damaged("a chunk is cut"))?),
            DONT_CARE if bytes == 0 => Body::DontCare,
            CRC32 if bytes == 4 && blocks == 0 => {
                (self.has_checksums, self.end) = (true, end);
                return Ok(());
            }
            RAW | FILL | DONT_CARE | CRC32 => return Err(damaged("a chunk has another length than its kind")),
            _ => return Err(damaged("a chunk is of no known kind")),
        };
        self.chunks.push(Chunk { first: self.blocks, blocks, body });
        // Each is below 2^32, and there are fewer than 2^32 of them.
        self.blocks += blocks;
        self.end = end;
        Ok(())
    }

    /// Whether it carries checksums of what it describes. Then no block has a place of its own until it is written again without.
    pub fn has_checksums(&self) -> bool {
        self.has_checksums
    }

    /// The chunk with this block.
    fn chunk(&self, block: u64) -> Option<&Chunk> {
        let after = self.chunks.partition_point(|chunk| chunk.first <= block);
        let chunk = self.chunks.get(after.checked_sub(1)?)?;
        (block - chunk.first < chunk.blocks).then_some(chunk)
    }

    /// Bytes that the raw image takes on a disk with holes.
    pub fn unpacked_bytes(&self) -> u64 {
        self.bytes_of(|body| matches!(body, Body::Raw(_)) || is_filled(body))
    }

    fn bytes_of(&self, counts: impl Fn(Body) -> bool) -> u64 {
        self.chunks.iter().filter(|chunk| counts(chunk.body)).map(|chunk| chunk.blocks * BLOCK).sum()
    }

    /// Refuses an image that describes much more than the file system in it, or than its own bytes: it would fill the disk.
    ///
    /// # Errors
    /// It does.
    pub fn check_claims(&self, file_system: u64) -> Result<(), Problem> {
        if !ext4::is_plausible(self.size(), file_system) {
            return Err(Refused("describes much more than the file system in it; generate it again"));
        }
        if self.bytes_of(is_filled) > MOST_FILLED + self.file.metadata()?.len() / 10 {
            return Err(Refused(
                "is filled with one word to a large part, which is no root file system; provision the rootfs directory",
            ));
        }
        Ok(())
    }

    /// Writes the raw image that it describes into an empty file; zeros, and what nobody cares for, are holes there.
    ///
    /// # Errors
    /// The I/O error.
    pub fn unpack(&self, raw: &File) -> io::Result<()> {
        raw.set_len(self.blocks * BLOCK)?;
        for chunk in &self.chunks {
            match chunk.body {
                Body::Raw(offset) => copy(self.file, offset, raw, chunk.first * BLOCK, chunk.blocks * BLOCK)?,
                Body::Fill(word) if is_filled(chunk.body) => {
                    let words = word.repeat(WORDS / 4);
                    let (mut at, end) = (chunk.first * BLOCK, (chunk.first + chunk.blocks) * BLOCK);
                    while at < end {
                        let length = usize::try_from(end - at).map_or(WORDS, |left| left.min(WORDS));
                        raw.write_all_at(words.get(..length).unwrap_or_default(), at)?;
                        at += length as u64;
                    }
                }
                Body::Fill(_) | Body::DontCare => {}
            }
        }
        Ok(())
    }

    /// Writes a sparse image of `raw` into an empty file, with the same chunks but where `raw` differs from what is
    /// described here: those blocks become raw. It carries no checksums.
    ///
    /// # Errors
    /// The I/O error.
    pub fn repack(&self, raw: &File, into: &File) -> Result<(), Problem> {
        let mut writer = Writer { into, raw, chunk_header: self.chunk_header, end: self.first_chunk, chunks: 0 };
        // Of a longer header, also what version 1.0 does not know.
        copy(self.file, 0, into, 0, self.first_chunk)?;
        for chunk in &self.chunks {
            let Chunk { first, blocks, body } = *chunk;
            if let Body::Raw(_) = body {
                writer.put(first, blocks, body)?;
                continue;
            }
            let mut done = first;
            let mut next = writer.next_changed(chunk, first)?;
            while let Some(changed) = next {
                writer.put(done, changed - done, body)?;
                let same = writer.next_unchanged(chunk, changed)?;
                writer.put(changed, same - changed, Body::Raw(0))?;
                (done, next) = (same, writer.next_changed(chunk, same)?);
            }
            writer.put(done, first + blocks - done, body)?;
        }
        let fields = [writer.chunks.to_le_bytes(), [0; 4]];
        into.write_all_at(fields.as_flattened(), CHECKSUM as u64 - 4)?;
        let rest = self.file.metadata()?.len().saturating_sub(self.end);
        Ok(copy(self.file, self.end, into, writer.end, rest)?)
    }
}

impl Medium for Sparse<'_> {
    fn size(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK)
    }

    fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let chunk = self.chunk(offset / BLOCK).ok_or(io::ErrorKind::UnexpectedEof)?;
            let start = offset - chunk.first * BLOCK;
            let left = chunk.blocks * BLOCK - start;
            let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let (part, rest) = buffer.split_at_mut(length);
            match chunk.body {
                Body::Raw(place) => self.file.read_exact_at(part, place + start)?,
                Body::Fill(word) => {
                    let words = word.iter().cycle().skip((start % 4) as usize);
                    part.iter_mut().zip(words).for_each(|(byte, filler)| *byte = *filler);
                }
                Body::DontCare => part.fill(0),
            }
            buffer = rest;
            offset += length as u64;
        }
        Ok(())
    }

    fn offset_of(&self, block: u64) -> Option<u64> {
        // One that carries checksums is written again without them first.
        let chunk = self.chunk(block).filter(|_| !self.has_checksums)?;
        if let Body::Raw(place) = chunk.body { Some(place + (block - chunk.first) * BLOCK) } else { None }
    }
}

#[cfg(test)]
mod tests;
