//! The checksum file of an image, `NAME.sha1sum`: correct whenever a run ends with 0, without reading a large image each time.
//!
//! Before an image is changed for the first time, all of it is read, and its checksum file must be correct. The checksum state
//! ([`state`]) then stores the state of SHA-1 after the unchanged prefix, and the checksum of the unchanged rest behind the bytes
//! that change. From then on only what follows the prefix is read.
//!
//! A run that is killed between its write and the new checksum leaves a wrong checksum file. If prefix and rest of the image still
//! match the checksum state, nobody else has changed them, and the next run corrects the checksum file.

mod file;
mod hashing;
mod state;

use std::fs::File;
use std::ops::Range;
use std::thread;

use azaion_agent::api::fault::chain;
use sha1::{Digest, Sha1};

use super::slot;
use crate::target::error::{Error, Result};
use crate::target::image::file::Image;

pub(in crate::target) use file::ChecksumFile;
use state::{ChecksumState, remove_leftovers};

/// Returns a SHA-1 in lowercase hexadecimal digits, as in checksum files.
fn hex(sha1: Sha1) -> String {
    base16ct::lower::encode_string(&sha1.finalize())
}

/// Returns whether `result` is a wrong checksum that this program does not correct, and logs that as a warning.
///
/// `clear` then still erases the credentials. The checksum file stays wrong, which its check before flashing reveals.
pub(super) fn is_given_up(result: Result<()>) -> Result<bool> {
    match result {
        Err(error @ Error::ChangedByOthers { .. }) => {
            log::warn!("{}", chain(&error));
            Ok(true)
        }
        other => other.map(|()| false),
    }
}

/// The unchanged prefix of an image: its end, and the state of SHA-1 there.
#[derive(Clone, Debug)]
struct Prefix {
    end: u64,
    sha1: Sha1,
    /// The checksum of the unchanged rest, behind the bytes that change.
    rest: String,
}

impl Prefix {
    /// Reads all of an image that is about to be changed. Refuses it if its checksum file is wrong, unless an interrupted run of
    /// this program explains that. The part `changing` follows the prefix.
    fn read(image: &Image, changing: &Part) -> Result<Self> {
        let checksum = ChecksumFile::read(image)?;
        let hashes = hashing::read(&image.file(), changing).map_err(|error| image.failed("reading", error))?;
        let prefix = Self { end: changing.start, sha1: hashes.prefix, rest: hashes.rest };
        if checksum.is_some_and(|checksum| !checksum.is(&hashes.whole))
            && !ChecksumState::load(image).is_some_and(|state| state.has_prefix(&prefix))
        {
            return Err(changed_by_others(image));
        }
        Ok(prefix)
    }

    /// Saves the prefix before the image is changed, so that the next run can tell a killed run from a change by others.
    fn save(&self, image: &Image) -> Result<()> {
        ChecksumState::pending(self).save(image)
    }

    /// Corrects the checksum file after a change within the `length` bytes that follow the prefix.
    fn finish(&self, image: &Image, length: u64) -> Result<()> {
        let (mut whole, mut changing) = (self.sha1.clone(), Sha1::new());
        let file = image.file();
        let end = self.end.saturating_add(length);
        hashing::feed(&file, self.end..end, |bytes| {
            whole.update(bytes);
            changing.update(bytes);
        })
        .and_then(|()| hashing::size(&file))
        .and_then(|size| hashing::feed(&file, end..size, |bytes| whole.update(bytes)))
        .map_err(|error| image.failed("reading", error))?;
        let whole = hex(whole);
        if let Some(checksum) = ChecksumFile::read(image)? {
            checksum.set(image, &whole)?;
        }
        ChecksumState::complete(self, image, whole, length, hex(changing))?.save(image)
    }
}

/// A pending write to the slot of an image that has a checksum file.
#[derive(Debug)]
pub(super) struct Pending(Prefix);

impl Pending {
    /// Corrects the checksum file once the slot is overwritten.
    pub(super) fn finish(&self, image: &Image) -> Result<()> {
        self.0.finish(image, slot::SIZE as u64)
    }
}

/// Prepares a write to the slot at `offset`: makes sure that the checksum state is saved. Returns `None` if the image has no
/// checksum file.
pub(super) fn begin(image: &Image, offset: u64) -> Result<Option<Pending>> {
    if ChecksumFile::read(image)?.is_none() {
        return Ok(None);
    }
    let state = ChecksumState::load(image).filter(|state| state.prefix_end() == offset && state.is_current(image));
    if let Some(prefix) = state.and_then(|state| state.prefix()) {
        return Ok(Some(Pending(prefix)));
    }
    let prefix = Prefix::read(image, &slot_at(offset))?;
    prefix.save(image)?;
    Ok(Some(Pending(prefix)))
}

