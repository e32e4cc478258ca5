//! One header of an archive, and the pax records that may precede it.

use ::tar::{EntryType, Header};

use super::walk::Problem::{self, Refused};
use super::walk::damaged;

/// The unit that an archive consists of.
pub(super) const BLOCK: u64 = 512;
pub(super) const BLOCK_BYTES: usize = 512;
/// A block, as it is read.
pub(super) type Block = [u8; BLOCK_BYTES];

/// Where the checksum lies in a header, which counts as blanks in it.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// What precedes a member and says more about it than its header can.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) is_sparse: bool,
    /// Whether `path` is the name of a sparse file, which counts more than a plain one.
    has_sparse_name: bool,
}

/// Reads a header whose checksum is right, of a format that says how it is to be read.
pub(super) fn parse(block: &Block) -> Result<&Header, Problem> {
    let header = Header::from_byte_slice(block);
    if header.as_ustar().is_none() && header.as_gnu().is_none() {
        return Err(damaged("a header is neither of POSIX nor of GNU tar"));
    }
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let blanks = sum(&[b' '; CHECKSUM.end - CHECKSUM.start]);
    let own = block.get(CHECKSUM).unwrap_or_default();
    if header.cksum().ok() != Some(sum(block) - sum(own) + blanks) {
        return Err(damaged("a header has another checksum"));
    }
    Ok(header)
}

/// Bytes of content that follow the header.
pub(super) fn size(header: &Header) -> Result<u64, Problem> {
    let field = &header.as_old().size;
    // Of a binary number, entry_size looks at the last eight bytes alone.
    if field.first() >= Some(&0x80) && !field.starts_with(&[0x80, 0, 0, 0]) {
        return Err(damaged("a member has an impossible size"));
    }
    header.entry_size().map_err(|_| damaged("a member has no size"))
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

/// Adds the records of a pax header: `LENGTH KEY=VALUE\n` each, where a value may hold any byte.
pub(super) fn read_pax(mut records: &[u8], into: &mut Extension) -> Result<(), Problem> {
    while !records.is_empty() {
        let (key, value, rest) = record(records).ok_or(damaged("a pax header has no such form"))?;
        into.set(key, value)?;
        records = rest;
    }
    Ok(())
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

fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = records.iter().position(|&byte| byte == b' ')?;
    let length = std::str::from_utf8(records.get(..digits)?).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let text = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|&byte| byte == b'=')?;
    Some((text.get(..equals)?, text.get(equals + 1..)?, rest))
}

impl Extension {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let number = || {
            let digits = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            digits.map(Some).ok_or(damaged("a pax header has a number that is none"))
        };
        match key {
            b"path" if !self.has_sparse_name => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"GNU.sparse.name" => {
                self.path = Some(value.to_vec());
                (self.is_sparse, self.has_sparse_name) = (true, true);
            }
            _ if key.starts_with(b"GNU.sparse.") => self.is_sparse = true,
            _ => {}
        }
        Ok(())
    }
}
