//! Takes Android sparse images apart and puts them together, for variants that no program writes.

use std::fs;
use std::path::Path;

use crate::oracle::{self, raw_copy};
use crate::recipe::put;

pub(crate) const RAW: u16 = 0xCAC1;
pub(crate) const FILL: u16 = 0xCAC2;
pub(crate) const DONT_CARE: u16 = 0xCAC3;
pub(crate) const CRC32: u16 = 0xCAC4;
const HEADER: usize = 28;
const CHUNK_HEADER: usize = 12;
const BLOCK: usize = 4096;

/// A chunk: its number of blocks, kind and body.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) kind: u16,
    pub(crate) blocks: u32,
    pub(crate) body: Vec<u8>,
}

/// An image as its parts.
#[derive(Debug)]
pub(crate) struct Sparse {
    pub(crate) chunks: Vec<Chunk>,
    /// Size of each chunk header; bytes above 12 are padding.
    pub(crate) chunk_header: usize,
    /// Size of the file header; bytes above 28 are padding.
    pub(crate) header: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Sparse {
    /// Parses an image that img2simg created.
    fn read(file: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(file)?;
        let mut rest = &bytes[HEADER..];
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(u32_at(rest, 8) as usize);
            chunks.push(Chunk {
                kind: u16_at(chunk, 0),
                blocks: u32_at(chunk, 4),
                body: chunk[CHUNK_HEADER..].to_vec(),
            });
            rest = after;
        }
        Ok(Self { chunks, chunk_header: CHUNK_HEADER, header: HEADER })
    }

    fn bytes(&self) -> Vec<u8> {
        let numbers = |numbers: [usize; 4]| numbers.map(|n| u32::try_from(n).unwrap().to_le_bytes()).concat();
        let blocks: u32 = self.chunks.iter().map(|chunk| chunk.blocks).sum();
        let mut bytes = [&0xED26_FF3A_u32.to_le_bytes()[..], &[1, 0, 0, 0]].concat();
        bytes.extend([self.header, self.chunk_header].iter().flat_map(|&n| u16::try_from(n).unwrap().to_le_bytes()));
        bytes.extend(numbers([BLOCK, blocks as usize, self.chunks.len(), 0]));
        bytes.resize(self.header, 0xEE);
        for chunk in &self.chunks {
            let start = bytes.len();
            bytes.extend([chunk.kind.to_le_bytes(), [0, 0]].concat());
            bytes.extend(chunk.blocks.to_le_bytes());
            bytes.extend(u32::try_from(self.chunk_header + chunk.body.len()).unwrap().to_le_bytes());
            bytes.resize(start + self.chunk_header, 0xEE);
            bytes.extend(&chunk.body);
        }
        bytes
    }

    /// Splits the block from its chunk, and describes it with `chunk` instead.
    pub(crate) fn replace_block(&mut self, block: u64, chunk: Chunk) {
        let mut before = 0;
        let is_in = |chunk: &Chunk| {
            before += u64::from(chunk.blocks);
            before > block
        };
        let at = self.chunks.iter().position(is_in).unwrap();
        let whole = self.chunks.remove(at);
        assert_eq!(whole.kind, RAW);
        let from_start = u32::try_from(block + u64::from(whole.blocks) - before).unwrap();
        let (first, rest) = whole.body.split_at(from_start as usize * BLOCK);
        let part =
            |body: &[u8]| Chunk { kind: RAW, blocks: u32::try_from(body.len() / BLOCK).unwrap(), body: body.to_vec() };
        self.chunks.splice(at..at, [part(first), chunk, part(&rest[BLOCK..])]);
    }

    /// Splits each raw chunk into chunks of one block.
    pub(crate) fn shatter(&mut self) {
        let one = |chunk: &Chunk, block: &[u8]| Chunk { kind: chunk.kind, blocks: 1, body: block.to_vec() };
        let parts = |chunk: &Chunk| match chunk.kind {
            RAW => chunk.body.chunks(BLOCK).map(|block| one(chunk, block)).collect(),
            _ => vec![chunk.clone()],
        };
        self.chunks = self.chunks.iter().flat_map(parts).collect();
    }
}

/// Changes the parts of an image that img2simg created.
pub(crate) fn change(image: &Path, how: impl FnOnce(&mut Sparse) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut sparse = Sparse::read(image)?;
    how(&mut sparse)?;
    put(image, sparse.bytes(), 0o644)
}

/// Describes the block of the device's file with another chunk kind.
pub(crate) fn change_slot(image: &Path, kind: u16, body: &[u8]) -> anyhow::Result<()> {
    let block = oracle::block(raw_copy(image)?.path())?;
    let chunk = Chunk { kind, blocks: 1, body: body.to_vec() };
    change(image, |sparse| {
        sparse.replace_block(block, chunk);
        Ok(())
    })
}
