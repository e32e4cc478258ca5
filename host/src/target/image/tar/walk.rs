//! The walk over the headers of a tar archive, up to the end of its last member. It reads no content except that of `device.conf`.
//!
//! GNU tar unpacks the archive on the device. So the walk refuses everything that GNU tar would not unpack completely and without an
//! error, and everything that GNU tar may read differently. The checks of the `tar` crate are not enough: its iterator also continues
//! where GNU tar stops.
//!
//! Sources: ustar and pax of POSIX.1-2017 (`pax`), "Basic Tar Format" of GNU tar's manual, the behaviour of GNU tar 1.34. Numbers
//! from the archive are never trusted: all arithmetic is checked, and each step advances by at least one block.

use std::mem::take;

use ::tar::{EntryType, Header};
use zeroize::Zeroizing;

use super::contents::{Archive, CONF, Member, PackedConf};
use super::extension::{self, Extension};
use super::header::{self, BLOCK, BLOCK_BYTES, Block};
use super::path::{BAD_PATH, MOST_PATH, is_directory_path, names, without_slashes};
use super::problem::Problem::{self, Refused};
use super::problem::{TOO_MANY, damaged};
use super::source::{CUT, Source};
use super::sparse_map::{MAP_SLOTS, SparseMap};
use super::tree::Tree;

/// The most bytes of one extension header: extended attributes have at most 64 KiB, names 4 KiB.
const MOST_EXTENSION: u64 = 1 << 20;
/// The most headers and pieces of sparse files, and the most bytes of extension headers, of an archive: many times those of any
/// root file system.
const MOST_ITEMS: u32 = 2_000_000;
const MOST_EXTENSIONS: u64 = 1 << 30;
/// Names on a path that count as much as a header, for the time they take; more than most paths have.
const NAMES_PER_ITEM: usize = 16;
/// The most zeros behind the last member: more than any `--blocking-factor` in use leaves.
pub(in crate::target) const MOST_PADDING: u64 = 64 << 20;
/// Bytes of padding that are read at a time.
const CHUNK: usize = 1 << 16;
/// Bytes of the end-of-archive marker: two blocks of zeros.
pub(super) const END_MARKER: u64 = 2 * BLOCK;

/// Walks over the members of an archive. Reads up to and including the first block of the end-of-archive marker, or to the end of the
/// file.
///
/// # Errors
/// The archive is cut short, damaged, not a root file system, or has an unsupported member at the path of an appendix member.
pub(in crate::target) fn walk_members(source: &mut dyn Source) -> Result<Archive, Problem> {
    let mut walk = Walk::new(source);
    while let Some(block) = walk.next_header()? {
        walk.step(&block)?;
    }
    walk.finish()
}

/// Checks that only zeros follow the members and the first block of the end-of-archive marker. Returns whether the marker is complete;
/// GNU tar does not require that.
///
/// # Errors
/// Something other than zeros follows, or too many zeros.
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
            return Ok(padding >= END_MARKER - BLOCK);
        }
    }
}

/// Walks over a whole archive, including its end.
///
/// # Errors
/// The archive is cut short, damaged, not a root file system, or has an unsupported member at the path of an appendix member.
pub fn walk(source: &mut dyn Source) -> Result<Archive, Problem> {
    let archive = walk_members(source)?;
    check_end(source)?;
    Ok(archive)
}

