//! Fuzzes the walk over a zstd file with arbitrary bytes changed: the walk over its frames and the archive in it
//! terminates, and finds the same as the library that decompresses all of it at once.
//!
//! The input is used as it is, or as a list of pieces: frame headers, blocks, skippable frames and parts of a small
//! archive, so that the layouts pass the library's checks.
#![no_main]

use std::fs::File;
use std::io::{Read, Write};
use std::sync::LazyLock;

use azaion_provision::target::image::tar::{Plain, walk};
use azaion_provision::target::image::zstd::frame::MAGIC;
use azaion_provision::target::image::zstd::stream::Stream;
use libfuzzer_sys::fuzz_target;

/// An archive with `etc/` and `etc/hostname`, and its end marker.
static ARCHIVE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let header = |name: &str, kind: u8, size: u64| {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000755\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[136..148].copy_from_slice(b"13000000000\0");
        header[148..156].fill(b' ');
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    };
    let mut archive = [header("./etc/", b'5', 0), header("./etc/hostname", b'0', 600)].concat();
    archive.extend([b'x'; 600]);
    archive.resize(512 * 16, 0);
    archive
});

/// Maximum size of the decompressed content: more would only take time.
const MOST: u64 = 4 << 20;

/// Builds a file from pieces.
fn assemble(mut input: &[u8]) -> Vec<u8> {
    let (mut file, mut at, mut repeated) = (Vec::new(), 0, 0);
    while let [kind, size, rest @ ..] = input {
        let (kind, size) = (*kind, usize::from(*size));
        let (bytes, rest) = rest.split_at(size.min(rest.len()));
        // A part of the archive takes only its length from the input.
        let next = ARCHIVE.get(at..(at + size * 64).min(ARCHIVE.len())).unwrap_or_default();
        match kind % 8 {
            0 => block(&mut file, kind & 8 != 0, 0, bytes.len(), bytes),
            1 if repeated < 16 => {
                repeated += 1;
                block(&mut file, kind & 8 != 0, 1, size << 8, &bytes[..bytes.len().min(1)]);
            }
            2 => file.extend([&MAGIC[..], &bytes[..bytes.len().min(14)]].concat()),
            3 => file.extend([&[0x50 | kind >> 4, 0x2a, 0x4d, 0x18][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat()),
            4 => file.extend(bytes),
            5 | 6 => {
                at += next.len();
                block(&mut file, kind & 8 != 0, 0, next.len(), next);
            }
            _ => {
                at += next.len();
                file.extend(zstd::stream::encode_all(next, 1).expect("the library compresses"));
            }
        }
        input = if matches!(kind % 8, 5..=7) { &input[2..] } else { rest };
    }
    file
}

fn block(file: &mut Vec<u8>, is_last: bool, kind: u32, size: usize, content: &[u8]) {
    let header = (size as u32) << 3 | kind << 1 | u32::from(is_last);
    file.extend(&header.to_le_bytes()[..3]);
    file.extend(content);
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("its content");
    file
}

fuzz_target!(|input: &[u8]| {
    let Some((mode, input)) = input.split_first() else { return };
    let bytes = if mode & 1 == 0 { input.to_vec() } else { assemble(input) };
    // Inputs with more content than this test's limit are skipped.
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&bytes[..]).expect("a decoder");
    decoder.window_log_max(27).expect("a limit");
    let mut content = Vec::new();
    let decoded = decoder.take(MOST + 1).read_to_end(&mut content);
    if content.len() as u64 > MOST {
        return;
    }
    let file = file_of(&bytes);
    let Ok(found) = walk(&mut Stream::new(&file).expect("a stream")) else { return };
    decoded.expect("the library decompresses a valid stream");
    let plain = file_of(&content);
    let same = walk(&mut Plain::new(&plain).expect("a source")).expect("the content is the same archive");
    assert_eq!((found.end, found.confs.len()), (same.end, same.confs.len()));
});
