//! One header of an archive.

use ::tar::{EntryType, Header};

use super::problem::Problem::{self, Refused};
use super::problem::damaged;
use crate::target::error::Result;

/// The unit that an archive consists of.
pub(super) const BLOCK: u64 = 512;
pub(super) const BLOCK_BYTES: usize = 512;
/// A block, as it is read.
pub(super) type Block = [u8; BLOCK_BYTES];

/// Where the checksum lies in a header, which counts as blanks in it.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Where star has times of access and of change, and what ends each.
const STAR_TIMES: [std::ops::Range<usize>; 2] = [476..488, 488..500];
/// Where the numbers of a device lie, and from which ones on Linux has none.
const DEVICE_NUMBERS: [(std::ops::Range<usize>, u32); 2] = [(329..337, 1 << 12), (337..345, 1 << 20)];

/// Reads a header whose checksum is right, of a format that says how it is to be read.
pub(super) fn parse(block: &Block) -> Result<&Header, Problem> {
    let header = Header::from_byte_slice(block);
    if header.as_ustar().is_none() && !is_gnu(block) {
        return Err(damaged("a header is neither of POSIX nor of GNU tar"));
    }
    let own = block.get(CHECKSUM).unwrap_or_default();
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte)).sum::<i64>();
    let sum = sum(block) - sum(own) + sum(&[b' '; CHECKSUM.end - CHECKSUM.start]);
    // Some programs add bytes as signed numbers.
    let is_signed_sum = |own| {
        let bytes = block.get(..CHECKSUM.start).into_iter().chain(block.get(CHECKSUM.end..)).flatten();
        own == bytes.fold(sum, |sum, byte| if byte.is_ascii() { sum } else { sum - 256 })
    };
    if !octal(own).is_some_and(|own| own == sum || is_signed_sum(own)) {
        return Err(damaged("a header has another checksum"));
    }
    Ok(header)
}

/// Whether a header is of GNU tar's own format.
pub(super) fn is_gnu(block: &Block) -> bool {
    Header::from_byte_slice(block).as_gnu().is_some()
}

/// Whether GNU tar takes a header for one of star.
pub(super) fn is_star(block: &Block) -> bool {
    let is_time = |time: &[u8]| time.first().copied().is_some_and(is_octal) && time.last() == Some(&b' ');
    !is_gnu(block)
        && block.get(STAR_TIMES[0].start - 1) == Some(&0)
        && STAR_TIMES.into_iter().all(|time| block.get(time).is_some_and(is_time))
}

/// Bytes of content that follow the header.
pub(super) fn size(header: &Header) -> Result<u64, Problem> {
    let size = number(&header.as_old().size).and_then(|size| size.try_into().ok());
    size.ok_or(damaged("a member has no size, or an impossible one"))
}

/// An owner or a group.
pub(super) fn id(field: &[u8]) -> Result<u32, Problem> {
    number(field).and_then(|id| id.try_into().ok()).ok_or(BAD_NUMBER)
}

/// Refuses a number that is not used here, but at which GNU tar ends with an error.
pub(super) fn check_numbers(block: &Block, kind: EntryType) -> Result<(), Problem> {
    let header = Header::from_byte_slice(block);
    let fields = header.as_old();
    let times = STAR_TIMES.into_iter().filter(|_| is_star(block)).filter_map(|time| block.get(time));
    if [&fields.mode[..], &fields.mtime].into_iter().chain(times).any(|field| number(field).is_none()) {
        return Err(BAD_NUMBER);
    }
    if matches!(kind, EntryType::Char | EntryType::Block) {
        for (field, limit) in DEVICE_NUMBERS {
            if id(block.get(field).unwrap_or_default())? >= limit {
                return Err(BAD_NUMBER);
            }
        }
    }
    Ok(())
}

/// A number of a header, octal or binary, as GNU tar reads it but for some forms: an octal one that starts with a NUL or has no
/// digit, and one in base 64, which starts with a sign.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (start, bytes) = match field.split_first()? {
        (0x80, bytes) => (0, bytes),
        (0xFF, bytes) => (-1, bytes),
        _ => return octal(field),
    };
    bytes.iter().try_fold(start, |number: i64, &byte| number.checked_mul(256)?.checked_add(byte.into()))
}

fn octal(field: &[u8]) -> Option<i64> {
    if field.iter().all(|&byte| byte == 0) {
        return Some(0);
    }
    let digits = field.split(|&byte| byte == 0).next()?.trim_ascii();
    let add =
        |number: i64, digit| is_octal(digit).then(|| number.checked_mul(8)?.checked_add((digit - b'0').into()))?;
    if digits.is_empty() { None } else { digits.iter().copied().try_fold(0, add) }
}

fn is_octal(digit: u8) -> bool {
    (b'0'..=b'7').contains(&digit)
}

/// What a member of this name is to GNU tar.
pub(super) fn kind_of(header: &Header, path: &[u8]) -> Result<EntryType, Problem> {
    match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Ok(EntryType::Directory),
        kind @ (EntryType::Regular
        | EntryType::Continuous
        | EntryType::GNUSparse
        | EntryType::Link
        | EntryType::Symlink
        | EntryType::Char
        | EntryType::Block
        | EntryType::Fifo
        | EntryType::Directory) => Ok(kind),
        _ => Err(ODD_MEMBERS),
    }
}

/// Whether a member of this kind has content.
pub(super) fn has_content(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse)
}

/// A number without a sign, which Rust would take and GNU tar does not.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let is_decimal = digits.iter().all(u8::is_ascii_digit);
    is_decimal.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

pub(super) const ODD_MEMBERS: Problem =
    Refused("is a tar archive with members of an odd kind; pack it with plain `tar -cpf`");
const BAD_NUMBER: Problem = damaged("a header has an invalid number");
