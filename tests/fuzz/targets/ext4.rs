//! Fuzzes the ext4 walk on an image with arbitrary bytes changed: it terminates and never panics.
//!
//! The input is a list of patches to a small, otherwise valid image; a random file would never get past the superblock.
//! `run` creates that image.
#![no_main]

use std::io;
use std::sync::LazyLock;

use azaion_provision::target::image::ext4::FileSystem;
use azaion_provision::target::image::medium::Medium;
use libfuzzer_sys::fuzz_target;

static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = std::env::var("AZAION_FUZZ_IMAGE").expect("AZAION_FUZZ_IMAGE names the image; use `run`");
    std::fs::read(path).expect("the image")
});

/// Offsets of the blocks that are not all zeros.
static USED: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let blocks = BASE.chunks(4096).enumerate();
    blocks.filter(|(_, block)| block.iter().any(|&byte| byte != 0)).map(|(number, _)| number * 4096).collect()
});

/// The image with patches applied.
struct Patched(Vec<(usize, [u8; 4])>);

impl Medium for Patched {
    fn size(&self) -> u64 {
        BASE.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let tail = BASE.get(start..).unwrap_or_default();
        buffer.copy_from_slice(tail.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        for (place, bytes) in &self.0 {
            for (at, byte) in (*place..).zip(bytes) {
                if let Some(there) = at.checked_sub(start).and_then(|at| buffer.get_mut(at)) {
                    *there = *byte;
                }
            }
        }
        Ok(())
    }

    fn offset_of(&self, block: u64) -> Option<u64> {
        block.checked_mul(4096)
    }
}

// A patch: the index of a used block, the offset in it, and four bytes.
fuzz_target!(|input: &[u8]| {
    let patch = |patch: &[u8]| {
        let offset = usize::from(u16::from_le_bytes([patch[1], patch[2]])) % 4093;
        (USED[usize::from(patch[0]) % USED.len()] + offset, [patch[3], patch[4], patch[5], patch[6]])
    };
    let image = Patched(input.chunks_exact(7).take(64).map(patch).collect());
    let content =
        FileSystem::open_unclean(&image).and_then(|system| system.read(&["etc", "azaion", "device.conf"], 65_536));
    assert!(!matches!(content, Ok(Some(bytes)) if bytes.len() > 65_536));
    let found = FileSystem::open(&image).and_then(|system| system.find(["etc", "azaion"], "device.conf"));
    if let Ok(found) = found
        && let Some(file) = found.file
    {
        let is_inside = |block: &u64| *block > 0 && *block * 4096 < image.size();
        assert!(file.inode.links == 1 && file.all.len() <= 10_000 && file.all.iter().all(is_inside));
        assert!(file.block.is_none_or(|block| file.all == [block] && file.inode.size <= 4096));
    }
});