/// The checksum of a whole image with a slot, or of a copy that will replace the image.
pub(super) struct ImageChecksum {
    file: ChecksumFile,
    prefix: Prefix,
    whole: String,
    slot: String,
}

impl ImageChecksum {
    /// Reads an image or a copy with a slot at `offset`; `file` is the checksum file beside the image.
    pub(super) fn read(image: &Image, copy: &File, offset: u64, file: ChecksumFile) -> Result<Self> {
        let fail = |error| image.failed("computing the checksum of", error);
        let mut slot = Sha1::new();
        hashing::feed(copy, slot_at(offset), |bytes| slot.update(bytes)).map_err(fail)?;
        let hashes = hashing::read(copy, &slot_at(offset)).map_err(fail)?;
        let prefix = Prefix { end: offset, sha1: hashes.prefix, rest: hashes.rest };
        Ok(Self { file, prefix, whole: hashes.whole, slot: hex(slot) })
    }

    /// Saves the prefix before the copy replaces the image, so that the next run can finish an interrupted replacement.
    pub(super) fn keep(&self, image: &Image) -> Result<()> {
        self.prefix.save(image)
    }

    /// Corrects the checksum file and saves the complete checksum state, once the file that was read is the image.
    pub(super) fn finish(self, image: &Image) -> Result<()> {
        self.file.set(image, &self.whole)?;
        ChecksumState::complete(&self.prefix, image, self.whole, slot::SIZE as u64, self.slot)?.save(image)
    }
}

/// Returns the range of the slot at `offset`.
fn slot_at(offset: u64) -> Part {
    offset..offset.saturating_add(slot::SIZE as u64)
}

/// Returns whether the image has a checksum file.
///
/// # Errors
/// The checksum file is malformed or can't be written.
pub(super) fn may_write(image: &Image) -> Result<bool> {
    let has_checksum = ChecksumFile::read(image)?.is_some();
    if has_checksum {
        file::may_write(image)?;
    }
    Ok(has_checksum)
}

/// Runs `work` on an image while another thread reads all of the image to verify its checksum file.
///
/// # Errors
/// The checksum is wrong, or the error of `work`.
pub(super) fn check_while(
    image: &Image,
    checksum: Option<&ChecksumFile>,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some(checksum) = checksum.filter(|checksum| !is_known(image, checksum)) else { return work() };
    let fail = |error| image.failed("reading", error);
    let file = image.file().try_clone().map_err(fail)?;
    let (whole, done) = thread::scope(|scope| {
        let reader = thread::Builder::new().spawn_scoped(scope, || hashing::whole(&file)).map_err(fail)?;
        let done = work();
        let whole =
            reader.join().map_err(|_| Error::Internal("the thread that computes the checksum panicked".into()))?;
        Ok::<_, Error>((whole, done))
    })?;
    if !checksum.is(&whole.map_err(fail)?) {
        return Err(changed_by_others(image));
    }
    done
}

/// Returns whether the checksum state shows that this checksum is right, without reading the image.
fn is_known(image: &Image, checksum: &ChecksumFile) -> bool {
    ChecksumState::load(image).is_some_and(|state| state.is_current(image) && state.matches(checksum))
}

fn changed_by_others(image: &Image) -> Error {
    Error::ChangedByOthers { path: image.path.clone() }
}

/// Corrects the checksum file that a killed run has left wrong, and removes leftovers of the checksum state.
///
/// An image with a slot at `slot_offset` but without a checksum state is read completely, and its checksum has to be right.
pub(super) fn finish_killed_run(image: &Image, slot_offset: Option<u64>) -> Result<()> {
    // Without a checksum file there is no checksum state.
    let Some(checksum) = ChecksumFile::read(image)? else { return Ok(()) };
    remove_leftovers(image)?;
    let Some(state) = ChecksumState::load(image) else {
        // An image without a slot is read when the slot is made.
        let Some(offset) = slot_offset else { return Ok(()) };
        let found = ImageChecksum::read(image, &image.file(), offset, checksum)?;
        return if found.file.is(&found.whole) { found.finish(image) } else { Err(changed_by_others(image)) };
    };
    if state.is_current(image) {
        return state.correct(image, &checksum);
    }
    let size = hashing::size(&image.file()).map_err(|error| image.failed("reading", error))?;
    let end = state.prefix_end().min(size);
    // Versions up to November 2026 overwrote all that follows the members of an archive.
    let changing = if slot_offset.is_none() && state.has_no_rest() { end..size } else { slot_at(end) };
    let prefix = Prefix::read(image, &changing)?;
    // Otherwise it is another image, with a correct checksum.
    if state.has_prefix(&prefix) { prefix.finish(image, changing.end - changing.start) } else { Ok(()) }
}

/// A range of bytes of a file.
type Part = Range<u64>;

#[cfg(test)]
mod tests;
