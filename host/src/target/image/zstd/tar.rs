//! A zstd-compressed tar archive: `system.img` of `l4t_initrd_flash.sh` since R36.4.3.
//!
//! For the first device, the stream is split at the end of the last member. The blocks before the split stay unchanged, the content of
//! the split block up to the end of the member is compressed again, and the appendix follows as a frame of its own (`slot_frame`). For
//! each later device, this frame is overwritten in place. A frame behind the end-of-archive marker would not work: tar stops at the
//! marker without an error.

use std::cell::OnceCell;
use std::fs::File;
use std::hash::Hasher;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;
use zstd::stream::write::Encoder;

use super::block::{BlockReader, Boundary};
use super::frame::{LONGEST_BLOCK, with_last_bit};
use super::slot_frame::{self, HEADER, LOCATOR};
use super::stream::Stream;
use crate::target::Kind;
use crate::target::error::Result;
use crate::target::image::copy::copy;
use crate::target::image::file::Image;
use crate::target::image::problem::Problem;
use crate::target::image::slot_image::{Format, Slot};
use crate::target::image::tar::appendix;
use crate::target::image::tar::check_end_of;
use crate::target::image::tar::packed::{Blank, Packed};
use crate::target::image::tar::walk::walk_members;
use crate::target::lazy::get_or_try_init;

/// The compression level of the split block.
const BEST_LEVEL: i32 = 19;
/// The compression level of all that follows erased credentials.
const USUAL_LEVEL: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;

/// The format of a compressed archive.
#[derive(Debug, Default)]
pub(super) struct TarFormat {
    /// The result of reading the whole image.
    scan: OnceCell<Scan>,
}

/// The relevant content of a compressed archive without a slot.
struct Scan {
    /// Offset in the content at which the last member ends.
    end: u64,
    is_dotted: bool,
    packed: Packed,
    /// The boundary before the block in which the last member ends, and the content of that block up to there.
    boundary: Boundary,
    members: Zeroizing<Vec<u8>>,
    /// The skippable frames behind the boundary: offset and length in the file.
    skipped: Vec<(u64, u64)>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the content in it.
        f.debug_struct("Scan").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Scan {
    /// Decompresses the whole image, and walks over the archive in it.
    fn read(image: &Image) -> Result<Self> {
        let file = image.file();
        let problem = |problem| image.problem(problem);
        let mut stream = Stream::new(&file).map_err(|error| image.failed("reading", error))?;
        let archive = walk_members(&mut stream).map_err(problem)?;
        let cut = stream.cut_at(archive.end);
        let (boundary, members) = cut.ok_or_else(|| problem(super::frame::damaged("its end is missing")))?;
        check_end_of(image, &mut stream)?;
        let skipped = stream.skipped().iter().copied().filter(|(offset, _)| *offset > boundary.offset).collect();
        let packed = Packed::of(&archive, false);
        Ok(Self { end: archive.end, is_dotted: archive.is_dotted, packed, boundary, members, skipped })
    }
}

impl TarFormat {
    fn scan(&self, image: &Image) -> Result<&Scan> {
        get_or_try_init(&self.scan, || Scan::read(image))
    }

    /// Reads the slot that the locator at the end of the image points to, if there is one.
    fn made_slot(file: &File) -> std::io::Result<Option<Slot>> {
        let Some(offset) = slot_frame::located(file)? else { return Ok(None) };
        let end = file.metadata()?.len() - LOCATOR;
        let Some(start) = offset.checked_sub(appendix::CONTENT as u64) else { return Ok(None) };
        let length = end - start;
        let content = if length <= appendix::LONGEST { slot_frame::content(file, start, length)? } else { None };
        let block = content.as_deref().and_then(|content| appendix::parse(content, None));
        Ok(block.map(|block| super::made_slot(block, offset)))
    }
}

impl Format for TarFormat {
    fn kind(&self) -> Kind {
        Kind::TarZst
    }

    fn find(&self, image: &Image, file: &File) -> Result<Option<Slot>> {
        if let Some(slot) = Self::made_slot(file).map_err(|error| image.failed("reading", error))? {
            return Ok(Some(slot));
        }
        Ok(self.scan(image)?.packed.slot(false))
    }

    fn has_overridden(&self, image: &Image) -> Result<bool> {
        let slot = Self::made_slot(&image.file()).map_err(|error| image.failed("reading", error))?;
        Ok(slot.is_none() && self.scan(image)?.packed.has_overridden())
    }

    fn can_make(&self) -> Result<()> {
        Ok(())
    }

    fn make(&self, image: &Image, block: &[u8], into: &File) -> Result<()> {
        split(&image.file(), self.scan(image)?, block, into).map_err(|problem| image.problem(problem))
    }

