//! A zstd-compressed raw ext4 image: `system.img.zst` of `l4t_initrd_flash.sh --sparse` since R39.
//!
//! The content is a whole partition, most of it zeros, so it is unpacked into a file with holes. The first device makes the slot
//! there as in a raw image, and compresses all of it again, with the slot's block as a frame of its own (`slot_frame`), which
//! each later device overwrites in place.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread::{self, available_parallelism};

use zeroize::Zeroizing;
use zstd::stream::write::Encoder;

use super::slot_frame::{self, HEADER};
use super::stream::{Block, Stream};
use crate::target::copy::data_after;
use crate::target::filesystem::{find_slot, make_slot, warnings};
use crate::target::image::Image;
use crate::target::medium::{BLOCK_BYTES, Raw};
use crate::target::problem::Problem;
use crate::target::slot;
use crate::target::slot_image::{Format, Slot};
use crate::target::{Kind, prepare};

/// Bytes that are compressed at a time.
const CHUNK: usize = 1 << 20;

/// Blocks that may wait to be written.
const QUEUE: usize = 16;

/// A compressed raw image.
#[derive(Debug, Default)]
pub(super) struct Ext4Format {
    /// What the image unpacks to, in a file without a name.
    unpacked: RefCell<Option<File>>,
}

impl Ext4Format {
    /// Unpacks the image, unless it is already.
    fn unpacked(&self, image: &Image) -> anyhow::Result<File> {
        let mut unpacked = self.unpacked.borrow_mut();
        let fail = |error| image.failed("unpacking", error);
        let raw = if let Some(raw) = unpacked.take() {
            raw
        } else {
            // Elsewhere there is rarely room for it; a user who cannot write there can still inspect the image.
            let raw = image.scratch().or_else(|_| tempfile::tempfile().map_err(fail))?;
            unpack(&image.file(), &raw).map_err(|problem| image.problem(problem))?;
            raw
        };
        unpacked.insert(raw).try_clone().map_err(fail)
    }

    /// The slot of an image that has one, by what lies at its end.
    fn made_slot(file: &File) -> io::Result<Option<Slot>> {
        let Some(place) = slot_frame::located(file)? else { return Ok(None) };
        let block = slot_frame::content(file, place, slot::SIZE as u64)?;
        Ok(block.map(|block| super::made_slot(&block, place)))
    }
}

impl Format for Ext4Format {
    fn kind(&self) -> Kind {
        Kind::Ext4Zst
    }

    fn find(&self, image: &Image, file: &File) -> anyhow::Result<Option<Slot>> {
        if let Some(slot) = Self::made_slot(file).map_err(|error| image.failed("reading", error))? {
            return Ok(Some(slot));
        }
        let raw = self.unpacked(image)?;
        let medium = Raw::new(&raw).map_err(|error| image.failed("reading", error))?;
        // What lies there is compressed in the image.
        Ok(find_slot(image, &medium)?.map(|slot| Slot { place: None, ..slot }))
    }

    fn can_make(&self) -> anyhow::Result<()> {
        prepare::is_possible()
    }

    fn make(&self, image: &Image, block: &[u8], into: &File) -> anyhow::Result<()> {
        let raw = self.unpacked(image)?;
        // It is not what the image unpacks to any more.
        self.unpacked.take();
        let place = make_slot(image, &raw, block)?;
        pack(&raw, place, into).map_err(|error| image.failed("compressing the copy of", error))
    }

    fn needs_sum(&self) -> bool {
        true
    }

    fn warnings(&self, image: &Image) -> anyhow::Result<Vec<String>> {
        let file = image.file();
        if Self::made_slot(&file).map_err(|error| image.failed("reading", error))?.is_some() {
            // Its superblock is compressed, and was looked at when the slot was made.
            return Ok(Vec::new());
        }
        let raw = self.unpacked(image)?;
        let medium = Raw::new(&raw).map_err(|error| image.failed("reading", error))?;
        warnings(image, &medium)
    }
}

