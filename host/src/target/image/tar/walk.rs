//! The walk over the headers of a tar archive, to the end of its last member. It only reads, and no content but that of
//! `device.conf`.
//!
//! GNU tar, which unpacks the archive on the device, decides what is in it: whatever it would not unpack to the end, without an
//! error, is refused, and so is what it might read otherwise. That goes beyond what the `tar` crate checks, whose iterator also goes
//! on behind what GNU tar stops at.
//!
//! Sources: ustar and pax of POSIX.1-2017 (`pax`), "Basic Tar Format" of GNU tar's manual, the behaviour of GNU tar 1.34. Numbers
//! from the archive are never trusted: all arithmetic is checked, and each step advances by at least one block.

use std::mem::take;

use ::tar::{EntryType, Header};
use zeroize::Zeroizing;

use super::contents::{Archive, CONF, Member, PackedConf};
use super::extension::{self, Extension};
use super::header::{self, BLOCK, BLOCK_BYTES, Block};
use super::problem::Problem::{self, Refused};
use super::problem::{TOO_MANY, damaged};
use super::source::{CUT, Source};
use super::sparse_map::{MAP_SLOTS, SparseMap};
use super::tree::Tree;

/// Bytes that one header before a member may have: extended attributes are 64 KiB at most, names 4 KiB.
const MOST_EXTENSION: u64 = 1 << 20;
/// Headers and pieces of sparse files, and bytes of headers before members, that an archive may have: many times those of any root
/// file system.
const MOST_ITEMS: u32 = 2_000_000;
const MOST_EXTENSIONS: u64 = 1 << 30;
/// Names on a path that take as much time as a header: more than most paths have.
const NAMES_PER_ITEM: usize = 16;
/// Zeros that may follow the last member: more than any `--blocking-factor` in use leaves.
pub(in crate::target) const MOST_PADDING: u64 = 64 << 20;
/// Bytes of them that are read at a time.
const CHUNK: usize = 1 << 16;
/// Bytes that a name, and a path or what a symlink holds, may have on Linux.
const MOST_NAME: usize = 255;
const MOST_PATH: usize = 4095;
/// End-of-archive marker: two blocks of zeros.
pub(super) const END_MARKS: u64 = 2 * BLOCK;

/// Walks over the members of an archive, up to the first block of its end marker, which is read, or to the end of the file.
///
/// # Errors
/// It is cut, damaged, no root file system, or has something odd in place of our members.
pub(in crate::target) fn walk_members(source: &mut dyn Source) -> Result<Archive, Problem> {
    let mut walk = Walk::new(source);
    while let Some(block) = walk.next_header()? {
        walk.step(&block)?;
    }
    walk.finish()
}

