//! A zstd-compressed raw ext4 image: `system.img.zst` of `l4t_initrd_flash.sh --sparse` since R39.
//!
//! The content is a whole partition, most of it zeros, so it is unpacked into a file with holes. For the first device, the slot is made
//! there as in a raw image, and everything is compressed again, with the slot's block as a frame of its own (`slot_frame`). For each
//! later device, this frame is overwritten in place.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread::{self, available_parallelism};

use zeroize::Zeroizing;
use zstd::stream::write::Encoder;

use super::block::{Block, BlockReader};
use super::slot_frame::{self, HEADER};
use crate::interrupt;
use crate::target::error::Result;
use crate::target::image::copy::data_after;
use crate::target::image::file::Image;
use crate::target::image::filesystem::{check_copy, find_slot, make_slot, read_history, scratch, warnings};
use crate::target::image::medium::{BLOCK_BYTES, Raw};
use crate::target::image::problem::Problem;
use crate::target::image::slot;
use crate::target::image::slot_image::{Format, Slot};
use crate::target::image::{ext4, sandbox};
use crate::target::{Kind, free_space};

/// Bytes that are compressed at a time.
const CHUNK: usize = 1 << 20;

/// The most decompressed blocks that wait to be written.
const QUEUE: usize = 16;
/// The most threads that compress; each takes about 20 MiB of memory.
const MOST_THREADS: usize = 6;

/// Limit of an image's nonzero content, in bytes: this, plus its compressed size times the ratio. Root file systems have a ratio of
/// two to ten.
const MOST_DATA: u64 = 16 << 20;
const MOST_DATA_RATIO: u64 = 32;

/// The format of a compressed raw image.
#[derive(Debug, Default)]
pub(super) struct Ext4Format {
    /// The unpacked image, in a file without a name.
    unpacked: RefCell<Option<File>>,
}

impl Ext4Format {
    /// Unpacks the image on the first call, and returns the unpacked file.
    fn unpacked(&self, image: &Image) -> Result<File> {
        let mut unpacked = self.unpacked.borrow_mut();
        let fail = |error| image.failed("unpacking", error);
        let raw = if let Some(raw) = unpacked.take() {
            raw
        } else {
            // Other directories rarely have the space for it. A user who can't write to this one can still inspect the image.
            let raw = scratch(image)?;
            unpack(&image.file(), &raw, None).map_err(|problem| image.problem(problem))?;
            raw
        };
        unpacked.insert(raw).try_clone().map_err(fail)
    }

    /// Reads the slot that the locator at the end of the image points to, if there is one.
    fn made_slot(file: &File) -> io::Result<Option<Slot>> {
        let Some(offset) = slot_frame::located(file)? else { return Ok(None) };
        let block = slot_frame::content(file, offset, slot::SIZE as u64)?;
        Ok(block.map(|block| super::made_slot(&block, offset)))
    }
}

impl Format for Ext4Format {
    fn kind(&self) -> Kind {
        Kind::Ext4Zst
    }

    fn find(&self, image: &Image, file: &File) -> Result<Option<Slot>> {
        if let Some(slot) = Self::made_slot(file).map_err(|error| image.failed("reading", error))? {
            return Ok(Some(slot));
        }
        let raw = self.unpacked(image)?;
        let medium = Raw::new(&raw).map_err(|error| image.failed("reading", error))?;
        // Its block is compressed in the image, so it can't be overwritten in place.
        Ok(find_slot(image, &medium)?.map(|slot| Slot { place: None, ..slot }))
    }

    fn can_make(&self) -> Result<()> {
        sandbox::is_possible()
    }

    fn make(&self, image: &Image, block: &[u8], into: &File) -> Result<()> {
        let raw = self.unpacked(image)?;
        // The slot is made in this file, which then differs from the image.
        self.unpacked.take();
        let offset = make_slot(image, &raw, block)?;
        pack(&raw, offset, into).map_err(|error| image.failed("compressing the copy of", error))
    }

