//! Tar archives, which `l4t_initrd_flash.sh` flashes as `system.img` up to R36.2.
//!
//! If several members have one name, the last one wins. So the appendix, a directory and a `device.conf`, follows the members of
//! the image builder. For the first device, the archive is copied with an appendix; for each later device, the text of its
//! `device.conf` is overwritten in place. The header of the directory contains its own offset in the archive, so that the appendix
//! is found again without a walk over all headers.

pub(in crate::target) mod appendix;
mod contents;
mod extension;
mod header;
pub(in crate::target) mod packed;
mod path;
mod problem;
pub(in crate::target) mod source;
mod sparse_map;
mod tree;
pub(in crate::target) mod walk;

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::copy::copy_with_holes;
use super::slot_image::{Format, Slot, made_slot};
use crate::target::DIRECTORY_MODE;
use crate::target::Kind;
use crate::target::error::Result;
use crate::target::image::file::Image;
use crate::target::lazy::get_or_try_init;
use header::BLOCK;
use packed::Packed;
use walk::{MOST_PADDING, check_end, walk_members};

pub use contents::{Archive, Member, PackedConf};
pub use problem::Problem;
pub use source::{Plain, Source};
pub use walk::walk;

/// Bytes that are read at a time from the end of an archive; more than the usual padding.
const CHUNK: u64 = 1 << 14;

/// The format of a plain archive.
#[derive(Debug, Default)]
pub(super) struct TarFormat {
    /// The result of the walk over the archive.
    scan: OnceCell<Scan>,
}

/// The relevant content of an archive without a slot.
#[derive(Debug)]
struct Scan {
    /// Offset at which the members that stay end.
    end: u64,
    is_dotted: bool,
    /// Whether the last `etc/azaion` has the required mode and owner.
    is_directory_in_order: bool,
    packed: Packed,
}

impl Scan {
    fn read(image: &Image) -> Result<Self> {
        let file = image.file();
        let fail = |error| image.failed("reading", error);
        let mut source = Plain::new(&file).map_err(fail)?;
        let archive = walk_members(&mut source).map_err(|problem| image.problem(problem))?;
        check_end_of(image, &mut source)?;
        let earlier = find_earlier_appendix(&file, &archive).map_err(fail)?;
        Ok(Self {
            end: earlier.unwrap_or(archive.end),
            is_dotted: archive.is_dotted,
            is_directory_in_order: archive
                .directory
                .is_some_and(|directory| (directory.mode, directory.uid, directory.gid) == (DIRECTORY_MODE, 0, 0)),
            packed: Packed::of(&archive, earlier.is_some()),
        })
    }
}

impl TarFormat {
    fn scan(&self, image: &Image) -> Result<&Scan> {
        get_or_try_init(&self.scan, || Scan::read(image))
    }
}

impl Format for TarFormat {
    fn kind(&self) -> Kind {
        Kind::Tar
    }

    fn find(&self, image: &Image, file: &File) -> Result<Option<Slot>> {
        if let Some(slot) = slot_at_end(file).map_err(|error| image.failed("reading", error))? {
            return Ok(Some(slot));
        }
        let scan = self.scan(image)?;
        Ok(scan.packed.slot(scan.is_directory_in_order))
    }

    fn has_overridden(&self, image: &Image) -> Result<bool> {
        let slot = slot_at_end(&image.file()).map_err(|error| image.failed("reading", error))?;
        Ok(slot.is_none() && self.scan(image)?.packed.has_overridden())
    }

    fn can_make(&self) -> Result<()> {
        Ok(())
    }

    fn make(&self, image: &Image, block: &[u8], into: &File) -> Result<()> {
        let scan = self.scan(image)?;
        let file = image.file();
        let fail = |error| image.failed("making a copy of", error);
        let size = file.metadata().map_err(fail)?.len();
        let length = appendix::length(scan.end, size)
            .ok_or_else(|| image.refused("is too large; provision the rootfs directory"))?;
        let appendix = appendix::make(block, scan.is_dotted, Some(scan.end), length);
        copy_with_holes(&file, into)
            .and_then(|()| {
                scan.packed.blanks().iter().try_for_each(|blank| into.write_all_at(&blank.text, blank.start))
            })
            .and_then(|()| into.write_all_at(&appendix, scan.end))
            .map_err(fail)
    }

    fn needs_sum(&self) -> bool {
        true
    }

    fn warnings(&self, _image: &Image) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Reads the slot at the end of an archive, if there is one.
fn slot_at_end(file: &File) -> io::Result<Option<Slot>> {
    let Some(last) = last_byte(file)? else { return Ok(None) };
    let end = last.checked_add(1).and_then(|end| end.checked_next_multiple_of(BLOCK));
    let Some(start) = end.and_then(|end| end.checked_sub(appendix::MEMBERS)) else { return Ok(None) };
    let block = read_appendix(file, start, Some(start))?;
    Ok(block.map(|block| made_slot(&block, start + appendix::CONTENT as u64)))
}

/// Validates what follows the members of an archive. Warns if the end-of-archive marker is incomplete: GNU tar accepts that, but the
/// archive may be truncated.
pub(in crate::target::image) fn check_end_of(image: &Image, source: &mut dyn Source) -> Result<()> {
    if !check_end(source).map_err(|problem| image.problem(problem))? {
        log::warn!(
            "{} has no complete end-of-archive marker; if the archive is truncated, generate the images again",
            image.path.display()
        );
    }
    Ok(())
}

/// Returns the offset of the last nonzero byte, unless more zeros follow it than padding may have.
fn last_byte(file: &File) -> io::Result<Option<u64>> {
    let size = file.metadata()?.len();
    let mut end = size;
    while end > 0 && size - end <= MOST_PADDING {
        let start = end.saturating_sub(CHUNK);
        // Zeroizing: it may contain a password.
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(end - start).unwrap_or_default()]);
        file.read_exact_at(&mut bytes, start)?;
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            return Ok(Some(start + last as u64));
        }
        end = start;
    }
    Ok(None)
}

/// Reads the block of text of the appendix at `start`, if there is one. Its header has to contain `offset`.
fn read_appendix(file: &File, start: u64, offset: Option<u64>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(vec![0; appendix::SHORTEST]);
    match file.read_exact_at(&mut bytes, start) {
        Ok(()) => Ok(appendix::parse(&bytes, offset).map(|block| Zeroizing::new(block.to_vec()))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the offset of an appendix whose headers do not contain their offset, if there is one. It was written by a version up to
/// November 2026, or the archive was decompressed. A copy with another appendix replaces it.
fn find_earlier_appendix(file: &File, archive: &Archive) -> io::Result<Option<u64>> {
    let Some(start) = appendix::offset_of(archive) else { return Ok(None) };
    Ok(read_appendix(file, start, None)?.map(|_| start))
}

#[cfg(test)]
mod tests;
