//! One header of an archive, and the pax records that may precede it.

use std::borrow::Cow;

use ::tar::{EntryType, Header};

use super::walk::Problem::{self, Refused};
use super::walk::damaged;
use crate::target::error::Result;

/// The unit that an archive consists of.
pub(super) const BLOCK: u64 = 512;
pub(super) const BLOCK_BYTES: usize = 512;
/// A block, as it is read.
pub(super) type Block = [u8; BLOCK_BYTES];

/// Where the checksum lies in a header, which counts as blanks in it.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Where the flag lies that the map of a sparse file goes on in a block, in a header and in such a block.
const HEADER_GOES_ON: usize = 482;
const MAP_GOES_ON: usize = 504;

/// What precedes a member and says more about it than its header can.
#[derive(Debug, Default)]
pub(super) struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) is_sparse: bool,
    /// Whether `path` is the name of a sparse file, which counts more than a plain one.
    has_sparse_name: bool,
    /// Whether there was a pax header.
    has_pax: bool,
}

/// Reads a header whose checksum is right, of a format that says how it is to be read.
pub(super) fn parse(block: &Block) -> Result<&Header, Problem> {
    let header = Header::from_byte_slice(block);
    if header.as_ustar().is_none() && header.as_gnu().is_none() {
        return Err(damaged("a header is neither of POSIX nor of GNU tar"));
    }
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    let blanks = sum(&[b' '; CHECKSUM.end - CHECKSUM.start]);
    let own = block.get(CHECKSUM).unwrap_or_default();
    if octal(&header.as_old().cksum) != Some(sum(block) - sum(own) + blanks) {
        return Err(damaged("a header has another checksum"));
    }
    Ok(header)
}

/// Bytes of content that follow the header.
pub(super) fn size(header: &Header) -> Result<u64, Problem> {
    number(&header.as_old().size).ok_or(damaged("a member has no size, or an impossible one"))
}

/// A number of a header, octal or binary. GNU tar reads some fields otherwise than the library does: `+` and `-` start a number
/// in base 64.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    match field.split_first() {
        // A binary number, of which no negative one is taken.
        Some((0x80, bytes)) => {
            bytes.iter().try_fold(0, |number: u64, &byte| number.checked_mul(256)?.checked_add(byte.into()))
        }
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.split(|&byte| byte == 0).next()?.trim_ascii();
    let is_octal = !digits.is_empty() && digits.iter().all(|digit| (b'0'..=b'7').contains(digit));
    is_octal.then(|| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok())?
}

/// Whether the map of a sparse file goes on in another block.
pub(super) fn sparse_map_goes_on(block: &Block, is_header: bool) -> Result<bool, Problem> {
    // GNU tar takes any other byte for a yes.
    match block.get(if is_header { HEADER_GOES_ON } else { MAP_GOES_ON }) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(damaged("the map of a sparse file has no such form")),
    }
}

/// Whether a member of this kind has content of its own.
pub(super) fn has_content(kind: EntryType) -> Result<bool, Problem> {
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Ok(true),
        EntryType::Link
        | EntryType::Symlink
        | EntryType::Char
        | EntryType::Block
        | EntryType::Fifo
        | EntryType::Directory => Ok(false),
        _ => Err(Refused("is a tar archive with members of an odd kind; pack it with plain `tar -cpf`")),
    }
}

/// Judges a pax header for all members that follow: what would change how ours is unpacked is refused.
pub(super) fn judge_global_pax(mut records: &[u8]) -> Result<(), Problem> {
    while !records.is_empty() {
        let (key, _, rest) = record(records).ok_or(damaged("a pax header has no such form"))?;
        if !matches!(key, b"comment" | b"mtime" | b"atime" | b"ctime") {
            return Err(Refused(
                "is a tar archive with a global header for all members; pack it with plain `tar -cpf`",
            ));
        }
        records = rest;
    }
    Ok(())
}

/// Key and value of the first record, `LENGTH KEY=VALUE\n`, and all records that follow. The value may hold any byte.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = records.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(records.get(..digits)?)?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let text = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|&byte| byte == b'=')?;
    Some((text.get(..equals)?, text.get(equals + 1..)?, rest))
}

/// A number without a sign, which Rust would take and GNU tar does not.
fn decimal(digits: &[u8]) -> Option<u64> {
    let is_decimal = digits.iter().all(u8::is_ascii_digit);
    is_decimal.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// A name of which nobody takes only a part: GNU tar ends one at a NUL, and of an empty one it takes the header's.
fn name(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(damaged("a name is empty, or has a NUL in it"));
    }
    Ok(bytes.to_vec())
}

impl Extension {
    /// Adds the content of a header of GNU tar with the name of a member, or of what it links to; a NUL ends it.
    pub(super) fn add_long(&mut self, kind: EntryType, content: &[u8]) -> Result<(), Problem> {
        let name = name(content.strip_suffix(b"\0").unwrap_or(content))?;
        let place = if kind == EntryType::GNULongLink { &mut self.link } else { &mut self.path };
        if self.has_pax || place.replace(name).is_some() {
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
            let (key, value, rest) = record(records).ok_or(damaged("a pax header has no such form"))?;
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let number = || decimal(value).map(Some).ok_or(damaged("a pax header has a number that is none"));
        match key {
            b"path" => {
                let name = name(value)?;
                if !self.has_sparse_name {
                    self.path = Some(name);
                }
            }
            b"linkpath" => self.link = Some(name(value)?),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"GNU.sparse.name" => {
                self.path = Some(name(value)?);
                (self.is_sparse, self.has_sparse_name) = (true, true);
            }
            _ if key.starts_with(b"GNU.sparse.") => self.is_sparse = true,
            // GNU tar ends a key there, and then finds no equal sign.
            _ if key.contains(&0) => return Err(damaged("a pax header has no such form")),
            _ => {}
        }
        Ok(())
    }

    /// The name of the member that follows, whose header this is.
    pub(super) fn path_of<'h>(&'h self, header: &'h Header) -> Result<Cow<'h, [u8]>, Problem> {
        let path = self.path.as_deref().map_or_else(|| header.path_bytes(), Into::into);
        if path.is_empty() { Err(damaged("a member has no name")) } else { Ok(path) }
    }

    /// What that member links to, if it is a link.
    pub(super) fn link_of<'h>(&'h self, header: &'h Header) -> Cow<'h, [u8]> {
        let link = self.link.as_deref().map_or_else(|| header.link_name_bytes(), |link| Some(link.into()));
        link.unwrap_or_default()
    }
}

/// Of two headers that say more about a member, GNU tar takes the last one or that of pax, whichever order they have.
const TWO_HEADERS: Problem = Refused("is a tar archive with two headers for one name; pack it with plain `tar -cpf`");
