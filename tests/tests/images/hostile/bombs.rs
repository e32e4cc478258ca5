//! Inputs that grow, repeat or form loops.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, ensure};

use super::{Bench, EMAIL, Row, SERIAL, measure, refused, try_all};
use crate::archive::{put_sum, sum_file};
use crate::oracle::{debugfs as ask, run, text};
use crate::recipe::{self, Kind, PLAIN, mkfs, patch, put, resize, to_sparse};
use crate::sparse::{self, Chunk, DONT_CARE, FILL};

const BLOCK: u64 = 4096;
/// Size of an inode in bytes.
const INODE: usize = 256;
/// mke2fs options for an image whose structures a test may change without updating checksums.
const UNCHECKED: &str = "-O ^metadata_csum,^64bit";

fn bytes_at<const N: usize>(file: &File, at: u64) -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Returns the offset of the first group's inode table.
fn inode_table(file: &File) -> anyhow::Result<u64> {
    Ok(u64::from(u32::from_le_bytes(bytes_at(file, BLOCK + 8)?)) * BLOCK)
}

/// Returns the number of an inode, by debugfs.
fn number(image: &Path, path: &str) -> anyhow::Result<u64> {
    let said = ask(image, &format!("stat {path}"))?;
    let after = said.split("Inode: ").nth(1).context("an inode")?;
    Ok(after.split_whitespace().next().context("a number")?.parse()?)
}

/// Encodes a node of an extent tree: its depth, and its entries in on-disk form.
fn node(depth: u16, most: u16, entries: &[[u8; 12]]) -> Vec<u8> {
    let count = u16::try_from(entries.len()).unwrap();
    let header = [0xF30A, count, most, depth, 0, 0].map(u16::to_le_bytes);
    [header.as_flattened(), entries.as_flattened()].concat()
}

/// Encodes an extent: `length` blocks from `start` on hold the file's blocks from `first` on.
fn extent(first: u32, length: u16, start: u32) -> [u8; 12] {
    let mut entry = [0; 12];
    entry[..4].copy_from_slice(&first.to_le_bytes());
    entry[4..6].copy_from_slice(&length.to_le_bytes());
    entry[8..].copy_from_slice(&start.to_le_bytes());
    entry
}

/// Encodes an index entry for a child node.
fn child(block: u32) -> [u8; 12] {
    let mut entry = [0; 12];
    entry[4..8].copy_from_slice(&block.to_le_bytes());
    entry
}

/// Sets the size and the extents of an inode.
fn set_extents(file: &File, number: u64, size: u64, root: &[u8]) -> anyhow::Result<()> {
    let at = inode_table(file)? + (number - 1) * INODE as u64;
    file.write_all_at(&u32::try_from(size)?.to_le_bytes(), at + 4)?;
    Ok(file.write_all_at(root, at + 0x28)?)
}

fn opened(image: &Path) -> anyhow::Result<File> {
    Ok(OpenOptions::new().read(true).write(true).open(image)?)
}

/// Thousands of files that share one block: e2fsck lists all others for each.
fn shared(bench: &Bench) -> anyhow::Result<()> {
    recipe::tree(bench, PLAIN)?;
    let image = bench.image();
    let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-N", "16384", "-O", "^metadata_csum,^64bit", "-d"];
    run("mke2fs", &[&options[..], &[text(&bench.path("tree")), text(&image), "64M"]].concat())?;
    let file = opened(&image)?;
    let mut inode = [0; INODE];
    let mut set = |at: usize, bytes: &[u8]| inode[at..][..bytes.len()].copy_from_slice(bytes);
    set(0x0, &0o100_644_u16.to_le_bytes());
    set(0x4, &4096_u32.to_le_bytes());
    set(0x1A, &1_u16.to_le_bytes());
    set(0x1C, &8_u32.to_le_bytes());
    set(0x20, &0x8_0000_u32.to_le_bytes());
    set(0x28, &node(0, 4, &[extent(0, 1, 9000)]));
    set(0x80, &32_u16.to_le_bytes());
    let table = inode_table(&file)?;
    (1000..16_384).try_for_each(|number| file.write_all_at(&inode, table + number * INODE as u64))?;
    Ok(())
}

/// The same in a sparse image, and in a compressed one.
fn shared_sparse(bench: &Bench) -> anyhow::Result<()> {
    shared(bench)?;
    to_sparse(&bench.image())
}

fn shared_zstd(bench: &Bench) -> anyhow::Result<()> {
    shared(bench)?;
    recipe::to_zstd(&bench.image())
}

