//! Archives of every installed packer, unchanged and mutated, with GNU tar as the oracle: it unpacks every accepted archive without
//! an error, and with the content that the walk found.
//!
//! `AZAION_TAR_CASES` sets the number of mutated archives, without a time limit; `AZAION_TAR_SEED` repeats a run.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::gnu::Dice;
use super::*;

/// Time limit if no number of cases is given.
const MOST_TIME: Duration = Duration::from_secs(8);
const CASES: usize = 4000;
const TEXT: &str = "AZAION_DEVICE_EMAIL=packed@example.com\n";

/// Packs `root` with Python's library, in each of its formats.
const PYTHON: &str = "import tarfile
for name, format in ('ustar', tarfile.USTAR_FORMAT), ('gnu', tarfile.GNU_FORMAT), ('pax', tarfile.PAX_FORMAT):
    with tarfile.open('python-' + name, 'w', format=format) as archive:
        archive.add('root', '.')
";

/// Commands that pack `root`, if they are installed.
const PACKERS: [(&str, &str); 12] = [
    ("gnu", "tar --format=gnu --sparse -cf gnu -C root ."),
    ("oldgnu", "tar --format=oldgnu --sparse -cf oldgnu -C root ."),
    ("pax", "tar --format=pax --sparse --xattrs '--xattrs-include=*' -cf pax -C root ."),
    ("pax without sparse files", "tar --format=pax -cf 'pax without sparse files' -C root etc usr"),
    ("ustar", "tar --format=ustar --exclude=long* -cf ustar -C root ."),
    ("bsdtar-pax", "bsdtar --format=pax -cf bsdtar-pax -C root ."),
    ("bsdtar-gnu", "bsdtar --format=gnutar -cf bsdtar-gnu -C root ."),
    ("bsdtar-ustar", "bsdtar --format=ustar --exclude='long*' -cf bsdtar-ustar -C root ."),
    ("busybox", "busybox tar -cf busybox -C root ."),
    ("python-ustar", "rm -rf root/usr/long*"),
    ("python-gnu", ""),
    ("python-pax", ""),
];

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Creates a tree with members of every type.
fn rich_tree() -> Fixture {
    let fixture = Fixture::tree();
    let long = "long".repeat(40);
    fs::create_dir_all(fixture.root(&format!("usr/{long}"))).unwrap();
    put(&fixture.root(&format!("usr/{long}/{long}")), b"x");
    symlink("l".repeat(150), fixture.root("usr/long-link")).unwrap();
    symlink("/usr/bin/tool", fixture.root("usr/absolute")).unwrap();
    fs::hard_link(fixture.root("usr/absolute"), fixture.root("usr/absolute-too")).unwrap();
    fixture.run("mkfifo", &["root/usr/fifo"]);
    if is_root() {
        fixture.run("mknod", &["root/usr/null", "c", "1", "3"]);
    }
    let sparse = File::create(fixture.root("usr/sparse")).unwrap();
    (0..10).for_each(|piece| sparse.write_all_at(b"data", piece * 100_000).unwrap());
    fs::create_dir(fixture.root("etc/azaion")).unwrap();
    put(&fixture.root("etc/azaion/device.conf"), TEXT.as_bytes());
    fixture
}

/// Returns archives that must be accepted unchanged.
fn corpus(fixture: &Fixture) -> Vec<(&'static str, Vec<u8>)> {
    for (name, command) in PACKERS {
        let program = command.split(' ').next().unwrap();
        let is_there = ["tar", "rm", ""].contains(&program)
            || Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap().status.success();
        if is_there {
            fixture.run("sh", &["-c", command]);
        }
        if name == "python-ustar" {
            fixture.run("python3", &["-c", PYTHON]);
        }
    }
    let read = |(name, _): (&'static str, _)| fs::read(fixture.dir.path().join(name)).ok().map(|bytes| (name, bytes));
    PACKERS.into_iter().filter_map(read).collect()
}

/// An archive that is being mutated.
struct Mutation<'d> {
    dice: &'d mut Dice,
    bytes: Vec<u8>,
    /// The changes made, for the report of a failure.
    done: Vec<String>,
}