    fn check_slot(&self, image: &Image, place: u64) -> Result<()> {
        let raw = scratch(image)?;
        let frame = place.checked_sub(HEADER);
        let start = unpack(&image.file(), &raw, frame).map_err(|problem| image.problem(problem))?;
        let medium = Raw::new(&raw).map_err(|error| image.failed("reading", error))?;
        let block = find_slot(image, &medium)?.and_then(|slot| slot.place);
        match block.filter(|_| block == start) {
            Some(block) => check_copy(image, &raw, block),
            None => Err(image
                .refused("has a slot that is not the block of its etc/azaion/device.conf; generate the images again")),
        }
    }

    fn needs_sum(&self) -> bool {
        true
    }

    fn warnings(&self, image: &Image) -> Result<Vec<String>> {
        let file = image.file();
        if Self::made_slot(&file).map_err(|error| image.failed("reading", error))?.is_some() {
            // The superblock was checked when the slot was made; reading it again would mean to unpack the image.
            return Ok(Vec::new());
        }
        let raw = self.unpacked(image)?;
        let medium = Raw::new(&raw).map_err(|error| image.failed("reading", error))?;
        warnings(image, &medium)
    }

    /// Reads the history only if the image is already unpacked: an image with a slot has not run on a device yet.
    fn history(&self, image: &Image) -> Result<Option<Vec<u8>>> {
        let unpacked = self.unpacked.borrow();
        let Some(raw) = &*unpacked else { return Ok(None) };
        read_history(image, &Raw::new(raw).map_err(|error| image.failed("reading", error))?)
    }
}

/// Decompresses a file into an empty one, where blocks of zeros become holes. Returns the offset in the content at which the frame at
/// the file offset `frame` starts, if a frame starts there. Another thread writes, because writing takes as long as decompressing.
fn unpack(from: &File, raw: &File, frame: Option<u64>) -> Result<Option<u64>, Problem> {
    let file_system = ext4::claimed_size(&super::head(from)?)?;
    let compressed = from.metadata()?.len();
    let mut budget = Budget {
        data: MOST_DATA.saturating_add(compressed.saturating_mul(MOST_DATA_RATIO)),
        space: free_space::free(raw)?,
    };
    let mut reader = BlockReader::new(from)?;
    let (to_writer, blocks) = mpsc::sync_channel::<Block>(QUEUE);
    let (back, used) = mpsc::channel();
    let (size, start) = thread::scope(|scope| {
        let writer = thread::Builder::new().spawn_scoped(scope, move || {
            blocks.iter().try_for_each(|block| {
                write_data(raw, &block.content, block.boundary.start, &mut budget)?;
                // Fails once everything is decompressed, when no buffer is needed any more.
                let _ = back.send(block);
                Ok::<_, Problem>(())
            })
        })?;
        let (mut size, mut start) = (0, None);
        while let Some(block) = reader.next_block()? {
            size = block.end();
            if !ext4::is_plausible(size, file_system) {
                return Err(Problem::Refused(
                    "decompresses to much more than the file system in it; generate the images again",
                ));
            }
            let of_frame = &block.boundary.frame;
            if Some(of_frame.offset) == frame {
                start = Some(of_frame.start);
            }
            for block in used.try_iter() {
                reader.reuse(block);
            }
            if to_writer.send(block).is_err() {
                break;
            }
        }
        drop(to_writer);
        writer.join().map_err(|_| io::Error::other("the writing thread panicked"))??;
        Ok::<_, Problem>((size, start))
    })?;
    raw.set_len(size)?;
    Ok(start)
}

/// The bytes that may still be written: by the limit of nonzero content, and by the free space.
struct Budget {
    data: u64,
    space: u64,
}

impl Budget {
    fn spend(&mut self, bytes: u64) -> Result<(), Problem> {
        self.data = self.data.checked_sub(bytes).ok_or(Problem::Refused(
            "decompresses to more than 32 times its size without the zeros, more than any root file system; generate the images again",
        ))?;
        self.space = self.space.checked_sub(bytes).ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
        Ok(())
    }
}

