//! From header to header through an archive, to where its last member ends. It only reads, and no content.
//!
//! Sources: ustar and pax of POSIX.1-2017 (`pax`), "Basic Tar Format" of GNU tar's manual. Numbers from the archive are
//! never trusted: all arithmetic is checked, and each step goes on by a block at least.

use std::io;
use std::mem::take;

use ::tar::{EntryType, GnuExtSparseHeader, Header};

use super::header::{self, BLOCK, BLOCK_BYTES, Block, Extension};
use crate::target::medium::Medium;
pub use crate::target::problem::Problem;
use Problem::Refused;

/// Bytes that one header before a member may have: extended attributes are 64 KiB at most, names 4 KiB.
const MOST_EXTENSION: u64 = 1 << 20;
/// Zeros that may follow the last member: more than any `--blocking-factor` in use leaves.
pub(super) const MOST_PADDING: u64 = 1 << 20;
/// End marks: two blocks of zeros.
pub(super) const END_MARKS: u64 = 2 * BLOCK;
/// Versions of `device.conf` that an archive may have, one behind the other.
const MOST_CONFS: usize = 16;
/// Bytes that a `device.conf` may have.
const MOST_CONF: u64 = 4096;

pub(super) fn damaged(how: &'static str) -> Problem {
    Problem::Damaged { what: "tar archive", how, advice: "generate the images again" }
}

/// A member that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it starts, with the headers before its own.
    pub start: u64,
    /// Where its content starts.
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

/// What an archive holds, as far as it matters here.
#[derive(Debug, Default)]
pub struct Archive {
    /// Where the last member ends.
    pub end: u64,
    /// Whether names start with `./`.
    pub is_dotted: bool,
    /// The last `etc/azaion`.
    pub folder: Option<Member>,
    /// Each `etc/azaion/device.conf`; the last one wins.
    pub confs: Vec<Member>,
    has_etc: bool,
    has_boot: bool,
}

/// Goes through a whole archive.
///
/// # Errors
/// It is cut, damaged, no root file system, or has something odd in the place of ours.
pub fn walk(medium: &dyn Medium) -> Result<Archive, Problem> {
    let mut walk = Walk::new(medium);
    loop {
        let block = walk.read_header()?;
        if is_zero(&block) {
            break;
        }
        walk.step(&block)?;
    }
    walk.check_end()?;
    walk.finish()
}

/// Goes through the members before `end`, where one must end.
pub(super) fn walk_base(medium: &dyn Medium, end: u64) -> Result<Archive, Problem> {
    let mut walk = Walk::new(medium);
    while walk.at < end {
        let block = walk.read_header()?;
        walk.step(&block)?;
    }
    if walk.at == end { walk.finish() } else { Err(damaged("no member ends where one did")) }
}

struct Walk<'m> {
    medium: &'m dyn Medium,
    size: u64,
    at: u64,
    archive: Archive,
    /// What the next member's own header does not say, and where that starts.
    next: Extension,
    start: Option<u64>,
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

impl<'m> Walk<'m> {
    fn new(medium: &'m dyn Medium) -> Self {
        let archive = Archive::default();
        Self { medium, size: medium.size(), at: 0, archive, next: Extension::default(), start: None }
    }

    fn read_header(&self) -> Result<Block, Problem> {
        self.read_block(self.at)
    }

    fn read_block(&self, at: u64) -> Result<Block, Problem> {
        let mut block = [0; BLOCK_BYTES];
        self.end_of(at, BLOCK)?;
        self.medium.read_at(&mut block, at)?;
        Ok(block)
    }

    /// Where `size` bytes from `start` on end, with what fills up their last block.
    fn end_of(&self, start: u64, size: u64) -> Result<u64, Problem> {
        let blocks = size.div_ceil(BLOCK).checked_mul(BLOCK);
        let end = blocks.and_then(|length| start.checked_add(length)).filter(|&end| end <= self.size);
        end.ok_or(damaged("it is cut"))
    }

    /// Goes beyond one header and what belongs to it.
    fn step(&mut self, block: &Block) -> Result<(), Problem> {
        let header = header::parse(block)?;
        let content = self.end_of(self.at, BLOCK)?;
        match header.entry_type() {
            EntryType::GNULongName => self.next.path = Some(self.read_name(header, content)?),
            EntryType::GNULongLink => self.next.link = Some(self.read_name(header, content)?),
            EntryType::XHeader => header::read_pax(&self.read_extension(header, content)?, &mut self.next)?,
            EntryType::XGlobalHeader => header::judge_global_pax(&self.read_extension(header, content)?)?,
            kind => return self.member(header, kind, content),
        }
        self.start.get_or_insert(self.at);
        self.at = self.end_of(content, header::size(header)?)?;
        Ok(())
    }