const KINDS: &[u8] = b"01234567xgLKSDMVNXA\0";
const NAMES: [&[u8]; 15] = [
    b"etc\0",
    b"etc/\0",
    b"./etc/azaion\0",
    b"etc/azaion/device.conf\0",
    b"/etc//azaion/./device.conf\0",
    b"usr/sparse\0",
    b"usr/bin/tool\0",
    b"usr/bin\0",
    b"usr/absolute/x\0",
    b"bin/x\0",
    b"usr/bin/tool/x\0",
    b"./usr/new/.\0",
    b"usr/x/\0",
    b".\0",
    b"\0",
];
const NUMBERS: [&[u8]; 16] = [
    b"\0\0\0\0\0\0\0\0",
    b"        ",
    b"0000000\0",
    b"0000001\0",
    b"00000000777\0",
    b"00000001000\0",
    b"00000001001\0",
    b"00000010000\0",
    b"77777777",
    b"777777777777",
    b"\x80\0\0\0\0\0\x02\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"-1\0",
    b"+A\0",
    b"\x000000001",
    b" 12 \0",
];
/// Offsets of numbers in a header: in all formats, in those of sparse files, in star's.
const FIELDS: [usize; 16] = [100, 108, 116, 124, 136, 329, 337, 386, 398, 410, 422, 434, 446, 476, 483, 488];
const KEYS: [&[u8]; 18] = [
    b"path",
    b"linkpath",
    b"size",
    b"uid",
    b"gid",
    b"mtime",
    b"atime",
    b"ctime",
    b"uname",
    b"comment",
    b"SCHILY.xattr.user.x",
    b"GNU.sparse.major",
    b"GNU.sparse.minor",
    b"GNU.sparse.realsize",
    b"GNU.sparse.name",
    b"GNU.sparse.map",
    b"GNU.sparse.numblocks",
    b"GNU.dumpdir",
];
const VALUES: [&[u8]; 16] = [
    b"0",
    b"1",
    b"512",
    b"1000000",
    b"4294967295",
    b"4294967296",
    b"99999999999999999999",
    b"1.5",
    b"-1",
    b"1.x",
    b"",
    b"etc/azaion/device.conf",
    b"usr/other",
    b"a\0b",
    b"0,512",
    b"usr/bin/tool/x",
];

impl Mutation<'_> {
    fn pick<'t, T: ?Sized>(&mut self, from: &[&'t T]) -> &'t T {
        from[self.dice.below(from.len())]
    }

    /// Returns the offset of a random header.
    fn header(&mut self) -> usize {
        let is_header = |offset: &usize| self.bytes[*offset..].get(257..262) == Some(b"ustar");
        let headers: Vec<usize> = (0..self.bytes.len() - 511).step_by(512).filter(is_header).collect();
        if headers.is_empty() { 0 } else { headers[self.dice.below(headers.len())] }
    }

    fn overwrite(&mut self, offset: usize, with: &[u8]) {
        let end = self.bytes.len().min(offset + with.len());
        self.bytes[offset..end].copy_from_slice(&with[..end - offset]);
    }

    fn change(&mut self) {
        let offset = self.header();
        let which = self.dice.below(16);
        self.done.push(format!("{which} at {offset}"));
        match which {
            0 => self.bytes[offset + 156] = KINDS[self.dice.below(KINDS.len())],
            1 => self.bytes[offset + self.dice.below(512)] = u8::try_from(self.dice.below(256)).unwrap(),
            2 | 3 => {
                let (field, number) = (offset + FIELDS[self.dice.below(FIELDS.len())], self.pick(&NUMBERS));
                self.overwrite(field, number);
            }
            4 => {
                let (field, name) = (offset + [0, 157, 345][self.dice.below(3)], self.pick(&NAMES));
                self.overwrite(field, name);
            }
            5 => {
                let magic = self.pick(&[&b"ustar\x0000"[..], b"ustar  \0", b"ustar\0  "]);
                self.overwrite(offset + 257, magic);
            }
            6 => {
                let block = self.bytes[offset..offset + 512].to_vec();
                let to = self.header();
                self.bytes.splice(to..to, block);
            }
            7 => drop(self.bytes.drain(offset..offset + 512)),
            8 => drop(self.bytes.splice(offset..offset, [0; 512])),
            9 => self.bytes.truncate(offset + [0, 100, 512][self.dice.below(3)]),
            10 => self.bytes[offset + 482] = u8::try_from(self.dice.below(3)).unwrap(),
            // In the blocks behind a header: the content of an extension, or a map.
            11 | 12 => {
                let target = (offset + 512 + self.dice.below(200)).min(self.bytes.len() - 1);
                self.bytes[target] = b"\0 \t\n=/.0159GS"[self.dice.below(13)];
            }
            13 => {
                let name = self.pick(&NAMES);
                let extension = gnu::member(b"LK"[self.dice.below(2)], b"././@LongLink", name);
                self.bytes.splice(offset..offset, extension);
            }
            _ => {
                let records: Vec<_> =
                    (0..=self.dice.below(3)).map(|_| gnu::record(self.pick(&KEYS), self.pick(&VALUES))).collect();
                self.bytes.splice(offset..offset, gnu::pax(&records));
            }
        }
        self.bytes.resize(self.bytes.len().max(512), 0);
        self.set_checksum(offset);
    }

    /// Sets the checksum of a header: usually the right one, sometimes that of signed bytes, sometimes a wrong one.
    fn set_checksum(&mut self, offset: usize) {
        let Some(header) =
            self.bytes.get_mut(offset..offset + 512).filter(|header| header[257..].starts_with(b"ustar"))
        else {
            return;
        };
        header[148..156].fill(b' ');
        let mut sum: i32 = header.iter().map(|&byte| i32::from(byte)).sum();
        match self.dice.below(20) {
            0 => sum -= 256 * i32::try_from(header.iter().filter(|byte| !byte.is_ascii()).count()).unwrap(),
            1 => sum += 1,
            _ => {}
        }
        header[148..156].copy_from_slice(format!("{:06o}\0 ", sum.max(0)).as_bytes());
    }
}

