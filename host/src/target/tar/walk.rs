//! The walk over the headers of a tar archive, to the end of its last member. It only reads, and no content but that of
//! `device.conf`.
//!
//! Sources: ustar and pax of POSIX.1-2017 (`pax`), "Basic Tar Format" of GNU tar's manual. Numbers from the archive are
//! never trusted: all arithmetic is checked, and each step advances by at least one block.

use std::mem::take;

use ::tar::{EntryType, Header};
use zeroize::Zeroizing;

use super::header::{self, BLOCK, BLOCK_BYTES, Block, Extension};
use super::source::{CUT, Source};
use crate::target::error::Result;
pub use crate::target::problem::Problem;
use Problem::Refused;

/// Bytes that one header before a member may have: extended attributes are 64 KiB at most, names 4 KiB.
const MOST_EXTENSION: u64 = 1 << 20;
/// Headers, and bytes of those before members, that an archive may have: many times those of any root file system.
const MOST_BLOCKS: u32 = 2_000_000;
const MOST_EXTENSIONS: u64 = 1 << 30;
/// Zeros that may follow the last member: more than any `--blocking-factor` in use leaves.
pub(in crate::target) const MOST_PADDING: u64 = 1 << 20;
/// End-of-archive marker: two blocks of zeros.
pub(super) const END_MARKS: u64 = 2 * BLOCK;
/// Versions of `device.conf` that an archive may have, one behind the other.
const MOST_CONFS: usize = 16;
/// Bytes that what is in the place of a `device.conf` may have, to be taken out.
const MOST_CONF: u64 = 1 << 20;

pub(in crate::target) fn damaged(how: &'static str) -> Problem {
    Problem::Damaged { what: "tar archive", how, advice: "generate the images again" }
}

/// A member that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset at which it starts, with the headers before its own.
    pub start: u64,
    /// Offset at which its content starts.
    pub content: u64,
    /// Bytes of content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner by number.
    pub uid: u32,
    /// Group by number.
    pub gid: u32,
}

/// A `device.conf` in an archive.
pub struct PackedConf {
    /// The member.
    pub member: Member,
    /// Its content.
    pub text: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for PackedConf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password in it.
        f.debug_struct("PackedConf").field("member", &self.member).finish_non_exhaustive()
    }
}

/// What an archive holds, as far as it matters here.
#[derive(Debug, Default)]
pub struct Archive {
    /// Offset at which the last member ends.
    pub end: u64,
    /// Whether names start with `./`.
    pub is_dotted: bool,
    /// The last `etc/azaion`.
    pub folder: Option<Member>,
    /// Each `etc/azaion/device.conf`; the last one wins.
    pub confs: Vec<PackedConf>,
    has_etc: bool,
    has_boot: bool,
}

/// Walks over the members of an archive, up to the first block of its end marker, which is read.
///
/// # Errors
/// It is cut, damaged, no root file system, or has something odd in place of our members.
pub(in crate::target) fn walk_members(source: &mut dyn Source) -> Result<Archive, Problem> {
    let mut walk = Walk::new(source);
    loop {
        let block = walk.read_block()?;
        if is_zero(&block) {
            walk.archive.end = walk.at - BLOCK;
            return walk.finish();
        }
        walk.step(&block)?;
    }
}

/// Reads what follows the first block of the end marker: another block of zeros, and nothing but zeros behind it.
///
/// # Errors
/// It is cut, or something follows its end.
pub(in crate::target) fn check_end(source: &mut dyn Source) -> Result<(), Problem> {
    let rest = source.rest(MOST_PADDING - BLOCK)?;
    if (rest.len() as u64) < END_MARKS - BLOCK {
        return Err(CUT);
    }
    if is_zero(&rest) { Ok(()) } else { Err(damaged("something follows its end")) }
}

/// Walks over a whole archive.
///
/// # Errors
/// It is cut, damaged, no root file system, or has something odd in place of our members.
pub fn walk(source: &mut dyn Source) -> Result<Archive, Problem> {
    let archive = walk_members(source)?;
    check_end(source)?;
    Ok(archive)
}

