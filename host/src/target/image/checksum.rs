//! `NAME.sha1sum` beside an image: right for it whenever a run ends with 0, without reading all of a large image each time.
//!
//! Before an image is changed for the first time, all of it is read: the sum beside it must be right, and the state of
//! SHA-1 at the end of the part that never changes, the base, is kept in a file of its own ([`kept`]), with the sum of what
//! never changes behind the bytes that do. From then on only what follows the base is read.
//!
//! A run that is killed between its write and the new sum leaves a sum that is wrong. The next one knows by what was kept,
//! which the image still bears out, that nobody else changed it, and puts the sum right.

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
use state::{Kept, remove_leftovers};

/// SHA-1 as the files have it.
fn hex(sha1: Sha1) -> String {
    base16ct::lower::encode_string(&sha1.finalize())
}

/// Whether an image could not be put in order because its sum is wrong for that reason; if so, it is told of. What is asked for
/// then can only be to take credentials out: the sum stays wrong, which whoever flashes the image will notice.
pub(super) fn is_given_up(settled: Result<()>) -> Result<bool> {
    match settled {
        Err(error @ Error::ChangedByOthers { .. }) => {
            log::warn!("{}", chain(&error));
            Ok(true)
        }
        other => other.map(|()| false),
    }
}

/// Bytes of an image that never change, and the state of SHA-1 after them.
#[derive(Clone, Debug)]
struct Base {
    end: u64,
    sha1: Sha1,
    /// The sum of what never changes, either, behind the bytes that do.
    rest: String,
}

impl Base {
    /// Reads all of an image that is about to be changed, and refuses it if the sum beside it is wrong, unless that is
    /// the work of a run of ours. `changing` follows the base.
    fn read(image: &Image, changing: &Part) -> Result<Self> {
        let sum = ChecksumFile::read(image)?;
        let hashes = hashing::read(&image.file(), changing).map_err(|error| image.failed("reading", error))?;
        let base = Self { end: changing.start, sha1: hashes.base, rest: hashes.rest };
        if sum.is_some_and(|sum| !sum.is(&hashes.whole)) && !Kept::load(image).is_some_and(|kept| kept.is_of(&base)) {
            return Err(changed_by_others(image));
        }
        Ok(base)
    }

    /// Keeps it before the image is changed, so that a run that is killed can be told from a change by others.
    fn keep(&self, image: &Image) -> Result<()> {
        Kept::pending(self).save(image)
    }

    /// After a change within the `length` bytes that follow the base: puts the sum beside the image right.
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
        if let Some(sum) = ChecksumFile::read(image)? {
            sum.set(image, &whole)?;
        }
        Kept::done(self, image, whole, length, hex(changing))?.save(image)
    }
}

/// The base of an image that has a checksum beside it, whose slot is about to be overwritten.
#[derive(Debug)]
pub(super) struct Pending(Base);

impl Pending {
    /// Once the slot is overwritten: corrects the checksum beside the image.
    pub(super) fn finish(&self, image: &Image) -> Result<()> {
        self.0.finish(image, slot::SIZE as u64)
    }
}

/// Of an image whose slot lies at `place`, the base, if there is a sum beside it to be kept right; ready for a change.
pub(super) fn begin(image: &Image, place: u64) -> Result<Option<Pending>> {
    if ChecksumFile::read(image)?.is_none() {
        return Ok(None);
    }
    let kept = Kept::load(image).filter(|kept| kept.end() == place && kept.is_current(image));
    if let Some(base) = kept.and_then(|kept| kept.base()) {
        return Ok(Some(Pending(base)));
    }
    let base = Base::read(image, &slot_at(place))?;
    base.keep(image)?;
    Ok(Some(Pending(base)))
}

/// The checksum of all of an image with a slot, or of a copy that is to take its place.
pub(super) struct ImageChecksum {
    sum: ChecksumFile,
    base: Base,
    whole: String,
    slot: String,
}