/// An extent tree five levels deep, in which each node refers to one child 340 times.
fn deep(bench: &Bench) -> anyhow::Result<()> {
    let image = bench.image();
    mkfs(bench, &image, UNCHECKED, PLAIN)?;
    let file = opened(&image)?;
    for depth in 0..5_u16 {
        let (at, below) = (3000 + u32::from(depth), 3000 + u32::from(depth.saturating_sub(1)));
        let entry = if depth == 0 { extent(0, 1, 3500) } else { child(below) };
        file.write_all_at(&node(depth, 340, &[entry; 340]), u64::from(at) * BLOCK)?;
    }
    set_extents(&file, number(&image, "/etc")?, 4096, &node(5, 4, &[child(3004); 4]))
}

/// A directory of the maximum number of blocks, with an unused entry in each.
fn wide(bench: &Bench) -> anyhow::Result<()> {
    let image = bench.image();
    mkfs(bench, &image, UNCHECKED, PLAIN)?;
    let file = opened(&image)?;
    let mut block = vec![0; 4096];
    block[4..6].copy_from_slice(&4096_u16.to_le_bytes());
    (1000..4000).try_for_each(|number| file.write_all_at(&block, number * BLOCK))?;
    let runs: Vec<_> = (0..3).map(|n| extent(n * 3000, 3000, 1000)).collect();
    set_extents(&file, number(&image, "/etc")?, 9000 * BLOCK, &node(0, 4, &runs))
}

/// `/etc/azaion` is the root directory.
fn circle(bench: &Bench) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), "", PLAIN)?;
    recipe::debugfs(&bench.image(), "link <2> /etc/azaion")
}

/// A directory whose files have the maximum number of hard links.
fn links(bench: &Bench) -> anyhow::Result<()> {
    let names = |tree: &Path| {
        let script = "cd \"$1\" && : >usr/one && for d in $(seq 20); do mkdir usr/$d; \
                      for n in $(seq 1000); do echo usr/$d/$n; done; done | xargs -n1 ln usr/one";
        run("sh", &["-euc", script, "sh", text(tree)]).map(drop)
    };
    mkfs(bench, &bench.image(), "", names)?;
    recipe::debugfs(&bench.image(), "sif /usr/one links_count 65000")
}

/// Makes the superblock claim a file system of 2 TiB.
fn claim_terabytes(image: &Path) -> anyhow::Result<()> {
    patch(image, 1024 + 4, &(1_u32 << 29).to_le_bytes())
}

fn claiming_raw(bench: &Bench) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), UNCHECKED, PLAIN)?;
    claim_terabytes(&bench.image())?;
    resize(&bench.image(), 2 << 40)
}

fn with_chunk(bench: &Bench, kind: u16, blocks: u32, body: &[u8]) -> anyhow::Result<()> {
    to_sparse(&bench.image())?;
    sparse::change(&bench.image(), |sparse| {
        sparse.chunks.push(Chunk { kind, blocks, body: body.to_vec() });
        Ok(())
    })
}

/// A fill chunk follows the file system.
fn filled_behind(bench: &Bench) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), "", PLAIN)?;
    with_chunk(bench, FILL, 1 << 31, b"word")
}

/// The same, and the file system claims to be as large.
fn filled(bench: &Bench) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), UNCHECKED, PLAIN)?;
    claim_terabytes(&bench.image())?;
    with_chunk(bench, FILL, 1 << 29, b"word")
}

/// The same with zeros.
fn filled_with_zeros(bench: &Bench) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), UNCHECKED, PLAIN)?;
    claim_terabytes(&bench.image())?;
    with_chunk(bench, FILL, 1 << 29, &[0; 4])
}

/// Millions of chunks.
fn chunks(bench: &Bench, count: usize) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), "", PLAIN)?;
    to_sparse(&bench.image())?;
    sparse::change(&bench.image(), |sparse| {
        let empty = Chunk { kind: DONT_CARE, blocks: 0, body: Vec::new() };
        sparse.chunks.extend(std::iter::repeat_n(empty, count));
        Ok(())
    })
}

/// Appends a frame of `count` times 128 KiB of one byte; four bytes each.
fn append_bomb(image: &Path, byte: u8, count: usize) -> anyhow::Result<()> {
    let block = |is_last: u8| [2 | is_last, 0, 0x10, byte];
    let mut frame = b"\x28\xb5\x2f\xfd\x00\x58".to_vec();
    frame.extend(block(0).repeat(count - 1));
    frame.extend(block(1));
    Ok(OpenOptions::new().append(true).open(image)?.write_all(&frame)?)
}

