//! The appendix: a directory, a file and the end-of-archive marker behind the members of the image builder.
//!
//! Its headers are the same for every device, so that a write changes only the block of text. If a power cut interrupts the write,
//! the archive stays valid, and the checksum line of the block does not match.
//!
//! In a plain archive, the directory's header also contains its own offset: the device numbers, which no program reads in a directory's
//! header, are the upper and the lower half of its block number. So the appendix of another archive that is packed as a file is never
//! mistaken for the appendix of this archive.

use ::tar::{EntryType, Header};
use azaion_agent::common::device_conf::MODE;
use zeroize::Zeroizing;

use super::contents::Archive;
use super::header::{BLOCK, BLOCK_BYTES};
use super::walk::END_MARKER;
use crate::target::DIRECTORY_MODE;
use crate::target::image::slot;

/// Offset of the block of text in the appendix.
pub(in crate::target) const CONTENT: usize = 1024;
/// Bytes of the directory and the file.
pub(super) const MEMBERS: u64 = MEMBERS_END as u64;
const MEMBERS_END: usize = CONTENT + slot::SIZE;
/// Bytes of the shortest appendix.
pub(super) const SHORTEST: usize = MEMBERS_END + 2 * BLOCK_BYTES;
/// Archives are padded to a multiple of this: the usual `--blocking-factor` of 20.
const RECORD: u64 = 20 * BLOCK;
/// 2020, for tar warns of times in the early 1970s, and `now` would make each device's headers differ.
const MTIME: u64 = 1_577_836_800;
/// Bits of a device number that fit into its field of seven octal digits.
const DEVICE_BITS: u32 = 21;

/// Returns the length of an appendix behind `prefix` bytes of an archive of `size` bytes; an archive never shrinks. Returns `None`
/// if the archive is too large.
pub(in crate::target) fn length(prefix: u64, size: u64) -> Option<u64> {
    let needed = prefix.checked_add(MEMBERS + END_MARKER).filter(|_| (prefix / BLOCK) >> (2 * DEVICE_BITS) == 0)?;
    if size >= needed { Some(size - prefix) } else { Some(needed.checked_next_multiple_of(RECORD)? - prefix) }
}

/// The longest appendix, in bytes, of an archive without earlier padding.
pub(in crate::target) const LONGEST: u64 = MEMBERS + END_MARKER + RECORD;

/// Returns an appendix of `length` bytes with this block of text. Its header contains `offset`, if that is given.
pub(in crate::target) fn make(block: &[u8], is_dotted: bool, offset: Option<u64>, length: u64) -> Zeroizing<Vec<u8>> {
    let length = usize::try_from(length).unwrap_or_default();
    // The capacity is reserved first, because a vector that grows leaves copies of its content in memory.
    let mut appendix = Zeroizing::new(Vec::with_capacity(length));
    appendix.extend_from_slice(&headers(is_dotted, offset));
    appendix.extend_from_slice(block);
    appendix.resize(length, 0);
    appendix
}

/// Returns the block of text if `bytes` is an appendix. Its header has to contain `offset`, or no offset if that is `None`.
pub(in crate::target) fn parse(bytes: &[u8], offset: Option<u64>) -> Option<&[u8]> {
    let (start, content) = bytes.split_at_checked(CONTENT)?;
    let (block, zeros) = content.split_at_checked(slot::SIZE)?;
    let is_ours = [true, false].into_iter().any(|is_dotted| start == headers(is_dotted, offset));
    let is_ended = zeros.len() as u64 >= END_MARKER && zeros.iter().all(|&byte| byte == 0);
    (is_ours && is_ended).then_some(block)
}

/// Returns the offset at which an appendix may start: that of the last two members, if they have its layout.
pub(super) fn offset_of(archive: &Archive) -> Option<u64> {
    let (directory, conf) = (archive.directory?, archive.confs.last()?.member);
    let start = archive.end.checked_sub(MEMBERS)?;
    (directory.start == start && conf.start == start + BLOCK && conf.size == slot::SIZE as u64).then_some(start)
}

fn headers(is_dotted: bool, offset: Option<u64>) -> Vec<u8> {
    let mut directory = header("etc/azaion/", is_dotted, EntryType::Directory, DIRECTORY_MODE, 0);
    if let (Some(offset), Some(fields)) = (offset, directory.as_ustar_mut()) {
        let block = offset / BLOCK;
        for (field, half) in
            [(&mut fields.dev_major, block >> DEVICE_BITS), (&mut fields.dev_minor, block % (1 << DEVICE_BITS))]
        {
            field.iter_mut().zip(format!("{half:07o}").bytes()).for_each(|(byte, digit)| *byte = digit);
        }
        directory.set_cksum();
    }
    let file = header("etc/azaion/device.conf", is_dotted, EntryType::Regular, MODE, slot::SIZE as u64);
    [directory.as_bytes().as_slice(), file.as_bytes()].concat()
}

fn header(name: &str, is_dotted: bool, kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    // Header::set_path would drop the dot.
    let name = [if is_dotted { "./" } else { "" }, name].concat();
    header.as_old_mut().name.iter_mut().zip(name.bytes()).for_each(|(field, byte)| *field = byte);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(MTIME);
    header.set_cksum();
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: an appendix is no longer than the limit up to which it is found again, wherever in a record the prefix ends.
    #[test]
    fn no_appendix_is_too_long() {
        for prefix in (0..2 * RECORD).step_by(512) {
            let length = length(prefix, 0).unwrap();
            assert!((MEMBERS + END_MARKER..=LONGEST).contains(&length), "{prefix}: {length}");
            assert_eq!((prefix + length) % RECORD, 0);
        }
    }
}