const TOO_MANY: Problem =
    Refused("has millions of members, as no root file system does; provision the rootfs directory");

struct Walk<'s> {
    source: &'s mut dyn Source,
    at: u64,
    /// Headers so far, and bytes of those before members.
    blocks: u32,
    extensions: u64,
    archive: Archive,
    /// What the next member's own header does not say, and where that starts.
    next: Extension,
    start: Option<u64>,
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK_BYTES).all(|part| [0; BLOCK_BYTES].starts_with(part))
}

impl<'s> Walk<'s> {
    fn new(source: &'s mut dyn Source) -> Self {
        Self {
            source,
            at: 0,
            blocks: 0,
            extensions: 0,
            archive: Archive::default(),
            next: Extension::default(),
            start: None,
        }
    }

    fn read_block(&mut self) -> Result<Block, Problem> {
        self.blocks += 1;
        if self.blocks > MOST_BLOCKS {
            return Err(TOO_MANY);
        }
        let mut block = [0; BLOCK_BYTES];
        self.read(&mut block)?;
        Ok(block)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Problem> {
        self.source.read(buffer)?;
        self.at = self.at.checked_add(buffer.len() as u64).ok_or(CUT)?;
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), Problem> {
        let at = self.at.checked_add(length).ok_or(CUT)?;
        self.source.skip(length)?;
        self.at = at;
        Ok(())
    }

    /// Reads content of `size` bytes, and skips what fills up its last block.
    fn read_content(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| CUT)?];
        self.read(&mut bytes)?;
        self.skip(size.next_multiple_of(BLOCK) - size)?;
        Ok(bytes)
    }

    /// Walks over a header that was read, and what belongs to it.
    fn step(&mut self, block: &Block) -> Result<(), Problem> {
        let header = header::parse(block)?;
        let start = self.at - BLOCK;
        match header.entry_type() {
            kind @ (EntryType::GNULongName | EntryType::GNULongLink) => {
                let content = self.read_extension(header)?;
                self.next.add_long(kind, &content)?;
            }
            EntryType::XHeader => {
                let records = self.read_extension(header)?;
                self.next.add_pax(&records)?;
            }
            EntryType::XGlobalHeader => header::judge_global_pax(&self.read_extension(header)?)?,
            kind => return self.member(block, kind, start),
        }
        self.start.get_or_insert(start);
        Ok(())
    }

    fn read_extension(&mut self, header: &Header) -> Result<Vec<u8>, Problem> {
        let size = header::size(header)?;
        if size > MOST_EXTENSION {
            return Err(damaged("a header is too large"));
        }
        self.extensions += size;
        if self.extensions > MOST_EXTENSIONS {
            return Err(TOO_MANY);
        }
        self.read_content(size)
    }

    fn member(&mut self, block: &Block, kind: EntryType, start: u64) -> Result<(), Problem> {
        let header = Header::from_byte_slice(block);
        let (next, start) = (take(&mut self.next), self.start.take().unwrap_or(start));
        let size = next.size.map_or_else(|| header::size(header), Ok)?;
        if !header::has_content(kind)? && size != 0 {
            return Err(damaged("a member that is no file has content"));
        }
        if kind == EntryType::GNUSparse {
            self.skip_sparse_map(block)?;
        }
        let (path, link) = (next.path_of(header)?, next.link_of(header));
        let is_plain = kind == EntryType::Regular && !next.is_sparse && !path.ends_with(b"/") && !path.ends_with(b"/.");
        let fields = header.as_old();
        let number = |pax: Option<u64>, own: &[u8]| {
            pax.or_else(|| header::number(own)).and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX)
        };
        let member = Member {
            start,
            content: self.at,
            size,
            mode: number(None, &fields.mode) & 0o7777,
            uid: number(next.uid, &fields.uid),
            gid: number(next.gid, &fields.gid),
        };
        let kind = if is_plain { None } else { Some(kind) };
        if self.is_conf(&path, &link, kind, member)? {
            let text = Zeroizing::new(self.read_content(size)?);
            self.archive.confs.push(PackedConf { member, text });
            return Ok(());
        }
        self.skip(size.checked_next_multiple_of(BLOCK).ok_or(CUT)?)
    }

    /// Skips the blocks that the map of a sparse file continues in.
    fn skip_sparse_map(&mut self, block: &Block) -> Result<(), Problem> {
        if Header::from_byte_slice(block).as_gnu().is_none() {
            return Err(damaged("a sparse file is not GNU tar's"));
        }
        let mut goes_on = header::sparse_map_goes_on(block, true)?;
        while goes_on {
            goes_on = header::sparse_map_goes_on(&self.read_block()?, false)?;
        }
        Ok(())
    }

    /// Records a member that matters here; `kind` is `None` for a regular file. Returns whether it is a `device.conf`.
    fn is_conf(&mut self, path: &[u8], link: &[u8], kind: Option<EntryType>, member: Member) -> Result<bool, Problem> {
        let names = parts(path)?;
        if names.first() == Some(&&b"etc"[..]) {
            self.archive.has_etc = true;
            self.archive.is_dotted = path.starts_with(b"./");
        }
        match names.as_slice() {
            [b"boot", ..] => self.archive.has_boot = true,
            [b"etc"] => check_directory(kind)?,
            [b"etc", b"azaion"] => {
                check_directory(kind)?;
                self.archive.folder = Some(member);
            }
            [b"etc", b"azaion", b"device.conf", rest @ ..] => {
                self.check_conf(rest.is_empty(), kind, member)?;
                return Ok(true);
            }
            _ => {}
        }
        let is_ours = |link| parts(link).is_ok_and(|names| names == [&b"etc"[..], b"azaion", b"device.conf"]);
        if kind == Some(EntryType::Link) && is_ours(link) {
            return Err(Refused("has a second name (a hard link) for etc/azaion/device.conf; take it away by hand"));
        }
        Ok(false)
    }

    fn check_conf(&self, is_last: bool, kind: Option<EntryType>, member: Member) -> Result<(), Problem> {
        match kind {
            None if is_last => {}
            Some(EntryType::Symlink) => {
                return Err(Refused("has a symlink at etc/azaion/device.conf; take it away in the rootfs directory"));
            }
            Some(EntryType::Link) => {
                return Err(Refused("has a hard link at etc/azaion/device.conf; take it away in the rootfs directory"));
            }
            _ => {
                return Err(Refused(
                    "has something at etc/azaion/device.conf that is no plain file; take it away in the rootfs directory",
                ));
            }
        }
        if member.size > MOST_CONF || self.archive.confs.len() == MOST_CONFS {
            return Err(Refused(
                "has an etc/azaion/device.conf of more than 1 MiB, or too many of them; take it away by hand",
            ));
        }
        Ok(())
    }

    fn finish(self) -> Result<Archive, Problem> {
        if self.start.is_some() {
            return Err(damaged("its last header belongs to no member"));
        }
        if !self.archive.has_etc {
            return Err(Refused(if self.archive.has_boot {
                "holds only /boot (flash.sh makes such for nvme0n1p1); provision the rootfs directory that it is made from"
            } else {
                "has no /etc: it is no root file system; name the one that is, or the rootfs directory"
            }));
        }
        Ok(self.archive)
    }
}

/// The names on a path, as tar goes by them.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let parts: Vec<_> = path.split(|&byte| byte == b'/').filter(|&part| !matches!(part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(Refused("is a tar archive with `..` in a name; pack it with plain `tar -cpf`"));
    }
    Ok(parts)
}

fn check_directory(kind: Option<EntryType>) -> Result<(), Problem> {
    match kind {
        Some(EntryType::Directory) => Ok(()),
        Some(EntryType::Symlink) => {
            Err(Refused("has a symlink in place of /etc or /etc/azaion; make it a folder, in the rootfs directory"))
        }
        _ => Err(Refused("has something in place of /etc or /etc/azaion that is no folder; take it away by hand")),
    }
}