/// A compressed disk image followed by such a frame.
fn disk_bomb(bench: &Bench, is_claimed: bool, byte: u8, count: usize) -> anyhow::Result<()> {
    mkfs(bench, &bench.image(), UNCHECKED, PLAIN)?;
    if is_claimed {
        claim_terabytes(&bench.image())?;
    }
    recipe::to_zstd(&bench.image())?;
    append_bomb(&bench.image(), byte, count)?;
    put_sum(&bench.image())
}

/// Builds the header of a tar member.
fn header(name: &str, kind: u8, size: &str) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut set = |at: usize, bytes: &[u8]| header[at..][..bytes.len()].copy_from_slice(bytes);
    set(0, name.as_bytes());
    for (at, number) in [(100, "0000644"), (108, "0000000"), (116, "0000000"), (124, size), (136, "00000000000")] {
        set(at, number.as_bytes());
    }
    set(156, &[kind]);
    set(257, b"ustar\x0000");
    sealed(header)
}

/// Fills in the header's checksum.
fn sealed(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

const EMPTY: &str = "00000000000";

/// A compressed archive that starts with these headers.
fn archive(bench: &Bench, headers: &[Vec<u8>]) -> anyhow::Result<()> {
    let raw = bench.path("archive");
    put(&raw, headers.concat(), 0o644)?;
    run("sh", &["-c", "zstd -q <\"$1\" >\"$2\"", "sh", text(&raw), text(&bench.image())]).map(drop)
}

/// A compressed archive with an endless member of zeros.
fn archive_bomb(bench: &Bench) -> anyhow::Result<()> {
    let mut zeros = header("etc/zeros", b'0', EMPTY);
    // 64 GiB in GNU tar's binary encoding.
    zeros[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0]);
    archive(bench, &[header("etc/", b'5', EMPTY), sealed(zeros)])?;
    append_bomb(&bench.image(), 0, 330_000)?;
    put_sum(&bench.image())
}

/// A compressed archive that consists of these bytes, repeated.
fn repeated(bench: &Bench, bytes: Vec<u8>, count: usize) -> anyhow::Result<()> {
    let (raw, image) = (bench.path("member"), bench.image());
    put(&raw, bytes, 0o644)?;
    let script = format!("for n in $(seq {count}); do cat \"$1\"; done | zstd -q >\"$2\"");
    run("sh", &["-c", &script, "sh", text(&raw), text(&image)])?;
    put_sum(&image)
}

/// A compressed archive of millions of members.
fn members(bench: &Bench) -> anyhow::Result<()> {
    repeated(bench, header("etc/member", b'0', EMPTY).repeat(8192), 250)
}

/// A compressed archive of members almost two thousand directories deep.
fn deep_paths(bench: &Bench) -> anyhow::Result<()> {
    let mut name = b"a/".repeat(1990);
    name.resize(4096, 0);
    let member = [header("././@LongLink", b'L', "00000010000"), name, header("a", b'5', EMPTY)].concat();
    repeated(bench, member.repeat(64), 300)
}

/// An archive in which a header that precedes a member claims a size of 4 GiB.
fn large_header(bench: &Bench, kind: u8) -> anyhow::Result<()> {
    put(&bench.image(), [header("etc/", b'5', EMPTY), header("x", kind, "40000000000")].concat(), 0o644)?;
    resize(&bench.image(), 8 << 30)
}

/// An archive with an endless sparse map.
fn long_map(bench: &Bench) -> anyhow::Result<()> {
    let mut sparse = header("etc/sparse", b'S', EMPTY);
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[386..482].copy_from_slice(&[b'0'; 96]);
    sparse[482] = 1;
    let mut map = vec![b'0'; 504];
    map.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    archive(bench, &[header("etc/", b'5', EMPTY), sealed(sparse), map.repeat(1 << 17)])?;
    put_sum(&bench.image())
}

/// A checksum file of 3 GiB beside an image.
fn large_sum(bench: &Bench) -> anyhow::Result<()> {
    Kind::TarZst.make(bench, &bench.image(), PLAIN)?;
    resize(&sum_file(&bench.image()), 3 << 30)
}

/// A FIFO in place of the checksum file.
fn fifo_sum(bench: &Bench) -> anyhow::Result<()> {
    Kind::TarZst.make(bench, &bench.image(), PLAIN)?;
    fs::remove_file(sum_file(&bench.image()))?;
    run("mkfifo", &[text(&sum_file(&bench.image()))]).map(drop)
}

