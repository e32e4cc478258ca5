//! Tests of metadata checksums, compared with e2fsck.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// Runs a program of e2fsprogs on an image with this standard input, and returns its exit code.
fn run(program: &str, arguments: &[&str], image: &Path, input: &str) -> Option<i32> {
    let script = "printf '%s' \"$1\" | { shift; \"$@\"; }";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", input, program]).args(arguments).arg(image);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output().unwrap().status.code()
}

fn is_clean(image: &Path) -> bool {
    run("e2fsck", &["-f", "-n"], image, "") == Some(0)
}

/// A change of an image after mke2fs.
type Change = fn(&Path);

/// Adds an extended attribute that needs a block, and an access control list that grants read access.
fn with_attributes(image: &Path) {
    let list = tempfile::NamedTempFile::new().unwrap();
    let entries = [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)];
    let bytes = entries.map(|(tag, mode, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &mode.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    put(list.path(), &[&2_u32.to_le_bytes()[..], &bytes.concat()].concat());
    let (conf, value, list) = ("/etc/azaion/device.conf", "v".repeat(800), list.path().display());
    let requests = format!("ea_set {conf} user.large {value}\nea_set -f {list} {conf} system.posix_acl_access\n");
    run("debugfs", &["-w", "-f", "-"], image, &requests);
}

/// Adds enough names for several directory blocks, each followed by a block of another file: an extent tree of two
/// levels.
fn fragmented(image: &Path) {
    let name = |n| format!("{n:0200}");
    let other = image.with_file_name("root/etc/azaion/device.conf");
    let one = |n: usize| format!("write /dev/null {}\nwrite {} /filler{n}\n", name(n), other.display());
    let requests: String = (0..150).map(one).collect();
    run("debugfs", &["-w", "-f", "-"], image, &format!("cd /etc/azaion\n{requests}"));
}

/// Adds the same names, and a hash tree.
fn indexed(image: &Path) {
    fragmented(image);
    run("e2fsck", &["-f", "-y", "-D"], image, "");
}

const IMAGES: [(&str, &[&str], Change); 8] = [
    ("plain", &[], |_| ()),
    ("inodes of 128 bytes", &["-I", "128"], |_| ()),
    ("inodes of 512 bytes", &["-I", "512"], |_| ()),
    ("descriptors of 32 bytes", &["-O", "^64bit"], |_| ()),
    ("a seed", &["-O", "metadata_csum_seed"], |_| ()),
    ("attributes", &[], with_attributes),
    ("fragmented", &[], fragmented),
    ("indexed", &[], indexed),
];

fn make(options: &[&str], change: Change) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    usual(&dir.path().join("root"));
    let path = dir.path().join("image");
    mke2fs(dir.path(), &path, "8M", options);
    change(&path);
    (dir, path)
}

/// An image in memory that records which whole blocks were read.
struct Recorded {
    bytes: Vec<u8>,
    blocks: RefCell<Vec<u64>>,
}

impl Medium for Recorded {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        buffer.copy_from_slice(&self.bytes[usize::try_from(offset).unwrap()..][..buffer.len()]);
        if buffer.len() == BLOCK_BYTES {
            self.blocks.borrow_mut().push(offset / BLOCK);
        }
        Ok(())
    }

    fn offset_of(&self, block: u64) -> Option<u64> {
        Some(block * BLOCK)
    }
}

impl Recorded {
    fn find(&self) -> Result<Found, String> {
        FileSystem::open(self).and_then(|system| system.find(DIRECTORIES, NAME)).map_err(|problem| problem.to_string())
    }