impl ImageChecksum {
    /// Reads an image or a copy with a slot at `place`; `sum` is what stands beside the image.
    pub(super) fn read(image: &Image, copy: &File, place: u64, sum: ChecksumFile) -> Result<Self> {
        let fail = |error| image.failed("computing the checksum of", error);
        let mut slot = Sha1::new();
        hashing::feed(copy, slot_at(place), |bytes| slot.update(bytes)).map_err(fail)?;
        let hashes = hashing::read(copy, &slot_at(place)).map_err(fail)?;
        let base = Base { end: place, sha1: hashes.base, rest: hashes.rest };
        Ok(Self { sum, base, whole: hashes.whole, slot: hex(slot) })
    }

    /// Before the copy takes the image's place: keeps its base, so that the next run can finish what this one began.
    pub(super) fn keep(&self, image: &Image) -> Result<()> {
        self.base.keep(image)
    }

    /// Once what was read is the image: corrects the checksum beside it, and records the image as it is.
    pub(super) fn finish(self, image: &Image) -> Result<()> {
        self.sum.set(image, &self.whole)?;
        Kept::done(&self.base, image, self.whole, slot::SIZE as u64, self.slot)?.save(image)
    }
}

/// The bytes of a slot.
fn slot_at(place: u64) -> Part {
    place..place.saturating_add(slot::SIZE as u64)
}

/// Whether there is a sum beside the image; refused, if that can't be put right.
pub(super) fn may_write(image: &Image) -> Result<bool> {
    let is_there = ChecksumFile::read(image)?.is_some();
    if is_there {
        file::may_write(image)?;
    }
    Ok(is_there)
}

/// Does some work on an image, while another thread reads all of it to see that the checksum beside it is right; refused, if
/// it is not.
pub(super) fn check_while(image: &Image, sum: Option<&ChecksumFile>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let Some(sum) = sum.filter(|sum| !is_known(image, sum)) else { return work() };
    let fail = |error| image.failed("reading", error);
    let file = image.file().try_clone().map_err(fail)?;
    let (whole, done) = thread::scope(|scope| {
        let reader = thread::Builder::new().spawn_scoped(scope, || hashing::whole(&file)).map_err(fail)?;
        let done = work();
        let whole = reader.join().map_err(|_| lost("could not be computed"))?;
        Ok::<_, Error>((whole, done))
    })?;
    if !sum.is(&whole.map_err(fail)?) {
        return Err(changed_by_others(image));
    }
    done
}

/// Whether the image is as a run of ours has left it, with this sum.
fn is_known(image: &Image, sum: &ChecksumFile) -> bool {
    Kept::load(image).is_some_and(|kept| kept.is_current(image) && kept.is_summed_by(sum))
}

fn changed_by_others(image: &Image) -> Error {
    Error::ChangedByOthers { path: image.path.clone() }
}

/// Corrects the checksum that a run that was killed has left wrong, and removes what it may have left of a state. Where no state
/// says that an image with a slot at `place` is as a run of ours left it, all of it is read: its checksum has to be right.
pub(super) fn settle(image: &Image, place: Option<u64>) -> Result<()> {
    // Where there is no sum, nothing is kept.
    let Some(sum) = ChecksumFile::read(image)? else { return Ok(()) };
    remove_leftovers(image)?;
    let Some(kept) = Kept::load(image) else {
        // Without a slot, all is read when that is made.
        let Some(place) = place else { return Ok(()) };
        let found = ImageChecksum::read(image, &image.file(), place, sum)?;
        return if found.sum.is(&found.whole) { found.finish(image) } else { Err(changed_by_others(image)) };
    };
    if kept.is_current(image) {
        return kept.put_right(image, &sum);
    }
    let size = hashing::size(&image.file()).map_err(|error| image.failed("reading", error))?;
    let end = kept.end().min(size);
    // Versions up to November 2026 overwrote all that follows the members of an archive.
    let changing = if place.is_none() && kept.has_no_rest() { end..size } else { slot_at(end) };
    let base = Base::read(image, &changing)?;
    // Else it is another image, with a sum that is right.
    if kept.is_of(&base) { base.finish(image, changing.end - changing.start) } else { Ok(()) }
}

fn lost(what: &str) -> Error {
    Error::Internal(format!("the state of the sum {what}"))
}

/// A part of a file.
type Part = Range<u64>;

#[cfg(test)]
mod tests;