    fn read_extension(&self, header: &Header, content: u64) -> Result<Vec<u8>, Problem> {
        let size = header::size(header)?;
        self.end_of(content, size)?;
        if size > MOST_EXTENSION {
            return Err(damaged("a header is too large"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.medium.read_at(&mut bytes, content)?;
        Ok(bytes)
    }

    fn read_name(&self, header: &Header, content: u64) -> Result<Vec<u8>, Problem> {
        let mut name = self.read_extension(header, content)?;
        name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn member(&mut self, header: &Header, kind: EntryType, mut content: u64) -> Result<(), Problem> {
        let (next, start) = (take(&mut self.next), self.start.take().unwrap_or(self.at));
        let size = next.size.map_or_else(|| header::size(header), Ok)?;
        if !header::has_content(kind)? && size != 0 {
            return Err(damaged("a member that is no file has content"));
        }
        if kind == EntryType::GNUSparse {
            content = self.skip_sparse_map(header, content)?;
        }
        let path = next.path.as_deref().map_or_else(|| header.path_bytes(), Into::into);
        let link = next.link.as_deref().map_or_else(|| header.link_name_bytes(), |link| Some(link.into()));
        let is_plain = kind == EntryType::Regular && !next.is_sparse && !path.ends_with(b"/");
        let number = |pax: Option<u64>, own: io::Result<u64>| {
            u32::try_from(pax.map_or(own, Ok).unwrap_or(u64::MAX)).unwrap_or(u32::MAX)
        };
        let member = Member {
            start,
            content,
            size,
            mode: header.mode().unwrap_or(u32::MAX) & 0o7777,
            uid: number(next.uid, header.uid()),
            gid: number(next.gid, header.gid()),
        };
        self.note(&path, link.as_deref().unwrap_or_default(), if is_plain { None } else { Some(kind) }, member)?;
        self.at = self.end_of(content, size)?;
        Ok(())
    }

    /// Where the content of a sparse file starts: beyond the blocks that its map goes on in.
    fn skip_sparse_map(&self, header: &Header, mut content: u64) -> Result<u64, Problem> {
        let mut goes_on = header.as_gnu().ok_or(damaged("a sparse file is not GNU tar's"))?.is_extended();
        while goes_on {
            let mut map = GnuExtSparseHeader::new();
            map.as_mut_bytes().copy_from_slice(&self.read_block(content)?);
            goes_on = map.is_extended();
            content = self.end_of(content, BLOCK)?;
        }
        Ok(content)
    }

    /// Keeps what matters of a member; `odd` is its kind if that is not a plain file.
    fn note(&mut self, path: &[u8], link: &[u8], odd: Option<EntryType>, member: Member) -> Result<(), Problem> {
        let names = parts(path)?;
        if names.first() == Some(&&b"etc"[..]) {
            self.archive.has_etc = true;
            self.archive.is_dotted = path.starts_with(b"./");
        }
        match names.as_slice() {
            [b"boot", ..] => self.archive.has_boot = true,
            [b"etc"] => as_folder(odd)?,
            [b"etc", b"azaion"] => {
                as_folder(odd)?;
                self.archive.folder = Some(member);
            }
            [b"etc", b"azaion", b"device.conf", rest @ ..] => self.note_conf(rest.is_empty(), odd, member)?,
            _ => {}
        }
        let is_ours = |link| parts(link).is_ok_and(|names| names == [&b"etc"[..], b"azaion", b"device.conf"]);
        if odd == Some(EntryType::Link) && is_ours(link) {
            return Err(Refused("has a second name (a hard link) for etc/azaion/device.conf; take it away by hand"));
        }
        Ok(())
    }

    fn note_conf(&mut self, is_last: bool, odd: Option<EntryType>, member: Member) -> Result<(), Problem> {
        match odd {
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
                "has an etc/azaion/device.conf of more than 4096 bytes, or too many of them; take it away by hand",
            ));
        }
        self.archive.confs.push(member);
        Ok(())
    }

    /// Two blocks of zeros end an archive, and nothing but zeros may follow.
    fn check_end(&self) -> Result<(), Problem> {
        let left = self.size - self.at;
        if left < END_MARKS {
            return Err(damaged("it is cut"));
        }
        if left > MOST_PADDING {
            return Err(damaged("too much follows its end"));
        }
        let mut rest = vec![0; usize::try_from(left).unwrap_or_default()];
        self.medium.read_at(&mut rest, self.at)?;
        if is_zero(&rest) { Ok(()) } else { Err(damaged("something follows its end")) }
    }

    fn finish(mut self) -> Result<Archive, Problem> {
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
        self.archive.end = self.at;
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

fn as_folder(odd: Option<EntryType>) -> Result<(), Problem> {
    match odd {
        Some(EntryType::Directory) => Ok(()),
        Some(EntryType::Symlink) => {
            Err(Refused("has a symlink in place of /etc or /etc/azaion; make it a folder, in the rootfs directory"))
        }
        _ => Err(Refused("has something in place of /etc or /etc/azaion that is no folder; take it away by hand")),
    }
}
