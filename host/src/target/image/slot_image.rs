//! Images whose `device.conf` is one block of the file, the slot, which each device overwrites in place. What the formats
//! differ in is how the slot is found, and how it is made the first time.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use azaion_agent::common::device_conf::MODE;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::slot::{self, Content};
use crate::interrupt;
use crate::target::Found;
use crate::target::Kind;
use crate::target::Owner;
use crate::target::Target;
use crate::target::error::{Error, Result};
use crate::target::image::checksum::{self, ChecksumFile, ImageChecksum};
use crate::target::image::file::Image;
use crate::target::image::first_check::FirstCheck;
use crate::target::template::Template;

/// What an image has for a `device.conf`.
pub(super) struct Slot {
    pub(super) content: Content,
    /// Offset of its block in the image file; none if no block of the file is only this.
    pub(super) place: Option<u64>,
    /// Whether mode, owner and size are those of a slot, and its directory's are right.
    pub(super) is_in_order: bool,
    /// Whether its block starts as only this program starts one.
    pub(super) is_ours: bool,
    /// Bytes of the file.
    pub(super) size: usize,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Slot {
    /// Where it can be overwritten as it is.
    fn writable_place(&self) -> Option<u64> {
        self.place.filter(|_| self.is_in_order && self.size == slot::SIZE)
    }

    /// Whether it is a device's, and is not in a slot.
    fn is_packed_device(&self) -> bool {
        matches!(self.content, Content::Conf(_)) && self.writable_place().is_none()
    }
}

/// A slot that this program has made, whose bytes start with `block`.
pub(super) fn made_slot(block: &[u8], place: u64) -> Slot {
    let block = block.get(..slot::SIZE).unwrap_or(block);
    let content = slot::classify_own(block);
    Slot {
        content,
        place: Some(place),
        is_in_order: true,
        is_ours: slot::is_ours(block),
        size: slot::SIZE,
        mode: MODE,
        uid: 0,
        gid: 0,
    }
}

/// A format of images.
pub(super) trait Format: fmt::Debug {
    /// What it is called.
    fn kind(&self) -> Kind;

    /// The `device.conf` in `file`, which is the image or a copy made by [`Format::make`].
    fn find(&self, image: &Image, file: &File) -> Result<Option<Slot>>;

    /// Whether the image has credentials besides those that [`Format::find`] finds, which only a copy is without.
    fn has_overridden(&self, _image: &Image) -> Result<bool> {
        Ok(false)
    }

    /// Whether what [`Format::make`] needs is installed.
    fn can_make(&self) -> Result<()>;

    /// Writes a copy of the image whose slot holds `block` into an empty file.
    fn make(&self, image: &Image, block: &[u8], into: &File) -> Result<()>;

    /// Refuses an image with a slot at `place` whose file system has faults. Of formats without a slot's block in a file system,
    /// nothing is checked.
    fn check_slot(&self, _image: &Image, _place: u64) -> Result<()> {
        Ok(())
    }

    /// Whether the flasher wants a checksum file beside it.
    fn needs_sum(&self) -> bool {
        false
    }

    /// See [`Target::warnings`].
    fn warnings(&self, image: &Image) -> Result<Vec<String>>;

    /// See [`Target::history`].
    fn history(&self, _image: &Image) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// An image with a slot, or room for one.
#[derive(Debug)]
pub(super) struct SlotImage {
    image: Image,
    format: Box<dyn Format>,
    first_check: FirstCheck,
}

impl SlotImage {
    pub(super) fn new(image: Image, format: Box<dyn Format>) -> Self {
        Self { image, format, first_check: FirstCheck::default() }
    }

    fn slot(&self) -> Result<Option<Slot>> {
        self.format.find(&self.image, &self.image.file())
    }

    /// Puts a block into the slot. Durable, and the checksum right, when this returns.
    fn set(&self, block: &[u8]) -> Result<()> {
        match self.slot()?.and_then(|slot| slot.writable_place()) {
            Some(place) => {
                self.check_slot(place)?;
                self.overwrite(block, place)
            }
            None => self.make(block, ChecksumFile::read(&self.image)?),
        }
    }