/// The text, mode, owner and group of a file.
type Conf = (Vec<u8>, u32, u32, u32);

/// Unpacks an archive with GNU tar, and returns the `device.conf`, if there is one.
fn unpack(dir: &Path, archive: &[u8]) -> Result<Option<Conf>, String> {
    let out = dir.join("out");
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    fs::create_dir(&out).unwrap();
    put(&dir.join(NAME), archive);
    let unpack = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", NAME, "-C", "out"];
    let output = Command::new("tar").args(unpack).env("LC_ALL", "C").current_dir(dir).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && (is_root() || !messages.contains("Cannot mknod")) {
        return Err(messages);
    }
    let file = out.join("etc/azaion/device.conf");
    let Ok(is) = file.symlink_metadata() else { return Ok(None) };
    Ok(Some((fs::read(&file).map_err(|error| error.to_string())?, is.mode(), is.uid(), is.gid())))
}

/// Returns whether an archive is accepted. The error says how GNU tar contradicts the walk.
fn compare(dir: &Path, bytes: &[u8]) -> Result<bool, String> {
    put(&dir.join("input"), bytes);
    let Ok(archive) = walk(&mut Plain::new(&File::open(dir.join("input")).unwrap()).unwrap()) else { return Ok(false) };
    let unpacked = unpack(dir, bytes)?;
    let last = archive.confs.last().map(|conf| {
        let member = conf.member;
        (conf.text.to_vec(), 0o100_000 | member.mode, member.uid, member.gid)
    });
    // GNU tar does not set the owner u32::MAX, which means "unchanged" to chown(2).
    let is_any = |id: u32| !is_root() || id == u32::MAX;
    let is_same = match (&unpacked, &last) {
        (Some(one), Some(other)) => {
            (&one.0, one.1) == (&other.0, other.1)
                && (is_any(other.2) || one.2 == other.2)
                && (is_any(other.3) || one.3 == other.3)
        }
        (None, None) => true,
        _ => false,
    };
    if !is_same {
        return Err(format!("unpacked {unpacked:?}, found {last:?}"));
    }
    let end = usize::try_from(archive.end).unwrap();
    let block = slot::block_of(CONF.as_bytes()).unwrap();
    let length = appendix::length(archive.end, 0).unwrap();
    let appendix = appendix::make(&block, archive.is_dotted, Some(archive.end), length);
    let (text, mode, uid, gid) = unpack(dir, &[&bytes[..end], &appendix].concat())?.ok_or("no device.conf")?;
    let is_ours = text == *block && mode == 0o100_600 && (!is_root() || (uid, gid) == (0, 0));
    if is_ours { Ok(true) } else { Err(format!("ours is {mode:o} {uid} {gid}")) }
}

// Promise: archives of every installed packer are accepted. GNU tar unpacks every accepted archive without an error and with the
// device.conf that the walk found, and with ours once the appendix is written.
#[test]
fn gnu_tar_agrees() {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("AZAION_TAR_SEED").unwrap_or(since_epoch.as_secs());
    let cases = number("AZAION_TAR_CASES").map(|cases| usize::try_from(cases).unwrap());
    println!("AZAION_TAR_SEED={seed}");
    let (fixture, start) = (rich_tree(), Instant::now());
    let (corpus, dir) = (corpus(&fixture), fixture.dir.path());
    for (name, bytes) in &corpus {
        assert_eq!(compare(dir, bytes), Ok(true), "{name}");
    }
    let (mut dice, mut accepted, mut wrong) = (Dice(seed), 0, Vec::new());
    for case in 0..cases.unwrap_or(CASES) {
        if cases.is_none() && start.elapsed() > MOST_TIME {
            break;
        }
        let (name, bytes) = &corpus[dice.below(corpus.len())];
        let count = 1 + dice.below(3);
        let mut changes = Mutation { dice: &mut dice, bytes: bytes.clone(), done: Vec::new() };
        (0..count).for_each(|_| changes.change());
        match compare(dir, &changes.bytes) {
            Ok(is_accepted) => accepted += usize::from(is_accepted),
            Err(why) => wrong.push(format!("{case}, {name}, {:?}: {why}", changes.done)),
        }
    }
    println!("{accepted} accepted");
    assert!(
        wrong.is_empty(),
        "seed {seed}: {}\n{}",
        wrong.len(),
        wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n")
    );
    assert_ne!(accepted, 0);
}
