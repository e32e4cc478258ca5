//! The way from header to header of a tar archive, any byte of which may be wrong: it ends, and what it names lies in the
//! archive.
#![no_main]

use std::io;

use azaion_provision::target::medium::Medium;
use azaion_provision::target::tar::walk;
use libfuzzer_sys::fuzz_target;

struct Bytes<'a>(&'a [u8]);

impl Medium for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let tail = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        let part = tail.and_then(|tail| tail.get(..buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn place(&self, block: u64) -> Option<u64> {
        block.checked_mul(4096)
    }
}

/// Offset and width of the fields with a header's checksum, and of a header.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const HEADER: usize = 512;

// Checksums are made right first: nothing else would be looked at.
fuzz_target!(|input: &[u8]| {
    let mut archive = input.to_vec();
    for header in archive.chunks_exact_mut(HEADER).filter(|header| header[257..262] == *b"ustar") {
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    if let Ok(found) = walk(&Bytes(&archive)) {
        assert!(found.end <= archive.len() as u64);
    }
});
