//! Extension headers, which precede the header of a member: long names of GNU tar, and pax records.

use std::borrow::Cow;

use ::tar::{EntryType, Header};

use super::header::{Block, UNSUPPORTED_MEMBERS, decimal, is_gnu, is_star};
use super::problem::Problem::{self, Refused};
use super::problem::damaged;
use super::sparse_map::SparseMap;

/// The values of a member's extension headers, which override its own header.
#[derive(Debug, Default)]
pub(super) struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    /// Whether there are records of a sparse file; its size, and the major version of its format.
    is_sparse: bool,
    real_size: Option<u64>,
    major: u64,
    /// Whether `path` is the name of a sparse file, which overrides a plain one.
    has_sparse_name: bool,
    /// Whether there was a pax header.
    has_pax: bool,
}

/// Validates a global pax header. Refuses records that would change how the appendix is unpacked.
pub(super) fn check_global_pax(mut records: &[u8]) -> Result<(), Problem> {
    while !records.is_empty() {
        let (key, value, rest) = record(records)?;
        match key {
            b"comment" => {}
            b"mtime" | b"atime" | b"ctime" => check_time(value)?,
            _ => {
                return Err(Refused(
                    "is a tar archive with a global header for all members; pack it with plain `tar -cpf`",
                ));
            }
        }
        records = rest;
    }
    Ok(())
}

type Record<'r> = (&'r [u8], &'r [u8], &'r [u8]);

/// Returns key and value of the first record, `LENGTH KEY=VALUE\n`, and the remaining records. The value may contain any byte.
fn record(records: &[u8]) -> Result<Record<'_>, Problem> {
    let split = || {
        let digits = records.iter().position(|&byte| byte == b' ')?;
        let length = usize::try_from(decimal(records.get(..digits)?)?).ok()?;
        let (record, rest) = records.split_at_checked(length)?;
        let text = record.get(digits + 1..)?.strip_suffix(b"\n")?;
        let equals = text.iter().position(|&byte| byte == b'=')?;
        Some((text.get(..equals)?, text.get(equals + 1..)?, rest))
    };
    // GNU tar ends a key at a NUL, and skips blanks before it.
    let is_clear = |key: &[u8]| !key.contains(&0) && !key.starts_with(b" ") && !key.starts_with(b"\t");
    split().filter(|(key, ..)| is_clear(key)).ok_or(damaged("a pax header is malformed"))
}

/// Refuses a time that is not a number of seconds with an optional fraction.
fn check_time(value: &[u8]) -> Result<(), Problem> {
    let unsigned = value.strip_prefix(b"-").unwrap_or(value);
    let mut parts = unsigned.splitn(2, |&byte| byte == b'.');
    let is_good = parts.next().and_then(decimal).is_some_and(|seconds| i64::try_from(seconds).is_ok())
        && parts.next().is_none_or(|fraction| fraction.iter().all(u8::is_ascii_digit));
    if is_good { Ok(()) } else { Err(BAD_PAX_NUMBER) }
}

/// Validates a name that every program reads in the same way. GNU tar ends a name at a NUL, and uses the header's name instead of an
/// empty one, so both are refused.
fn name(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(damaged("a name is empty or contains a NUL"));
    }
    Ok(bytes.to_vec())
}

impl Extension {
    /// Adds a long name or a long link target from the content of a GNU tar header. A NUL ends it, whatever size the header claims;
    /// only NULs may follow.
    pub(super) fn add_long(&mut self, kind: EntryType, blocks: &[u8]) -> Result<(), Problem> {
        let length = blocks.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let name = name(blocks.get(..length).unwrap_or_default())?;
        let field = if kind == EntryType::GNULongLink { &mut self.link } else { &mut self.path };
        if self.has_pax || field.replace(name).is_some() {
            return Err(TWO_HEADERS);
        }
        Ok(())
    }

    /// Adds the records of a pax header.
    pub(super) fn add_pax(&mut self, mut records: &[u8]) -> Result<(), Problem> {
        if std::mem::replace(&mut self.has_pax, true) || self.path.is_some() || self.link.is_some() {
            return Err(TWO_HEADERS);
        }
        while !records.is_empty() {
            let (key, value, rest) = record(records)?;
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let number = || decimal(value).ok_or(BAD_PAX_NUMBER);
        let id = || number()?.try_into().map(Some).map_err(|_| BAD_PAX_NUMBER);
        self.is_sparse |= key.starts_with(b"GNU.sparse.");
        match key {
            b"path" => {
                let name = name(value)?;
                if !self.has_sparse_name {
                    self.path = Some(name);
                }
            }
            b"linkpath" => self.link = Some(name(value)?),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = id()?,
            b"gid" => self.gid = id()?,
            b"mtime" | b"atime" | b"ctime" => check_time(value)?,
            b"GNU.sparse.name" => {
                self.path = Some(name(value)?);
                self.has_sparse_name = true;
            }
            b"GNU.sparse.realsize" => self.real_size = Some(number()?),
            b"GNU.sparse.major" => self.major = number()?,
            b"GNU.sparse.minor" if number()? == 0 => {}
            // Incremental archives, multi-volume archives, and obsolete maps of sparse files.
            _ if key.starts_with(b"GNU.") => return Err(UNSUPPORTED_MEMBERS),
            _ => {}
        }
        Ok(())
    }

    /// Returns the empty map of a sparse file in pax format, whose content starts with the map, or `None` for any other file.
    pub(super) fn sparse_map(&self, block: &Block, kind: EntryType) -> Result<Option<SparseMap>, Problem> {
        match self.real_size {
            _ if !self.is_sparse => Ok(None),
            Some(size) if self.major == 1 && kind == EntryType::Regular && !is_gnu(block) && !is_star(block) => {
                SparseMap::new(size).map(Some)
            }
            _ => Err(damaged("a sparse file has no map")),
        }
    }

    /// Returns the path of the member with this header.
    pub(super) fn path_of<'h>(&'h self, header: &'h Header) -> Result<Cow<'h, [u8]>, Problem> {
        let path = self.path.as_deref().map_or_else(|| header.path_bytes(), Into::into);
        if path.is_empty() { Err(damaged("a member has no name")) } else { Ok(path) }
    }

    /// Returns the link target of the member with this header; empty if it is not a link.
    pub(super) fn link_of<'h>(&'h self, header: &'h Header) -> Cow<'h, [u8]> {
        let link = self.link.as_deref().map_or_else(|| header.link_name_bytes(), |link| Some(link.into()));
        link.unwrap_or_default()
    }
}

/// GNU tar uses the last of two long names, but prefers a pax header in any order, so a member with two such headers is refused.
const TWO_HEADERS: Problem = Refused("is a tar archive with two headers for one name; pack it with plain `tar -cpf`");
const BAD_PAX_NUMBER: Problem = damaged("a pax header has an invalid number");
