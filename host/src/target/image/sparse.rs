//! Reads and writes Android sparse images: a table of chunks that describes a raw image (`system.img` of flash.sh and
//! mksparse).
//!
//! Source: AOSP's libsparse, `sparse_format.h`. Numbers from the image are never trusted.

mod headers;
mod writer;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use headers::{Headers, u16_at, u32_at};
use writer::Writer;

use super::copy::copy;
use super::ext4;
use super::medium::{BLOCK, Medium};
pub use super::problem::Problem;
use crate::target::error::Result;
use Problem::Refused;

const MAGIC: u32 = 0xED26_FF3A;
/// Sizes of the headers of version 1.0, in bytes.
const HEADER: usize = 28;
const CHUNK_HEADER: usize = 12;
/// Offset in the header of the checksum of the raw image; the value 0 means none.
const CHECKSUM: usize = 24;
const RAW: u16 = 0xCAC1;
const FILL: u16 = 0xCAC2;
const DONT_CARE: u16 = 0xCAC3;
const CRC32: u16 = 0xCAC4;

/// Largest number of chunks, more than any image has: one of 14 GiB has some thousands. Each uses 32 bytes of memory.
const MAX_CHUNKS: u32 = 1_000_000;
/// Bytes that fill chunks with another word than zero may unpack to, in addition to a tenth of the file size.
const MAX_FILLED: u64 = 16 << 20;
/// Bytes of a fill chunk that are written at a time.
const FILL_BYTES: usize = 64 << 10;

fn damaged(how: &'static str) -> Problem {
    Problem::Damaged { what: "table of chunks", how, advice: "generate it again" }
}

/// The content of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// The bytes themselves, from this offset of the file on.
    Raw(u64),
    /// Four bytes, repeated.
    Fill([u8; 4]),
    /// Unspecified content; read as zeros.
    DontCare,
}

/// A run of blocks with one kind of content.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: u64,
    blocks: u64,
    body: Body,
}

/// Returns whether a chunk is filled with another word than zero.
fn is_filled(body: Body) -> bool {
    matches!(body, Body::Fill(word) if word != [0; 4])
}

/// An open sparse image, which is read as the raw image that it describes.
#[derive(Debug)]
pub struct Sparse<'a> {
    file: &'a File,
    chunks: Vec<Chunk>,
    blocks: u64,
    chunk_header: u16,
    first_chunk: u64,
    /// Offset of the end of the last chunk.
    end: u64,
    /// Whether it contains checksums of the raw image, which a changed block would invalidate (`make_ext4fs -c`).
    has_checksums: bool,
}

