//! Fuzzes the walk over the headers of a tar archive with arbitrary bytes changed: it terminates, and every range it
//! returns lies within the archive.
#![no_main]

use std::io;

use azaion_provision::target::image::tar::{Problem, Source, walk};
use libfuzzer_sys::fuzz_target;

struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        let length = buffer.len().min(self.0.len());
        let (part, rest) = self.0.split_at(length);
        buffer[..length].copy_from_slice(part);
        self.0 = rest;
        Ok(length)
    }

    fn skip(&mut self, length: u64) -> Result<(), Problem> {
        let length = usize::try_from(length).map_err(|_| cut())?;
        self.0 = self.0.get(length..).ok_or_else(cut)?;
        Ok(())
    }
}

fn cut() -> Problem {
    Problem::Io(io::ErrorKind::UnexpectedEof.into())
}

/// Offset and width of the checksum field in a header, and the size of a header.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const HEADER: usize = 512;

// Correct the header checksums first; otherwise the walk would stop at the first one.
fuzz_target!(|input: &[u8]| {
    let mut archive = input.to_vec();
    for header in archive.chunks_exact_mut(HEADER).filter(|header| header[257..262] == *b"ustar") {
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    if let Ok(found) = walk(&mut Bytes(&archive)) {
        assert!(found.end <= archive.len() as u64);
    }
});
