//! Fuzzes the chunk table of a sparse image with arbitrary bytes changed: reading terminates, every range lies within
//! the file, and packing the table again unchanged preserves its content.
#![no_main]

use std::fs::File;
use std::io::Write;

use azaion_provision::target::image::medium::Medium;
use azaion_provision::target::image::sparse::Sparse;
use libfuzzer_sys::fuzz_target;

/// Larger images are only read, not packed again.
const SMALL: u64 = 1 << 20;

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("its content");
    file
}

fn content(image: &Sparse<'_>) -> Vec<u8> {
    let mut bytes = vec![0; image.size() as usize];
    image.read_at(&mut bytes, 0).expect("all of the image");
    bytes
}

fuzz_target!(|input: &[u8]| {
    let file = file_of(input);
    let Ok(image) = Sparse::open(&file) else { return };
    for block in [0, 1, 7, image.size() / 4096, u64::MAX / 4096] {
        assert!(image.offset_of(block).is_none_or(|place| place + 4096 <= input.len() as u64));
    }
    let mut block = [0; 4096];
    let _ = image.read_at(&mut block, image.size().saturating_sub(4096));
    if image.size() > SMALL {
        return;
    }
    let before = content(&image);
    let raw = tempfile::tempfile().expect("a file");
    image.unpack(&raw).expect("unpacking a valid image");
    let again = tempfile::tempfile().expect("a file");
    image.repack(&raw, &again).expect("packing it again");
    let again = Sparse::open(&again).expect("a packed image can be opened");
    assert!(content(&again) == before);
});