    /// Whether an image that was made elsewhere has this slot for itself.
    fn check_slot(&self, place: u64) -> Result<()> {
        self.first_check.check(&self.image.file(), || self.format.check_slot(&self.image, place))
    }

    fn overwrite(&self, block: &[u8], place: u64) -> Result<()> {
        let Some(sum) = checksum::begin(&self.image, place)? else { return self.overwrite_alone(block, place) };
        let mut before = Zeroizing::new(vec![0; block.len()]);
        self.image.file().read_exact_at(&mut before, place).map_err(|error| self.image.failed("reading", error))?;
        self.overwrite_alone(block, place)?;
        let finished = sum.finish(&self.image);
        if matches!(&finished, Err(Error::Io { source, .. }) if interrupt::is_cause(source)) {
            // The checksum beside it is that of before.
            interrupt::uninterrupted(|| self.overwrite_alone(&before, place))?;
        }
        finished
    }

    /// Without the checksum.
    fn overwrite_alone(&self, block: &[u8], place: u64) -> Result<()> {
        self.first_check.is_checked(&self.image.file());
        self.image.overwrite(block, place)?;
        self.first_check.changed(&self.image.file());
        Ok(())
    }

    /// Makes a slot with this block, in a copy that then takes the image's place. The checksum beside the image has to be
    /// right, and is afterwards.
    fn make(&self, block: &[u8], sum: Option<ChecksumFile>) -> Result<()> {
        self.format.can_make()?;
        let staged = self.image.stage()?;
        checksum::check_while(&self.image, sum.as_ref(), || self.format.make(&self.image, block, staged.file()))?;
        let place = self.place_in_copy(block, staged.file())?;
        let sum = sum.map(|sum| ImageChecksum::read(&self.image, staged.file(), place, sum)).transpose()?;
        if let Some(sum) = &sum {
            sum.keep(&self.image)?;
        }
        self.image.replace(staged)?;
        self.first_check.made(&self.image.file());
        sum.map_or(Ok(()), |sum| sum.finish(&self.image))
    }

    /// Where the slot lies in a copy that was just made.
    fn place_in_copy(&self, block: &[u8], copy: &File) -> Result<u64> {
        let slot = self.format.find(&self.image, copy)?.filter(|slot| slot.content == slot::classify(block));
        slot.and_then(|slot| slot.writable_place()).ok_or_else(|| {
            self.image.refused("could not be given a slot, and was left alone; provision the rootfs directory")
        })
    }

    /// Removes what a run that was killed may have left, and corrects the checksum.
    fn settle(&self, slot: Option<&Slot>) -> Result<()> {
        self.image.remove_leftovers()?;
        checksum::finish_killed_run(&self.image, slot.and_then(Slot::writable_place))?;
        if slot.is_some_and(Slot::is_packed_device) {
            // It may stay as it is. Then no copy is made, and nothing else checks the checksum.
            return checksum::check_while(&self.image, ChecksumFile::read(&self.image)?.as_ref(), || Ok(()));
        }
        Ok(())
    }

    /// Whether this run may write to the image, to its slot or to make one.
    fn may_write_to(&self, slot: Option<&Slot>) -> Result<()> {
        self.image.may_write()?;
        self.image.warn_if_open();
        if let Some(place) = slot.and_then(Slot::writable_place) {
            self.image.refuse_if_linked()?;
            self.check_slot(place)?;
        } else {
            self.image.may_write_beside()?;
            self.format.can_make()?;
        }
        if checksum::may_write(&self.image)? {
            self.image.may_write_beside()?;
        } else if self.format.needs_sum() {
            self.image.warn_of_no_sum();
        }
        Ok(())
    }

    /// The `device.conf` in the slot.
    fn found(&self, slot: Slot) -> Option<Found> {
        match slot.content {
            Content::Conf(bytes) => Some(Found { bytes, mode: slot.mode, uid: slot.uid, gid: slot.gid }),
            Content::Torn => {
                self.image.warn_of_torn();
                None
            }
            Content::Blank => None,
        }
    }

