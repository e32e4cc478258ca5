use super::*;
use crate::target::image::medium::BLOCK_BYTES;

const WORD: [u8; 4] = [1, 2, 3, 4];
/// Blocks of the image below: two raw ones, three of a fill chunk, four with unspecified content, one raw one.
const BLOCKS: usize = 10;

/// Returns a block that differs for each number.
fn block(number: u8) -> Vec<u8> {
    (0..BLOCK_BYTES).map(|at| number.wrapping_add((at % 251).to_le_bytes()[0])).collect()
}

/// Returns an image whose headers are `longer` bytes longer than those of version 1.0. Other bytes follow its last
/// chunk.
fn image(longer: u16) -> Vec<u8> {
    let chunk = |kind: u16, blocks: u32, body: &[u8]| {
        let total = u32::try_from(CHUNK_HEADER + usize::from(longer) + body.len()).unwrap();
        let header = [&kind.to_le_bytes()[..], &[0, 0], &blocks.to_le_bytes(), &total.to_le_bytes()].concat();
        [&header, &vec![0; longer.into()], body].concat()
    };
    let sizes = [28 + longer, 12 + longer].map(u16::to_le_bytes);
    let numbers = [4096, u32::try_from(BLOCKS).unwrap(), 5, 0].map(u32::to_le_bytes);
    [
        &MAGIC.to_le_bytes()[..],
        &[1, 0, 0, 0],
        sizes.as_flattened(),
        numbers.as_flattened(),
        &vec![9; longer.into()],
        &chunk(RAW, 2, &[block(1), block(2)].concat()),
        &chunk(FILL, 3, &WORD),
        // A chunk without blocks has no effect.
        &chunk(DONT_CARE, 0, &[]),
        &chunk(DONT_CARE, 4, &[]),
        &chunk(RAW, 1, &block(3)),
        b"rest",
    ]
    .concat()
}

/// Returns the raw image that it describes.
fn described() -> Vec<u8> {
    [block(1), block(2), WORD.repeat(3 * 1024), vec![0; 4 * BLOCK_BYTES], block(3)].concat()
}

