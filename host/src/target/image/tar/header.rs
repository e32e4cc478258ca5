//! The headers of an archive's members: validation, and the fields that are used here.

use ::tar::{EntryType, Header};

use super::problem::Problem::{self, Refused};
use super::problem::damaged;
use crate::target::error::Result;

/// Bytes of a block; headers and contents are multiples of it.
pub(super) const BLOCK: u64 = 512;
pub(super) const BLOCK_BYTES: usize = 512;
/// One block.
pub(super) type Block = [u8; BLOCK_BYTES];

/// The checksum field of a header. The checksum is computed as if the field contained blanks.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// The times of access and of change in a header of star; a blank ends each.
const STAR_TIMES: [std::ops::Range<usize>; 2] = [476..488, 488..500];
/// The major and minor device number fields, and the first number that Linux does not support.
const DEVICE_NUMBERS: [(std::ops::Range<usize>, u32); 2] = [(329..337, 1 << 12), (337..345, 1 << 20)];

/// Validates format and checksum of a header, and returns it.
pub(super) fn parse(block: &Block) -> Result<&Header, Problem> {
    let header = Header::from_byte_slice(block);
    if header.as_ustar().is_none() && !is_gnu(block) {
        return Err(damaged("a header is neither in POSIX nor in GNU format"));
    }
    let field = block.get(CHECKSUM).unwrap_or_default();
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte)).sum::<i64>();
    let sum = sum(block) - sum(field) + sum(&[b' '; CHECKSUM.end - CHECKSUM.start]);
    // Some programs sum up the bytes as signed numbers.
    let is_signed_sum = |checksum| {
        let bytes = block.get(..CHECKSUM.start).into_iter().chain(block.get(CHECKSUM.end..)).flatten();
        checksum == bytes.fold(sum, |sum, byte| if byte.is_ascii() { sum } else { sum - 256 })
    };
    if !octal(field).is_some_and(|checksum| checksum == sum || is_signed_sum(checksum)) {
        return Err(damaged("a header does not match its checksum"));
    }
    Ok(header)
}

/// Returns whether a header is in GNU tar's own format.
pub(super) fn is_gnu(block: &Block) -> bool {
    Header::from_byte_slice(block).as_gnu().is_some()
}

/// Returns whether GNU tar reads a header as one of star.
pub(super) fn is_star(block: &Block) -> bool {
    let is_time = |time: &[u8]| time.first().copied().is_some_and(is_octal) && time.last() == Some(&b' ');
    !is_gnu(block)
        && block.get(STAR_TIMES[0].start - 1) == Some(&0)
        && STAR_TIMES.into_iter().all(|time| block.get(time).is_some_and(is_time))
}

/// Returns the bytes of content that follow the header.
pub(super) fn size(header: &Header) -> Result<u64, Problem> {
    let size = number(&header.as_old().size).and_then(|size| size.try_into().ok());
    size.ok_or(damaged("a member has no valid size"))
}

/// Parses an owner, a group or a device number.
pub(super) fn id(field: &[u8]) -> Result<u32, Problem> {
    number(field).and_then(|id| id.try_into().ok()).ok_or(BAD_NUMBER)
}

/// Refuses numbers that are not used here, but that make GNU tar fail.
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

/// Parses a number, octal or binary, as GNU tar does. Returns `None` for some forms that GNU tar accepts: an octal number that starts
/// with a NUL or has no digit, and a number in base 64, which starts with a sign.
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

/// Returns the type of a member as GNU tar reads it: a regular file whose name ends with a slash is a directory.
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
        _ => Err(UNSUPPORTED_MEMBERS),
    }
}

/// Returns whether a member of this type has content.
pub(super) fn has_content(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse)
}

/// Parses a decimal number. Refuses a sign, which Rust accepts and GNU tar does not.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let is_decimal = digits.iter().all(u8::is_ascii_digit);
    is_decimal.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

pub(super) const UNSUPPORTED_MEMBERS: Problem =
    Refused("is a tar archive with members of an unsupported type; pack it with plain `tar -cpf`");
const BAD_NUMBER: Problem = damaged("a header has an invalid number");