    /// Takes the password's bytes out of the slot; of a file that others made, the rest of its block is zeros. A wrong
    /// checksum stays wrong.
    fn blank(&self, slot: &Slot, is_given_up: bool) -> Result<()> {
        let Some(place) = slot.place else {
            if is_given_up || checksum::is_given_up(self.make(&slot::blank(), ChecksumFile::read(&self.image)?))? {
                self.make(&slot::blank(), None)?;
            }
            return Ok(());
        };
        let mut block = slot::blank();
        block.iter_mut().skip(slot.size).for_each(|byte| *byte = 0);
        if is_given_up || checksum::is_given_up(self.overwrite(&block, place))? {
            self.overwrite_alone(&block, place)?;
        }
        Ok(())
    }
}

impl Target for SlotImage {
    fn path(&self) -> &Path {
        &self.image.path
    }

    fn kind(&self) -> Kind {
        self.format.kind()
    }

    fn may_write(&self, _owner: Owner) -> Result<()> {
        self.may_write_to(self.slot()?.as_ref())
    }

    fn prepare(&self) -> Result<()> {
        self.image.may_write()?;
        self.remove_leftovers()?;
        let block = match self.slot()? {
            Some(slot) if slot.writable_place().is_some() => {
                return slot.writable_place().map_or(Ok(()), |place| self.check_slot(place));
            }
            Some(Slot { content: Content::Conf(conf), .. }) => slot::block_of(&conf)?,
            _ => Zeroizing::new(slot::blank()),
        };
        self.set(&block)
    }

    fn remove_leftovers(&self) -> Result<()> {
        self.settle(self.slot()?.as_ref())
    }

    fn read_conf(&self) -> Result<Option<Found>> {
        let slot = self.image.read(|| {
            let slot = self.slot()?;
            let is_whole = slot.as_ref().is_none_or(|slot| slot.content != Content::Torn);
            Ok((slot, is_whole))
        })?;
        Ok(slot.and_then(|slot| self.found(slot)))
    }

    fn is_in_order(&self, _found: &Found, _owner: Owner) -> Result<bool> {
        Ok(self.slot()?.is_some_and(|slot| slot.is_in_order))
    }

    fn write(&self, conf: &SecretString, _owner: Owner) -> Result<()> {
        let block = slot::block_of(conf.expose_secret().as_bytes())?;
        self.set(&block)
    }

    fn warnings(&self) -> Result<Vec<String>> {
        self.format.warnings(&self.image)
    }

    fn history(&self) -> Result<Option<Vec<u8>>> {
        self.format.history(&self.image)
    }

    fn template(&self) -> Result<Template> {
        let (file, name) = self.image.duplicate()?;
        Ok(Template::image(file, name, ChecksumFile::read(&self.image)?))
    }

    fn restore(&self, before: Option<&Found>) -> Result<()> {
        let Some(before) = before else {
            // Nothing to undo, and no checksum to compute again.
            let has_device = self.slot()?.is_some_and(|slot| !matches!(slot.content, Content::Blank));
            return if has_device { self.clear().map(drop) } else { Ok(()) };
        };
        // A write that failed before the copy took the image's place, for want of room perhaps, has changed nothing.
        if self.slot()?.is_some_and(|slot| slot.content == Content::Conf(before.bytes.clone())) {
            return Ok(());
        }
        if before.bytes.len() > slot::SIZE {
            // What others had made too large can't be restored; a password of ours must not stay in its place.
            self.clear()?;
        }
        self.set(&slot::block_of(&before.bytes)?)
    }

    fn clear(&self) -> Result<bool> {
        let is_given_up = checksum::is_given_up(self.remove_leftovers())?;
        let Some(slot) = self.slot()? else { return Ok(false) };
        if slot.content == Content::Blank && !self.format.has_overridden(&self.image)? {
            return Ok(false);
        }
        self.image.may_write()?;
        checksum::may_write(&self.image)?;
        if let Some(place) = slot.place.filter(|_| !slot.is_ours) {
            // Zeros would go into another file, too, if the block is shared.
            self.check_slot(place)?;
        }
        self.blank(&slot, is_given_up)?;
        Ok(true)
    }
}