    fn needs_sum(&self) -> bool {
        true
    }

    fn warnings(&self, _image: &Image) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Writes the image with a slot into an empty file.
fn split(from: &File, scan: &Scan, block: &[u8], into: &File) -> Result<(), Problem> {
    let blanks = scan.packed.blanks();
    match blanks.first() {
        None => {
            copy_up_to(from, &scan.boundary, into)?;
            compress(into, BEST_LEVEL, Some(scan.members.len() as u64), |encoder| encoder.write_all(&scan.members))?;
        }
        Some(first) => copy_without_credentials(from, first.start, scan.end, &blanks, into)?,
    }
    for &(offset, length) in &scan.skipped {
        copy(from, offset, into, into.metadata()?.len(), length)?;
    }
    append_slot(into, scan, block)
}

/// Copies everything before a boundary, and ends the frame that is open there.
fn copy_up_to(from: &File, boundary: &Boundary, into: &File) -> Result<(), Problem> {
    let frame = &boundary.frame;
    // The frame length that pzstd recorded would be wrong. Without the record, pzstd reads the file as any other.
    let start = frame.length_record.unwrap_or(frame.offset);
    let Some(previous) = boundary.previous else { return Ok(copy(from, 0, into, 0, start)?) };

    let header = frame.header.clone().with_content_size(boundary.start - frame.start);
    let (content, old_content) = (start + header.len() as u64, frame.offset + frame.header_length);
    if content == old_content {
        copy(from, 0, into, 0, boundary.offset)?;
    } else {
        copy(from, 0, into, 0, start)?;
        copy(from, old_content, into, content, boundary.offset - old_content)?;
    }
    into.write_all_at(&header, start)?;
    let last = content + (previous - old_content);
    let mut first_byte = [0];
    into.read_exact_at(&mut first_byte, last)?;
    into.write_all_at(&first_byte.map(with_last_bit), last)?;
    if frame.header.has_checksum() {
        // The content checksum is the lower half of XXH64.
        let [a, b, c, d, ..] = boundary.hash.finish().to_le_bytes();
        into.write_all_at(&[a, b, c, d], content + (boundary.offset - old_content))?;
    }
    Ok(())
}

/// Copies the archive up to `end`, with the blanks instead of credentials, the first of which is at the offset `first` of the content.
/// Everything from the block with that offset on is compressed again, because later blocks may refer to the credentials.
fn copy_without_credentials(from: &File, first: u64, end: u64, blanks: &[Blank], into: &File) -> Result<(), Problem> {
    let mut reader = BlockReader::new(from)?;
    let mut next = reader.next_block()?;
    while let Some(block) = &next
        && block.end() <= first
    {
        next = reader.next_block()?;
    }
    let Some(mut block) = next else { return Err(super::frame::damaged("it changed while it was read")) };
    copy_up_to(from, &block.boundary, into)?;
    let mut done = Ok(());
    compress(into, USUAL_LEVEL, None, |encoder| {
        loop {
            let start = block.boundary.start;
            for blank in blanks {
                blank.apply_to(&mut block.content, start);
            }
            let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
            encoder.write_all(block.content.get(..length).unwrap_or(&block.content))?;
            match reader.next_block() {
                Ok(Some(following)) if following.boundary.start < end => block = following,
                other => {
                    done = other.map(drop);
                    return Ok(());
                }
            }
        }
    })?;
    done
}

/// Appends a frame with the content that `write` writes, of `size` bytes if that is known. Appends nothing if `size` is zero.
fn compress(
    mut into: &File,
    level: i32,
    size: Option<u64>,
    write: impl FnOnce(&mut Encoder<'_, &File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    if size == Some(0) {
        return Ok(());
    }
    into.seek(SeekFrom::End(0))?;
    let mut encoder = Encoder::new(into, level)?;
    encoder.include_checksum(true)?;
    // With a known size, the window is no larger than the content.
    encoder.set_pledged_src_size(size)?;
    write(&mut encoder)?;
    encoder.finish().map(drop)
}

/// Appends the frame with the appendix, and the locator.
fn append_slot(into: &File, scan: &Scan, block: &[u8]) -> Result<(), Problem> {
    let too_large = Problem::Refused("is too large; provision the rootfs directory");
    let length = appendix::length(scan.end, 0).filter(|&length| length <= u64::from(LONGEST_BLOCK)).ok_or(too_large)?;
    let start = into.metadata()?.len();
    let header = slot_frame::header(length);
    let frame = Zeroizing::new([&header[..], &appendix::make(block, scan.is_dotted, None, length)].concat());
    into.write_all_at(&frame, start)?;
    let slot = start + HEADER + appendix::CONTENT as u64;
    Ok(into.write_all_at(&slot_frame::locator(slot), start + frame.len() as u64)?)
}
