//! What follows the members of the image builder: a folder, a file, end marks.
//!
//! The headers are the same for every device, so that a write changes only the block of text: a power cut then leaves an
//! archive that is whole, with a block that says itself that it is not.
//!
//! In a plain archive, the directory's header also says where in the archive it lies: the device numbers, which no program looks at
//! in a directory's header, are the upper and the lower half of the number of its block. So a tail of another archive, packed as a
//! file, is never taken for one.

use ::tar::{EntryType, Header};
use azaion_agent::common::device_conf::MODE;
use zeroize::Zeroizing;

use super::contents::Archive;
use super::header::{BLOCK, BLOCK_BYTES};
use super::walk::END_MARKS;
use crate::target::DIRECTORY_MODE;
use crate::target::image::slot;

/// Where the block of text starts.
pub(in crate::target) const CONTENT: usize = 1024;
/// Bytes of folder and file.
pub(super) const MEMBERS: u64 = MEMBERS_END as u64;
const MEMBERS_END: usize = CONTENT + slot::SIZE;
/// Bytes of the shortest tail.
pub(super) const SHORTEST: usize = MEMBERS_END + 2 * BLOCK_BYTES;
/// What archives are padded to: the usual `--blocking-factor` of 20.
const RECORD: u64 = 20 * BLOCK;
/// 2020, for tar warns of times in the early 1970s, and `now` would make each device's headers differ.
const MTIME: u64 = 1_577_836_800;
/// Bits of a device number that have room in its field, which has seven octal digits.
const DEVICE_BITS: u32 = 21;

/// How many bytes follow a base of `base` bytes in an archive of `size`, once there is a tail: an archive never shrinks.
pub(in crate::target) fn length(base: u64, size: u64) -> Option<u64> {
    let needed = base.checked_add(MEMBERS + END_MARKS).filter(|_| (base / BLOCK) >> (2 * DEVICE_BITS) == 0)?;
    if size >= needed { Some(size - base) } else { Some(needed.checked_next_multiple_of(RECORD)? - base) }
}

/// The most bytes that follow a base, where no padding was there before.
pub(in crate::target) const LONGEST: u64 = MEMBERS + END_MARKS + RECORD;

/// All that follows the base, `length` bytes. Its header says that it lies at `place`, if that is given.
pub(in crate::target) fn make(block: &[u8], is_dotted: bool, place: Option<u64>, length: u64) -> Zeroizing<Vec<u8>> {
    let length = usize::try_from(length).unwrap_or_default();
    // Reserved first: a vector that grows leaves copies behind.
    let mut tail = Zeroizing::new(Vec::with_capacity(length));
    tail.extend_from_slice(&headers(is_dotted, place));
    tail.extend_from_slice(block);
    tail.resize(length, 0);
    tail
}

/// The block of text of what follows a base, if that is a tail of ours whose header says that it lies at `place`, or does not
/// say where.
pub(in crate::target) fn parse(rest: &[u8], place: Option<u64>) -> Option<&[u8]> {
    let (start, content) = rest.split_at_checked(CONTENT)?;
    let (block, zeros) = content.split_at_checked(slot::SIZE)?;
    let is_ours = [true, false].into_iter().any(|is_dotted| start == headers(is_dotted, place));
    let is_ended = zeros.len() as u64 >= END_MARKS && zeros.iter().all(|&byte| byte == 0);
    (is_ours && is_ended).then_some(block)
}

/// Where a tail of ours may start in an archive: its last two members, which lie as ours do.
pub(super) fn offset_of(archive: &Archive) -> Option<u64> {
    let (folder, conf) = (archive.folder?, archive.confs.last()?.member);
    let start = archive.end.checked_sub(MEMBERS)?;
    (folder.start == start && conf.start == start + BLOCK && conf.size == slot::SIZE as u64).then_some(start)
}

fn headers(is_dotted: bool, place: Option<u64>) -> Vec<u8> {
    let mut directory = header("etc/azaion/", is_dotted, EntryType::Directory, DIRECTORY_MODE, 0);
    if let (Some(place), Some(fields)) = (place, directory.as_ustar_mut()) {
        let block = place / BLOCK;
        for (field, half) in
            [(&mut fields.dev_major, block >> DEVICE_BITS), (&mut fields.dev_minor, block % (1 << DEVICE_BITS))]
        {
            field.iter_mut().zip(format!("{half:07o}").bytes()).for_each(|(there, digit)| *there = digit);
        }
        directory.set_cksum();
    }
    let file = header("etc/azaion/device.conf", is_dotted, EntryType::Regular, MODE, slot::SIZE as u64);
    [directory.as_bytes().as_slice(), file.as_bytes()].concat()
}

fn header(name: &str, is_dotted: bool, kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    // Header::set_path would leave the dot out.
    let name = [if is_dotted { "./" } else { "" }, name].concat();
    header.as_old_mut().name.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
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

    // Promise: what follows a base is within the bound by which it is found again, wherever in a record the base ends.
    #[test]
    fn no_tail_is_too_long() {
        for base in (0..2 * RECORD).step_by(512) {
            let length = length(base, 0).unwrap();
            assert!((MEMBERS + END_MARKS..=LONGEST).contains(&length), "{base}: {length}");
            assert_eq!((base + length) % RECORD, 0);
        }
    }
}