fn file(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

// Promise: each byte is read as described, wherever reading starts and ends; only blocks of raw chunks have an offset.
#[test]
fn read_as_described() {
    for longer in [0, 4] {
        let image = image(longer);
        let file = file(&image);
        let sparse = Sparse::open(&file).unwrap();
        assert_eq!(sparse.size(), 10 * BLOCK);
        for (start, end) in [(0, 40_960), (1, 4097), (8191, 8195), (8193, 8198), (20_479, 20_481), (36_863, 40_960)] {
            let mut read = vec![7; end - start];
            sparse.read_at(&mut read, start as u64).unwrap();
            assert!(read == described()[start..end], "{longer}: {start}..{end}");
        }
        assert!(sparse.read_at(&mut [0; 2], 40_959).is_err());
        for number in 0..=BLOCKS {
            let offset = sparse.offset_of(number as u64).map(|offset| usize::try_from(offset).unwrap());
            let is_raw = matches!(number, 0 | 1 | 9);
            assert_eq!(offset.is_some(), is_raw, "{longer}: {number}");
            if let Some(offset) = offset {
                let wanted = &described()[number * BLOCK_BYTES..][..BLOCK_BYTES];
                assert!(&image[offset..offset + BLOCK_BYTES] == wanted, "{longer}: {number}");
            }
        }
        let raw = tempfile::tempfile().unwrap();
        sparse.unpack(&raw).unwrap();
        assert!(bytes_of(&raw) == described());
    }
}

// Promise: the unpacked image has the described size even if the content of its end is unspecified.
#[test]
fn unpacked_size_is_as_described() {
    let numbers = [3, 1, 0, DONT_CARE.into(), 3, 12].map(u32::to_le_bytes);
    let image = file(&[&image(0)[..16], numbers.as_flattened()].concat());
    let raw = tempfile::tempfile().unwrap();
    Sparse::open(&image).unwrap().unpack(&raw).unwrap();
    assert_eq!(bytes_of(&raw), [0; 3 * BLOCK_BYTES]);
}

/// Returns an image with a raw block, followed by other chunks.
fn claiming(chunks: &[(u16, u32, &[u8])]) -> File {
    let chunk = |(kind, blocks, body): &(u16, u32, &[u8])| {
        let total = u32::try_from(CHUNK_HEADER + body.len()).unwrap();
        [&kind.to_le_bytes()[..], &[0, 0], &blocks.to_le_bytes(), &total.to_le_bytes(), body].concat()
    };
    let first = block(1);
    let chunks = [&[(RAW, 1, &first[..])], chunks].concat();
    let blocks: u32 = chunks.iter().map(|(_, blocks, _)| blocks).sum();
    let numbers = [blocks, u32::try_from(chunks.len()).unwrap(), 0].map(u32::to_le_bytes);
    let chunks: Vec<u8> = chunks.iter().flat_map(chunk).collect();
    file(&[&image(0)[..16], numbers.as_flattened(), &chunks].concat())
}

// Promise: an image that describes much more than its file system, or consists of one word, is refused; zeros use no
// disk space.
#[test]
fn claims_are_checked() {
    const GIB: u32 = 1 << 18;
    let check = |chunks: &[(u16, u32, &[u8])], blocks: u64| {
        let file = claiming(chunks);
        let sparse = Sparse::open(&file).unwrap();
        let result = sparse.check_claims(blocks * BLOCK).map_err(|problem| problem.to_string());
        (sparse.unpacked_bytes() / BLOCK, result.err())
    };
    assert_eq!(check(&[(FILL, 8 * GIB, &[0; 4]), (DONT_CARE, 8 * GIB, &[])], 16 * u64::from(GIB)), (1, None));
    assert_eq!(check(&[(FILL, 4096, &WORD)], 1), (4097, None));
    assert_eq!(check(&[(DONT_CARE, GIB, &[])], 1), (1, None));
    let (_, message) = check(&[(DONT_CARE, GIB + 1, &[])], 1);
    assert!(message.unwrap().contains("much more"));
    let (filled, message) = check(&[(FILL, 4097, &WORD)], 1);
    assert!(filled == 4098 && message.unwrap().contains("one repeated word"));
    let raw = tempfile::tempfile().unwrap();
    Sparse::open(&claiming(&[(FILL, 2 * GIB, &[0; 4]), (FILL, 20, &WORD)])).unwrap().unpack(&raw).unwrap();
    let metadata = raw.metadata().unwrap();
    assert_eq!(metadata.len(), (2 * u64::from(GIB) + 21) * BLOCK);
    assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 < 1 << 20);
    let mut last = [0; 8];
    raw.read_exact_at(&mut last, metadata.len() - 8).unwrap();
    assert_eq!(last, [WORD, WORD].concat()[..]);
}