/// Reads what follows the members and the first block of the end marker: nothing but zeros. Returns whether the marker is whole;
/// GNU tar does without.
///
/// # Errors
/// Something follows the end, or too many zeros.
pub(in crate::target) fn check_end(source: &mut dyn Source) -> Result<bool, Problem> {
    let mut padding = 0;
    let mut bytes = vec![0; CHUNK];
    loop {
        let length = source.read(&mut bytes)?;
        padding += length as u64;
        if padding > MOST_PADDING - BLOCK {
            return Err(damaged("too much follows its end"));
        }
        if !is_zero(bytes.get(..length).unwrap_or_default()) {
            return Err(damaged("something follows its end"));
        }
        if length < CHUNK {
            return Ok(padding >= END_MARKS - BLOCK);
        }
    }
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

struct Walk<'s> {
    source: &'s mut dyn Source,
    at: u64,
    /// Headers and pieces of sparse files so far, and bytes of headers before members.
    items: u32,
    extensions: u64,
    archive: Archive,
    tree: Tree,
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
            items: 0,
            extensions: 0,
            archive: Archive::default(),
            tree: Tree::default(),
            next: Extension::default(),
            start: None,
        }
    }

    /// The next header; none at the end of the members.
    fn next_header(&mut self) -> Result<Option<Block>, Problem> {
        self.count(1)?;
        let mut block = [0; BLOCK_BYTES];
        let length = self.source.read(&mut block)?;
        self.archive.end = self.at;
        if is_zero(&block) {
            return Ok(None);
        }
        self.at = self.at.checked_add(BLOCK).filter(|_| length == BLOCK_BYTES).ok_or(CUT)?;
        Ok(Some(block))
    }

    fn count(&mut self, items: u32) -> Result<(), Problem> {
        self.items += items;
        if self.items > MOST_ITEMS { Err(TOO_MANY) } else { Ok(()) }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Problem> {
        if self.source.read(buffer)? < buffer.len() {
            return Err(CUT);
        }
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
                let content = self.read_extension(header, BLOCK)?;
                self.next.add_long(kind, &content)?;
            }
            EntryType::XHeader => {
                let records = self.read_extension(header, 1)?;
                self.next.add_pax(&records)?;
            }
            EntryType::XGlobalHeader => extension::check_global_pax(&self.read_extension(header, 1)?)?,
            _ => return self.member(block, start),
        }
        self.start.get_or_insert(start);
        Ok(())
    }

    /// Reads the content of a header before a member, and what follows it up to a multiple of `unit`.
    fn read_extension(&mut self, header: &Header, unit: u64) -> Result<Vec<u8>, Problem> {
        let size = header::size(header)?;
        if size > MOST_EXTENSION {
            return Err(damaged("a header is too large"));
        }
        self.extensions += size;
        if self.extensions > MOST_EXTENSIONS {
            return Err(TOO_MANY);
        }
        self.read_content(size.next_multiple_of(unit))
    }

    fn member(&mut self, block: &Block, start: u64) -> Result<(), Problem> {
        let header = Header::from_byte_slice(block);
        let (next, start) = (take(&mut self.next), self.start.take().unwrap_or(start));
        let (path, link) = (next.path_of(header)?, next.link_of(header));
        let kind = header::kind_of(header, &path)?;
        header::check_numbers(block, kind)?;
        let (own_size, fields) = (header::size(header)?, header.as_old());
        let (uid, gid) = (header::id(&fields.uid)?, header::id(&fields.gid)?);
        let size = next.size.unwrap_or(own_size);
        if !header::has_content(kind) && (size, own_size) != (0, 0) {
            return Err(damaged("a member that is no file has content"));
        }
        let map = next.sparse_map(block, kind)?;
        let names = self.add_to_tree(&path, &link, kind)?;
        let mode = header::number(&fields.mode).and_then(|mode| u32::try_from(mode & 0o7777).ok());
        let member = Member {
            start,
            content: self.at,
            size,
            mode: mode.unwrap_or_default(),
            uid: next.uid.unwrap_or(uid),
            gid: next.gid.unwrap_or(gid),
        };
        let is_plain = kind == EntryType::Regular && map.is_none();
        if self.archive.add(&path, &names, if is_plain { None } else { Some(kind) }, member)? {
            let text = Zeroizing::new(self.read_content(size)?);
            self.archive.confs.push(PackedConf { member, text });
            return Ok(());
        }
        let read = match map {
            Some(map) => self.read_pax_map(map, size)?,
            None if kind == EntryType::GNUSparse => self.read_map(block, size)?,
            None => 0,
        };
        self.skip(size.checked_next_multiple_of(BLOCK).ok_or(CUT)? - read)
    }

    /// Adds a member to what is unpacked so far, if GNU tar can unpack it. Returns the names on its path.
    fn add_to_tree<'p>(&mut self, path: &'p [u8], link: &[u8], kind: EntryType) -> Result<Vec<&'p [u8]>, Problem> {
        let names = parts(path)?;
        self.count(u32::try_from(names.len() / NAMES_PER_ITEM).unwrap_or(MOST_ITEMS))?;
        if kind != EntryType::Directory && is_directory_name(without_slashes(path)) {
            return Err(damaged("a member that is no directory has the name of one"));
        }
        let mut linked = None;
        match kind {
            EntryType::Symlink if link.is_empty() || link.len() > MOST_PATH => return Err(BAD_NAME),
            EntryType::Link if is_directory_name(link) => return Err(BAD_NAME),
            EntryType::Link => linked = Some(parts(link)?),
            _ => {}
        }
        if linked.as_deref().is_some_and(|names| names == CONF) {
            return Err(Refused("has a second name (a hard link) for etc/azaion/device.conf; take it away by hand"));
        }
        self.tree.add(&names, kind, linked.as_deref())?;
        Ok(names)
    }

    /// Reads the map of a sparse file of GNU tar's own format, which lies in its header and before its content. Returns the bytes of
    /// content that were read.
    fn read_map(&mut self, header: &Block, size: u64) -> Result<u64, Problem> {
        let (mut map, mut goes_on) = SparseMap::of_header(header)?;
        while goes_on {
            self.count(MAP_SLOTS)?;
            let mut block = [0; BLOCK_BYTES];
            self.read(&mut block)?;
            goes_on = map.add_block(&block)?;
        }
        map.check(0, size).map(|()| 0)
    }

    /// Reads the map of a sparse file of pax, which its content starts with. Returns the bytes of content that were read.
    fn read_pax_map(&mut self, mut map: SparseMap, size: u64) -> Result<u64, Problem> {
        let mut text = Vec::new();
        loop {
            let more = if text.is_empty() { BLOCK } else { text.len() as u64 };
            let more = more.min(size.min(MOST_EXTENSION).saturating_sub(text.len() as u64));
            let content = self.read_content(more)?;
            if content.is_empty() {
                return Err(damaged("a sparse file has no map"));
            }
            text.extend(content);
            if let Some(length) = map.add_lines(&text)? {
                map.check(length.next_multiple_of(BLOCK), size)?;
                return Ok((text.len() as u64).next_multiple_of(BLOCK));
            }
        }
    }

    fn finish(self) -> Result<Archive, Problem> {
        if self.start.is_some() {
            return Err(damaged("its last header belongs to no member"));
        }
        self.archive.check_root()?;
        Ok(self.archive)
    }
}

const BAD_NAME: Problem = damaged("the name of a member, or what it links to, is not possible on Linux");

/// The names on a path, as tar goes by them.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let parts: Vec<_> = path.split(|&byte| byte == b'/').filter(|&part| !matches!(part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(Refused("is a tar archive with `..` in a name; pack it with plain `tar -cpf`"));
    }
    if path.len() > MOST_PATH || parts.iter().any(|part| part.len() > MOST_NAME) {
        return Err(BAD_NAME);
    }
    Ok(parts)
}

fn without_slashes(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    path
}

/// Whether a path can only be that of a directory.
fn is_directory_name(path: &[u8]) -> bool {
    matches!(path.rsplit(|&byte| byte == b'/').next(), Some(b"" | b"."))
}