const IMAGES: [Row; 22] = [
    refused("thousands of files of one block", shared, "e2fsck"),
    refused("the same, sparse", shared_sparse, "e2fsck"),
    refused("the same, compressed", shared_zstd, "e2fsck"),
    refused("a deep tree of extents", deep, "too many extents"),
    refused("a wide directory", wide, ""),
    refused("a directory in itself", circle, "e2fsck"),
    refused("a file of many names", links, "e2fsck"),
    refused("a raw image of terabytes", claiming_raw, ""),
    refused("a word behind a file system", filled_behind, ""),
    refused("terabytes of a word", filled, ""),
    refused("terabytes of zeros", filled_with_zeros, ""),
    refused("four million chunks", |bench| chunks(bench, 4_000_000), "too many"),
    Row { name: "almost a million chunks", make: |bench| chunks(bench, 999_000), code: 0, says: "" },
    refused("a compressed image with gigabytes behind it", |bench| disk_bomb(bench, false, 0, 10_000), "much more"),
    refused("a compressed image of terabytes of zeros", |bench| disk_bomb(bench, true, 0, 300_000), ""),
    refused("a compressed image of terabytes", |bench| disk_bomb(bench, true, 1, 300_000), ""),
    refused("a compressed archive of terabytes", archive_bomb, "512 times"),
    refused("a compressed archive of millions of members", members, "millions"),
    refused("a compressed archive of deep paths", deep_paths, "millions"),
    refused("an archive with a large pax header", |bench| large_header(bench, b'x'), ""),
    refused("an archive with a large name", |bench| large_header(bench, b'L'), ""),
    refused("an archive with a map without end", long_map, "millions"),
];

// Promise: whatever an image claims or repeats, each command ends within 30 s and 256 MiB, uses no more disk space than
// the image does, and leaves it unchanged.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn images() {
    try_all(&IMAGES);
}

const SUMS: [Row; 2] = [
    refused("a checksum of 3 GiB", large_sum, "not a regular file of at most 64 KiB"),
    refused("a FIFO for a checksum", fifo_sum, "not a regular file of at most 64 KiB"),
];

// Promise: the same for files beside an image.
#[test]
fn checksums() {
    try_all(&SUMS);
}

/// Checks the message of a batch for a list that these commands create.
fn list(commands: &str, code: i32, says: &str) -> anyhow::Result<()> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    let list = bench.path("list");
    run("bash", &["-euc", commands, "bash", text(&list)])?;
    let image = bench.image();
    let measured = measure(&bench, &["batch", text(&list), "--rootfs", text(&image)], true)?;
    println!("{commands}: {:.1} s, {} MiB", measured.seconds, measured.memory >> 10);
    ensure!(measured.run.code == Some(code) && measured.run.stderr.contains(says), "{}", measured.run.words());
    ensure!(measured.seconds < super::MOST_SECONDS && measured.memory < super::MOST_MEMORY, "{commands}");
    ensure!(bench.station.api.users().is_empty() && !bench.inspect()?["empty"].is_null());
    Ok(())
}

// Promise: a list that is too long for a batch is refused, whatever its content, within the same limits.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn lists() {
    let rows = [
        ("seq -f AZJN-%09.0f 10000000 | head -c 100000000 >\"$1\"", 65, "larger than"),
        ("seq -f AZJN-%09.0f 2300000 | head -c 33000000 >\"$1\"", 65, "divide it"),
        ("yes x | head -c 33000000 >\"$1\"", 65, "divide it"),
        ("{ echo serial,note; yes AZJN-1, | head -c 33000000; } >\"$1\"", 65, "divide it"),
        ("{ echo serial,note; head -c 33000000 /dev/zero | tr '\\0' ,; } >\"$1\"", 65, "divide it"),
        ("{ echo serial; head -c 33000000 /dev/zero | tr '\\0' x; } >\"$1\"", 65, ""),
        ("truncate -s 3G \"$1\"", 65, "larger than"),
        ("mkfifo \"$1\"", 66, "is a FIFO"),
    ];
    crate::bench::for_each(&rows, |(name, ..)| (*name).to_owned(), |(name, code, says)| list(name, *code, says));
}

// Promise: a list may come through a pipe of the shell.
#[test]
fn a_list_through_a_pipe() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    let image = bench.image();
    let mut command = bench.command(&[])?;
    let program = command.get_args().last().context("the program")?.to_owned();
    let script =
        "program=$1 image=$2; shift 2; \"$program\" batch <(sleep 0.3; echo AZJN-0042) --rootfs \"$image\" \"$@\"";
    command = azaion_tests::station::command(Path::new("bash"), &["-c", script, "bash"]);
    command.arg(program).arg(image).args(bench.api());
    bench.wait(azaion_tests::programs::start(&mut command)?)?.ended_with(0)?;
    bench.holds(SERIAL, EMAIL)
}