/// Writes the nonzero blocks of `content`, which starts at `offset`.
fn write_data(raw: &File, content: &[u8], offset: u64, budget: &mut Budget) -> Result<(), Problem> {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, block) in content.chunks(BLOCK_BYTES).enumerate() {
        if ZEROS.starts_with(block) {
            continue;
        }
        let start = number * BLOCK_BYTES;
        match runs.last_mut().filter(|run| run.end == start) {
            Some(run) => run.end += block.len(),
            None => runs.push(start..start + block.len()),
        }
    }
    for run in runs {
        budget.spend(run.len() as u64)?;
        raw.write_all_at(content.get(run.clone()).unwrap_or_default(), offset + run.start as u64)?;
    }
    Ok(())
}

/// Compresses a raw image into an empty file, with the block at `offset` as the slot's frame, and appends the locator.
fn pack(raw: &File, offset: u64, mut into: &File) -> io::Result<()> {
    let size = raw.metadata()?.len();
    let after = offset + slot::SIZE as u64;
    compress(raw, 0..offset, into)?;
    let mut block = Zeroizing::new(vec![0; slot::SIZE]);
    raw.read_exact_at(&mut block, offset)?;
    let frame = into.seek(SeekFrom::End(0))?;
    into.write_all(&slot_frame::header(slot::SIZE as u64))?;
    into.write_all(&block)?;
    compress(raw, after..size, into)?;
    into.seek(SeekFrom::End(0))?;
    into.write_all(&slot_frame::locator(frame + HEADER))
}

/// Appends a part of a raw image as a compressed frame. Holes are not read.
fn compress(raw: &File, part: Range<u64>, mut into: &File) -> io::Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    into.seek(SeekFrom::End(0))?;
    let mut encoder = Encoder::new(into, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    let threads = available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    encoder.multithread(threads.try_into().unwrap_or(1))?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(part.end - part.start))?;
    let (zeros, mut data) = (vec![0; CHUNK], Zeroizing::new(vec![0; CHUNK]));
    let mut at = part.start;
    while at < part.end {
        let next = data_after(raw, at, part.end)?.unwrap_or(part.end..part.end);
        while at < next.start {
            interrupt::check()?;
            let length = up_to(CHUNK, next.start - at);
            encoder.write_all(zeros.get(..length).unwrap_or_default())?;
            at += length as u64;
        }
        while at < next.end {
            interrupt::check()?;
            let length = up_to(CHUNK, next.end - at);
            let chunk = data.get_mut(..length).unwrap_or_default();
            raw.read_exact_at(chunk, at)?;
            encoder.write_all(chunk)?;
            at += length as u64;
        }
    }
    encoder.finish().map(drop)
}

fn up_to(most: usize, left: u64) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: blocks of zeros become holes, everything else is written at its offset, and both limits are enforced.
    #[test]
    fn zeros_become_holes() {
        let raw = tempfile::tempfile().unwrap();
        let mut content = vec![0; 5 * BLOCK_BYTES + 7];
        content[BLOCK_BYTES + 1] = 1;
        content[2 * BLOCK_BYTES] = 2;
        content[5 * BLOCK_BYTES + 6] = 3;
        let mut budget = Budget { data: 5 * 4096, space: 5 * 4096 };
        write_data(&raw, &content, 4096, &mut budget).unwrap();
        let mut read = vec![9; content.len()];
        raw.read_exact_at(&mut read, 4096).unwrap();
        assert!(read == content);
        assert_eq!(data_after(&raw, 0, 1 << 20).unwrap(), Some(2 * 4096..4 * 4096));
        assert_eq!(budget.data, 3 * 4096 - 7);
        assert!(matches!(write_data(&raw, &[1; 4 * 4096], 0, &mut budget), Err(Problem::Refused(_))));
        budget = Budget { data: 4096, space: 4095 };
        assert!(matches!(write_data(&raw, &[1; 4096], 0, &mut budget), Err(Problem::Io(_))));
    }
}