struct Walk<'s> {
    source: &'s mut dyn Source,
    offset: u64,
    /// Headers and pieces of sparse files so far, and bytes of extension headers.
    items: u32,
    extensions: u64,
    archive: Archive,
    tree: Tree,
    /// The extension headers of the next member, and the offset of the first one.
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
            offset: 0,
            items: 0,
            extensions: 0,
            archive: Archive::default(),
            tree: Tree::default(),
            next: Extension::default(),
            start: None,
        }
    }

    /// Reads the next header, or returns `None` at the end of the members.
    fn next_header(&mut self) -> Result<Option<Block>, Problem> {
        self.count(1)?;
        let mut block = [0; BLOCK_BYTES];
        let length = self.source.read(&mut block)?;
        self.archive.end = self.offset;
        if is_zero(&block) {
            return Ok(None);
        }
        self.offset = self.offset.checked_add(BLOCK).filter(|_| length == BLOCK_BYTES).ok_or(CUT)?;
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
        self.offset = self.offset.checked_add(buffer.len() as u64).ok_or(CUT)?;
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), Problem> {
        let offset = self.offset.checked_add(length).ok_or(CUT)?;
        self.source.skip(length)?;
        self.offset = offset;
        Ok(())
    }

    /// Reads content of `size` bytes, and skips the padding of its last block.
    fn read_content(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| CUT)?];
        self.read(&mut bytes)?;
        self.skip(size.next_multiple_of(BLOCK) - size)?;
        Ok(bytes)
    }

    /// Walks over the content of a header that was read.
    fn step(&mut self, block: &Block) -> Result<(), Problem> {
        let header = header::parse(block)?;
        let start = self.offset - BLOCK;
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
            _ => return self.add_member(block, start),
        }
        self.start.get_or_insert(start);
        Ok(())
    }

    /// Reads the content of an extension header, up to a multiple of `unit` bytes.
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

    fn add_member(&mut self, block: &Block, start: u64) -> Result<(), Problem> {
        let header = Header::from_byte_slice(block);
        let (next, start) = (take(&mut self.next), self.start.take().unwrap_or(start));
        let (path, link) = (next.path_of(header)?, next.link_of(header));
        let kind = header::kind_of(header, &path)?;
        header::check_numbers(block, kind)?;
        let (own_size, fields) = (header::size(header)?, header.as_old());
        let (uid, gid) = (header::id(&fields.uid)?, header::id(&fields.gid)?);
        let size = next.size.unwrap_or(own_size);
        if !header::has_content(kind) && (size, own_size) != (0, 0) {
            return Err(damaged("a member that is not a regular file has content"));
        }
        let map = next.sparse_map(block, kind)?;
        let names = self.add_to_tree(&path, &link, kind)?;
        let mode = header::number(&fields.mode).and_then(|mode| u32::try_from(mode & 0o7777).ok());
        let member = Member {
            start,
            content: self.offset,
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

    /// Adds a member to the tree of paths, if GNU tar can unpack it. Returns the names on its path.
    fn add_to_tree<'p>(&mut self, path: &'p [u8], link: &[u8], kind: EntryType) -> Result<Vec<&'p [u8]>, Problem> {
        let path_names = names(path)?;
        self.count(u32::try_from(path_names.len() / NAMES_PER_ITEM).unwrap_or(MOST_ITEMS))?;
        if kind != EntryType::Directory && is_directory_path(without_slashes(path)) {
            return Err(damaged("a member that is not a directory has the path of one"));
        }
        let mut linked = None;
        match kind {
            EntryType::Symlink if link.is_empty() || link.len() > MOST_PATH => return Err(BAD_PATH),
            EntryType::Link if is_directory_path(link) => return Err(BAD_PATH),
            EntryType::Link => linked = Some(names(link)?),
            _ => {}
        }
        if linked.as_deref().is_some_and(|linked| linked == CONF) {
            return Err(Refused("has a hard link to etc/azaion/device.conf; remove it in the rootfs directory"));
        }
        self.tree.add(&path_names, kind, linked.as_deref())?;
        Ok(path_names)
    }

    /// Reads the map of a sparse file in GNU tar's own format, which is in its header and before its content. Returns the number of
    /// bytes of content that were read.
    fn read_map(&mut self, header: &Block, size: u64) -> Result<u64, Problem> {
        let (mut map, mut continues) = SparseMap::of_header(header)?;
        while continues {
            self.count(MAP_SLOTS)?;
            let mut block = [0; BLOCK_BYTES];
            self.read(&mut block)?;
            continues = map.add_block(&block)?;
        }
        map.check(0, size).map(|()| 0)
    }

    /// Reads the map of a sparse file in pax format, with which its content starts. Returns the number of bytes of content that were
    /// read.
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
