//! Tar archives, which `l4t_initrd_flash.sh` flashes as `system.img` up to R36.2. Of several members of one name, the last one
//! wins: a directory and a `device.conf` follow the members of the image builder.
//!
//! The first device makes a copy with these members; each later device overwrites the text of `device.conf` in place. The
//! header of the directory says where in the archive it lies, so that no walk over all headers is needed to find it again.

mod contents;
mod extension;
mod header;
pub(in crate::target) mod packed;
mod problem;
pub(in crate::target) mod source;
mod sparse_map;
pub(in crate::target) mod tail;
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

/// Bytes that are read at a time from the end of an archive: more than the usual padding.
const CHUNK: u64 = 1 << 14;

/// A plain archive.
#[derive(Debug, Default)]
pub(super) struct TarFormat {
    /// What the walk over the archive found.
    scan: OnceCell<Scan>,
}

/// What an archive without a slot holds.
#[derive(Debug)]
struct Scan {
    /// Offset of the end of the members that stay.
    end: u64,
    is_dotted: bool,
    /// Whether the last `etc/azaion` has the mode and owner that it must have.
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
        let earlier = tail_of_earlier_version(&file, &archive).map_err(fail)?;
        Ok(Self {
            end: earlier.unwrap_or(archive.end),
            is_dotted: archive.is_dotted,
            is_directory_in_order: archive
                .folder
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
        let length = tail::length(scan.end, size)
            .ok_or_else(|| image.refused("is too large; provision the rootfs directory"))?;
        let tail = tail::make(block, scan.is_dotted, Some(scan.end), length);
        copy_with_holes(&file, into)
            .and_then(|()| {
                scan.packed.blanks().iter().try_for_each(|blank| into.write_all_at(&blank.text, blank.start))
            })
            .and_then(|()| into.write_all_at(&tail, scan.end))
            .map_err(fail)
    }

    fn needs_sum(&self) -> bool {
        true
    }

    fn warnings(&self, _image: &Image) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// The slot of an archive that has one, by what lies at its end.
fn slot_at_end(file: &File) -> io::Result<Option<Slot>> {
    let Some(last) = last_byte(file)? else { return Ok(None) };
    let end = last.checked_add(1).and_then(|end| end.checked_next_multiple_of(BLOCK));
    let Some(start) = end.and_then(|end| end.checked_sub(tail::MEMBERS)) else { return Ok(None) };
    let block = tail_at(file, start, Some(start))?;
    Ok(block.map(|block| made_slot(&block, start + tail::CONTENT as u64)))
}

/// Reads what follows the members of an archive. GNU tar does without an end marker, but it may be cut then.
pub(in crate::target::image) fn check_end_of(image: &Image, source: &mut dyn Source) -> Result<()> {
    if !check_end(source).map_err(|problem| image.problem(problem))? {
        log::warn!(
            "{} has no whole end-of-archive marker; if its end is missing, generate the images again",
            image.path.display()
        );
    }
    Ok(())
}

/// Offset of the last byte that is not zero, as far as padding may reach.
fn last_byte(file: &File) -> io::Result<Option<u64>> {
    let size = file.metadata()?.len();
    let mut end = size;
    while end > 0 && size - end <= MOST_PADDING {
        let start = end.saturating_sub(CHUNK);
        // It may hold a password.
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(end - start).unwrap_or_default()]);
        file.read_exact_at(&mut bytes, start)?;
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            return Ok(Some(start + last as u64));
        }
        end = start;
    }
    Ok(None)
}

/// The block of text of a tail that starts at `start`, if there is one; `says` is what its header says of that.
fn tail_at(file: &File, start: u64, says: Option<u64>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut tail = Zeroizing::new(vec![0; tail::SHORTEST]);
    match file.read_exact_at(&mut tail, start) {
        Ok(()) => Ok(tail::parse(&tail, says).map(|block| Zeroizing::new(block.to_vec()))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the tail starts that a version up to November 2026 wrote in place, or that was decompressed, if there is one. Its headers
/// do not say where they lie, so that it gives way to another in a copy.
fn tail_of_earlier_version(file: &File, archive: &Archive) -> io::Result<Option<u64>> {
    let Some(start) = tail::offset_of(archive) else { return Ok(None) };
    Ok(tail_at(file, start, None)?.map(|_| start))
}

#[cfg(test)]
mod tests;