// Promise: repacked without a change, the image is the same except for empty chunks; each changed block becomes a raw
// one, and the others keep their type.
#[test]
fn repacked_with_changed_blocks() {
    for longer in [0, 4] {
        let before = file(&image(longer));
        let sparse = Sparse::open(&before).unwrap();
        for changed in [&[][..], &[0], &[2], &[3], &[4], &[2, 4], &[2, 3, 4], &[5], &[6, 7], &[5, 8], &[9], &[4, 5]] {
            let raw = tempfile::tempfile().unwrap();
            sparse.unpack(&raw).unwrap();
            let mut wanted = described();
            for &number in changed {
                wanted[number * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(&block(42));
                raw.write_all_at(&block(42), number as u64 * BLOCK).unwrap();
            }
            let after = tempfile::tempfile().unwrap();
            sparse.repack(&raw, &after).unwrap();
            let again = Sparse::open(&after).unwrap();
            let mut read = vec![7; wanted.len()];
            again.read_at(&mut read, 0).unwrap();
            assert!(read == wanted, "{longer}: {changed:?}");
            for number in 0..BLOCKS {
                let is_raw = matches!(number, 0 | 1 | 9) || changed.contains(&number);
                assert_eq!(again.offset_of(number as u64).is_some(), is_raw, "{longer}: {changed:?} {number}");
            }
            assert!(again.chunks.iter().all(|chunk| chunk.blocks > 0), "{longer}: {changed:?}");
            let bytes = bytes_of(&after);
            assert!(bytes.ends_with(b"rest") && bytes[28..28 + usize::from(longer)].iter().all(|&byte| byte == 9));
            if changed.is_empty() {
                assert_eq!(bytes.len(), image(longer).len() - CHUNK_HEADER - usize::from(longer));
            }
        }
    }
}

// Promise: no block of an image with checksums is overwritten in place; the repacked image has none, and is the same
// otherwise.
#[test]
fn checksums_are_dropped() {
    let plain = image(0);
    let rest = plain.len() - b"rest".len();
    let chunk = [&CRC32.to_le_bytes()[..], &[0, 0, 0, 0, 0, 0, 16, 0, 0, 0], b"sums"].concat();
    let words = HEADER + CHUNK_HEADER + 2 * BLOCK_BYTES;
    let put = |at: usize| [&plain[..at], &chunk, &plain[at..]].concat();
    for (mut bytes, chunks, in_header) in [(plain.clone(), 5, true), (put(words), 6, false), (put(rest), 6, true)] {
        bytes[20] = chunks;
        bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(if in_header { b"sums" } else { &[0; 4] });
        let before = file(&bytes);
        let sparse = Sparse::open(&before).unwrap();
        assert!(sparse.has_checksums() && (0..BLOCKS).all(|number| sparse.offset_of(number as u64).is_none()));
        let (raw, after) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        sparse.unpack(&raw).unwrap();
        assert!(bytes_of(&raw) == described());
        sparse.repack(&raw, &after).unwrap();
        let plain_file = file(&plain);
        let expected = tempfile::tempfile().unwrap();
        Sparse::open(&plain_file).unwrap().repack(&raw, &expected).unwrap();
        assert!(bytes_of(&after) == bytes_of(&expected), "{chunks} {in_header}");
        assert!(!Sparse::open(&after).unwrap().has_checksums());
    }
}

// Promise: truncated, contradictory and unsupported images are refused.
#[test]
fn invalid_images_are_refused() {
    const LENGTH: &str = "does not match its type";
    // Offsets of the first chunk and of the fill chunk.
    let (first, words) = (HEADER, HEADER + CHUNK_HEADER + 2 * BLOCK_BYTES);
    let dont_care = words + CHUNK_HEADER + 4;
    let too_many = (MAX_CHUNKS + 1).to_le_bytes();
    let [low, high] = CRC32.to_le_bytes();
    let cases: [(usize, &[u8], &str); 18] = [
        (0, b"x", "another version"),
        (4, &[2], "another version"),
        (8, &[27], "header sizes are invalid"),
        (8, &[0xff, 0xff], "header sizes are invalid"),
        (10, &[11], "header sizes are invalid"),
        (12, &[0, 2], "another size"),
        (16, &[11], "do not have as many blocks"),
        (20, &too_many, "too many"),
        (20, &MAX_CHUNKS.to_le_bytes(), "ends before the last chunk"),
        (first, &[low, high], LENGTH),
        (first, &[0], "unknown type"),
        (first + 4, &[1], LENGTH),
        (first + 8, &[11, 0], "smaller than its header"),
        (first + 8, &[0xff, 0xff, 0xff, 0xff], "a chunk is truncated"),
        (words + 8, &[20], LENGTH),
        (words + 8, &[12], LENGTH),
        (dont_care + 8, &[16], LENGTH),
        (words, &DONT_CARE.to_le_bytes(), LENGTH),
    ];
    for (at, bytes, expected) in cases {
        let mut image = image(0);
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let message = Sparse::open(&file(&image)).map(drop).unwrap_err().to_string();
        assert!(message.contains(expected), "{at} {bytes:?}: {message}");
    }
    let whole = image(0);
    let end = whole.len() - b"rest".len();
    for (length, expected) in [
        (HEADER - 1, "header is truncated"),
        (first + CHUNK_HEADER - 1, "ends before the last chunk"),
        (end - BLOCK_BYTES - 1, "ends before the last chunk"),
        (end - 1, "a chunk is truncated"),
    ] {
        let message = Sparse::open(&file(&whole[..length])).map(drop).unwrap_err().to_string();
        assert!(message.contains(expected), "{length}: {message}");
    }
    assert!(Sparse::open(&file(&whole[..end])).is_ok());
    let mut none = whole[..HEADER].to_vec();
    none[16..24].fill(0);
    assert_eq!(Sparse::open(&file(&none)).unwrap().size(), 0);
}