/// Decompresses a file into an empty one; blocks of zeros become holes. Another thread writes, which takes as long.
fn unpack(from: &File, raw: &File) -> Result<(), Problem> {
    let mut stream = Stream::new(from)?;
    let (to_writer, blocks) = mpsc::sync_channel::<Block>(QUEUE);
    let (back, used) = mpsc::channel();
    let size = thread::scope(|scope| {
        let writer = thread::Builder::new().spawn_scoped(scope, move || {
            blocks.iter().try_for_each(|block| {
                write_data(raw, &block.content, block.boundary.start)?;
                // Nobody wants it back once everything is decompressed.
                let _ = back.send(block);
                Ok(())
            })
        })?;
        let mut size = 0;
        while let Some(block) = stream.next_block()? {
            size = block.end();
            for block in used.try_iter() {
                stream.reuse(block);
            }
            if to_writer.send(block).is_err() {
                break;
            }
        }
        drop(to_writer);
        writer.join().map_err(|_| io::Error::other("the writing thread panicked"))?.map_err(Problem::Io)?;
        Ok::<_, Problem>(size)
    })?;
    Ok(raw.set_len(size)?)
}

/// Writes what is not zeros, run by run.
fn write_data(raw: &File, content: &[u8], at: u64) -> io::Result<()> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, block) in content.chunks(BLOCK_BYTES).enumerate() {
        if block.iter().all(|&byte| byte == 0) {
            continue;
        }
        let start = number * BLOCK_BYTES;
        match runs.last_mut().filter(|run| run.end == start) {
            Some(run) => run.end += block.len(),
            None => runs.push(start..start + block.len()),
        }
    }
    for run in runs {
        raw.write_all_at(content.get(run.clone()).unwrap_or_default(), at + run.start as u64)?;
    }
    Ok(())
}

/// Compresses a raw image into an empty file, with the block at `place` as the slot's frame.
fn pack(raw: &File, place: u64, mut into: &File) -> io::Result<()> {
    let size = raw.metadata()?.len();
    let after = place + slot::SIZE as u64;
    compress(raw, 0..place, into)?;
    let mut block = Zeroizing::new(vec![0; slot::SIZE]);
    raw.read_exact_at(&mut block, place)?;
    let at = into.seek(SeekFrom::End(0))?;
    into.write_all(&slot_frame::header(slot::SIZE as u64))?;
    into.write_all(&block)?;
    compress(raw, after..size, into)?;
    into.seek(SeekFrom::End(0))?;
    into.write_all(&slot_frame::locator(at + HEADER))
}

/// Appends a part of a raw image as a frame. Holes are not read.
fn compress(raw: &File, part: Range<u64>, mut into: &File) -> io::Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    into.seek(SeekFrom::End(0))?;
    let mut encoder = Encoder::new(into, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    encoder.multithread(available_parallelism().map_or(1, usize::from).try_into().unwrap_or(1))?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(part.end - part.start))?;
    let (zeros, mut data) = (vec![0; CHUNK], Zeroizing::new(vec![0; CHUNK]));
    let mut at = part.start;
    while at < part.end {
        let next = data_after(raw, at, part.end)?.unwrap_or(part.end..part.end);
        while at < next.start {
            let length = up_to(CHUNK, next.start - at);
            encoder.write_all(zeros.get(..length).unwrap_or_default())?;
            at += length as u64;
        }
        while at < next.end {
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

    // Promise: blocks of zeros become holes, and everything else is written where it belongs.
    #[test]
    fn zeros_become_holes() {
        let raw = tempfile::tempfile().unwrap();
        let mut content = vec![0; 5 * BLOCK_BYTES + 7];
        content[BLOCK_BYTES + 1] = 1;
        content[2 * BLOCK_BYTES] = 2;
        content[5 * BLOCK_BYTES + 6] = 3;
        write_data(&raw, &content, 4096).unwrap();
        let mut read = vec![9; content.len()];
        raw.read_exact_at(&mut read, 4096).unwrap();
        assert!(read == content);
        assert_eq!(data_after(&raw, 0, 1 << 20).unwrap(), Some(2 * 4096..4 * 4096));
    }
}