    /// Returns the structures on the path to the file: the name of each, and its bytes in the image.
    fn structures(&self) -> Vec<(String, Range<usize>)> {
        let found = self.find().unwrap();
        let system = FileSystem::open(self).unwrap();
        let sb = &system.superblock;
        let descriptor = 4096..4096 + usize::from(sb.descriptor_size);
        let mut all = vec![("the superblock".to_owned(), 1024..2048), ("group descriptor 0".to_owned(), descriptor)];
        let table = system.inode_table(0).unwrap();
        let size = u64::from(sb.inode_size);
        for number in [ROOT_INODE, found.directory.unwrap().number, found.file.unwrap().inode.number] {
            let start = usize::try_from(table * BLOCK + u64::from(number - 1) * size).unwrap();
            all.push((format!("inode {number}"), start..start + usize::from(sb.inode_size)));
        }
        let blocks = self.blocks.take().into_iter();
        for block in blocks.filter(|block| !(table..table + u64::from(sb.inodes) * size / BLOCK).contains(block)) {
            let start = usize::try_from(block * BLOCK).unwrap();
            all.push((format!("block {block}"), start..start + BLOCK_BYTES));
        }
        all.dedup();
        all
    }
}

// Promise: a file system with correct metadata is read, whatever options of mke2fs it was made with.
#[test]
fn valid_file_systems_are_read() {
    let without: [(&str, &[&str], Change); 2] =
        [("none", &["-O", "^metadata_csum"], fragmented), ("groups", &["-O", "^metadata_csum,uninit_bg"], fragmented)];
    for (name, options, change) in IMAGES.into_iter().chain(without) {
        let (_dir, path) = make(options, change);
        assert!(is_clean(&path), "{name}");
        let file = File::open(&path).unwrap();
        assert_eq!(content(&file), CONF, "{name}");
        let has_list = find(&file, NAME).unwrap().file.unwrap().inode.has_access_list;
        assert_eq!(has_list, name == "attributes");
    }
}

/// Returns whether a wrong byte at this offset of a structure must be detected: not after the entries in an inner block
/// of a hash tree.
fn is_covered(name: &str, structure: &[u8], at: usize) -> bool {
    let is_index = name == "indexed" && structure.len() == BLOCK_BYTES && structure[4..6] == [12, 0];
    !is_index || !(40..BLOCK_BYTES - 4).contains(&at)
}

// Promise: one wrong byte in any structure on the path to the file is refused, as by e2fsck, and the structure is
// named.
#[test]
fn damaged_structures_are_refused() {
    for (name, options, change) in IMAGES {
        let (dir, path) = make(options, change);
        let mut image = Recorded { bytes: fs::read(&path).unwrap(), blocks: RefCell::default() };
        let structures = image.structures();
        assert!(structures.len() >= if name == "plain" { 8 } else { 5 }, "{name}: {structures:?}");
        for (structure, range) in structures {
            let (mut named, content) = (0, image.bytes[range.clone()].to_vec());
            for at in range.clone().step_by(5).chain([range.end - 1]) {
                image.bytes[at] ^= 0xFF;
                let message = image.find().err();
                image.bytes[at] ^= 0xFF;
                let is_covered = is_covered(name, &content, at - range.start);
                assert!(message.is_some() || !is_covered, "{name}: {structure}, byte {}", at - range.start);
                named +=
                    usize::from(message.is_some_and(|text| text.contains(&format!("the checksum of {structure}"))));
            }
            let expected = if is_covered(name, &content, content.len() / 2) { content.len() / 50 } else { 0 };
            assert!(named > expected, "{name}: {structure} is named {named} times");
            // Mostly a byte that only the checksum covers.
            let mut damaged = image.bytes.clone();
            damaged[range.start + 0x24.min(range.len() - 8)] ^= 1;
            let copy = dir.path().join("damaged");
            put(&copy, &damaged);
            assert!(!is_clean(&copy), "{name}: e2fsck accepts {structure}");
        }
        assert_eq!(image.find().unwrap().file.unwrap().inode.size, CONF.len() as u64, "{name}");
    }
}

// Promise: with checksums of group descriptors only, a wrong byte of a descriptor is refused.
#[test]
fn damaged_groups_are_refused() {
    let (_dir, path) = make(&["-O", "^metadata_csum,uninit_bg"], |_| ());
    let mut image = Recorded { bytes: fs::read(&path).unwrap(), blocks: RefCell::default() };
    assert!(image.find().is_ok());
    for at in 4096..4096 + 64 {
        image.bytes[at] ^= 0xFF;
        assert!(image.find().unwrap_err().contains("the checksum of group descriptor 0"), "{at}");
        image.bytes[at] ^= 0xFF;
    }
}