impl<'a> Sparse<'a> {
    /// Reads the table of chunks.
    ///
    /// # Errors
    /// The file is truncated, or contradicts itself.
    pub fn open(file: &'a File) -> Result<Self, Problem> {
        let size = file.metadata()?.len();
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(|_| damaged("the header is truncated"))?;
        let (file_header, chunk_header) = (u16_at(&header, 8), u16_at(&header, 10));
        if u32_at(&header, 0) != MAGIC || u16_at(&header, 4) != 1 {
            return Err(Refused("is a sparse image of another version than 1; generate it with mksparse or img2simg"));
        }
        let has_valid_sizes = usize::from(file_header) >= HEADER && usize::from(chunk_header) >= CHUNK_HEADER;
        if !has_valid_sizes || u64::from(file_header) > size {
            return Err(damaged("the header sizes are invalid"));
        }
        if u64::from(u32_at(&header, 12)) != BLOCK {
            return Err(Refused("has blocks of another size than 4096 bytes; generate it with blocks of 4096 bytes"));
        }
        let chunks = u32_at(&header, 20);
        if chunks > MAX_CHUNKS {
            return Err(damaged("it has too many chunks"));
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
        let mut headers = Headers::new(file);
        for _ in 0..chunks {
            sparse.read_chunk(&mut headers, size)?;
        }
        if sparse.blocks != u64::from(u32_at(&header, 16)) {
            return Err(damaged("the chunks do not have as many blocks as the header says"));
        }
        Ok(sparse)
    }

    /// Reads the header of the next chunk.
    fn read_chunk(&mut self, headers: &mut Headers<'_>, size: u64) -> Result<(), Problem> {
        let header: [u8; CHUNK_HEADER] = headers.at(self.end)?.ok_or(damaged("the file ends before the last chunk"))?;
        let (blocks, total) = (u64::from(u32_at(&header, 4)), u64::from(u32_at(&header, 8)));
        let start = self.end + u64::from(self.chunk_header);
        let bytes = total.checked_sub(self.chunk_header.into()).ok_or(damaged("a chunk is smaller than its header"))?;
        let end = start.checked_add(bytes).filter(|&end| end <= size).ok_or(damaged("a chunk is truncated"))?;
        let body = match u16_at(&header, 0) {
            RAW if Some(bytes) == blocks.checked_mul(BLOCK) => Body::Raw(start),
            FILL if bytes == 4 => Body::Fill(headers.at(start)?.ok_or(damaged("a chunk is truncated"))?),
            DONT_CARE if bytes == 0 => Body::DontCare,
            CRC32 if bytes == 4 && blocks == 0 => {
                (self.has_checksums, self.end) = (true, end);
                return Ok(());
            }
            RAW | FILL | DONT_CARE | CRC32 => return Err(damaged("the length of a chunk does not match its type")),
            _ => return Err(damaged("a chunk has an unknown type")),
        };
        self.chunks.push(Chunk { first: self.blocks, blocks, body });
        // Cannot overflow: each is below 2^32, and there are fewer than 2^32 of them.
        self.blocks += blocks;
        self.end = end;
        Ok(())
    }

    /// Returns whether it contains checksums of the raw image. Then no block can be overwritten in place until the
    /// image is rewritten without them.
    pub fn has_checksums(&self) -> bool {
        self.has_checksums
    }

    /// Returns the chunk that contains a block.
    fn chunk(&self, block: u64) -> Option<&Chunk> {
        let after = self.chunks.partition_point(|chunk| chunk.first <= block);
        let chunk = self.chunks.get(after.checked_sub(1)?)?;
        (block - chunk.first < chunk.blocks).then_some(chunk)
    }

    /// Returns the bytes that the raw image uses on disk, not counting holes.
    pub fn unpacked_bytes(&self) -> u64 {
        self.bytes_of(|body| matches!(body, Body::Raw(_)) || is_filled(body))
    }

    /// Returns the total size of the chunks that `counts` selects.
    fn bytes_of(&self, counts: impl Fn(Body) -> bool) -> u64 {
        self.chunks.iter().filter(|chunk| counts(chunk.body)).map(|chunk| chunk.blocks * BLOCK).sum()
    }

    /// Refuses an image that describes much more than the file system in it, or than its own size: it would fill the
    /// disk.
    ///
    /// # Errors
    /// The image is refused.
    pub fn check_claims(&self, file_system: u64) -> Result<(), Problem> {
        if !ext4::is_plausible(self.size(), file_system) {
            return Err(Refused("describes much more than the file system in it; generate it again"));
        }
        if self.bytes_of(is_filled) > MAX_FILLED + self.file.metadata()?.len() / 10 {
            return Err(Refused(
                "consists largely of one repeated word, so it is no root file system; provision the rootfs directory",
            ));
        }
        Ok(())
    }

    /// Writes the raw image that it describes into an empty file. Zeros and unspecified content become holes.
    ///
    /// # Errors
    /// The I/O error.
    pub fn unpack(&self, raw: &File) -> io::Result<()> {
        raw.set_len(self.blocks * BLOCK)?;
        for chunk in &self.chunks {
            match chunk.body {
                Body::Raw(offset) => copy(self.file, offset, raw, chunk.first * BLOCK, chunk.blocks * BLOCK)?,
                Body::Fill(word) if is_filled(chunk.body) => {
                    let words = word.repeat(FILL_BYTES / 4);
                    let (mut at, end) = (chunk.first * BLOCK, (chunk.first + chunk.blocks) * BLOCK);
                    while at < end {
                        let length = usize::try_from(end - at).map_or(FILL_BYTES, |left| left.min(FILL_BYTES));
                        raw.write_all_at(words.get(..length).unwrap_or_default(), at)?;
                        at += length as u64;
                    }
                }
                Body::Fill(_) | Body::DontCare => {}
            }
        }
        Ok(())
    }

    /// Writes a sparse image of `raw` into an empty file. It has the same chunks, except that blocks of `raw` that
    /// differ from this image become raw chunks. It contains no checksums.
    ///
    /// # Errors
    /// The I/O error.
    pub fn repack(&self, raw: &File, into: &File) -> Result<(), Problem> {
        let mut writer = Writer { into, raw, chunk_header: self.chunk_header, end: self.first_chunk, chunks: 0 };
        // Copy the whole header, which may be longer than that of version 1.0.
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
                Body::Raw(offset) => self.file.read_exact_at(part, offset + start)?,
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
        // An image with checksums must first be rewritten without them.
        let chunk = self.chunk(block).filter(|_| !self.has_checksums)?;
        if let Body::Raw(offset) = chunk.body { Some(offset + (block - chunk.first) * BLOCK) } else { None }
    }
}

#[cfg(test)]
mod tests;
