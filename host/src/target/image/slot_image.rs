//! The target for images whose `device.conf` is one block of the file, the slot, which each device overwrites in place.
//! The formats differ in how they find the slot, and how they make it the first time.

mod format;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

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
pub(super) use format::{Format, Slot, made_slot};

/// An image that has a slot, or can get one.
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

    /// Finds the slot in the image as it is now.
    fn slot(&self) -> Result<Option<Slot>> {
        self.format.find(&self.image, &self.image.file())
    }

    /// Writes a block into the slot, and makes the slot if needed. When this returns, the block is durable and the
    /// checksum correct.
    fn set(&self, block: &[u8]) -> Result<()> {
        match self.slot()?.and_then(|slot| slot.writable_offset()) {
            Some(offset) => {
                self.check_slot(offset)?;
                self.overwrite(block, offset)
            }
            None => self.make(block, ChecksumFile::read(&self.image)?),
        }
    }

    /// Checks, in an image with a slot that was made elsewhere, that no other file shares the block of the slot.
    fn check_slot(&self, offset: u64) -> Result<()> {
        self.first_check.check(&self.image.file(), || self.format.check_slot(&self.image, offset))
    }

    /// Overwrites the slot, and updates the checksum if the image has one.
    fn overwrite(&self, block: &[u8], offset: u64) -> Result<()> {
        let Some(pending) = checksum::begin(&self.image, offset)? else { return self.overwrite_slot(block, offset) };
        let mut before = Zeroizing::new(vec![0; block.len()]);
        self.image.file().read_exact_at(&mut before, offset).map_err(|error| self.image.failed("reading", error))?;
        self.overwrite_slot(block, offset)?;
        let finished = pending.finish(&self.image);
        if matches!(&finished, Err(Error::Io { source, .. }) if interrupt::is_cause(source)) {
            // The checksum file was not updated, so restore the content that it matches.
            interrupt::uninterrupted(|| self.overwrite_slot(&before, offset))?;
        }
        finished
    }

    /// Overwrites the slot, but does not update the checksum.
    fn overwrite_slot(&self, block: &[u8], offset: u64) -> Result<()> {
        self.first_check.is_checked(&self.image.file());
        self.image.overwrite(block, offset)?;
        self.first_check.changed(&self.image.file());
        Ok(())
    }

    /// Makes a slot with this block in a copy, which then replaces the image. The checksum of the image must be
    /// correct, and is correct afterwards.
    fn make(&self, block: &[u8], checksum_file: Option<ChecksumFile>) -> Result<()> {
        self.format.can_make()?;
        let staged = self.image.stage()?;
        checksum::check_while(&self.image, checksum_file.as_ref(), || {
            self.format.make(&self.image, block, staged.file())
        })?;
        let offset = self.offset_in_copy(block, staged.file())?;
        let checksum =
            checksum_file.map(|file| ImageChecksum::read(&self.image, staged.file(), offset, file)).transpose()?;
        if let Some(checksum) = &checksum {
            checksum.keep(&self.image)?;
        }
        self.image.replace(staged)?;
        self.first_check.made(&self.image.file());
        checksum.map_or(Ok(()), |checksum| checksum.finish(&self.image))
    }

    /// Returns the offset of the slot in a copy that was just made.
    fn offset_in_copy(&self, block: &[u8], copy: &File) -> Result<u64> {
        let slot = self.format.find(&self.image, copy)?.filter(|slot| slot.content == slot::classify(block));
        slot.and_then(|slot| slot.writable_offset()).ok_or_else(|| {
            self.image.refused(
                "was not changed: a copy of it has no valid slot for device.conf; provision the rootfs directory",
            )
        })
    }

    /// Removes what a killed run may have left, and corrects the checksum.
    fn recover(&self, slot: Option<&Slot>) -> Result<()> {
        self.image.remove_leftovers()?;
        checksum::finish_killed_run(&self.image, slot.and_then(Slot::writable_offset))?;
        if slot.is_some_and(Slot::is_packed_device) {
            // This run may keep it. Then no copy is made, and nothing else verifies the checksum.
            return checksum::check_while(&self.image, ChecksumFile::read(&self.image)?.as_ref(), || Ok(()));
        }
        Ok(())
    }

    /// Checks that this run may write to the slot of the image, or make one.
    fn may_write_to(&self, slot: Option<&Slot>) -> Result<()> {
        self.image.may_write()?;
        self.image.warn_if_readable();
        if let Some(offset) = slot.and_then(Slot::writable_offset) {
            self.image.refuse_if_linked()?;
            self.check_slot(offset)?;
        } else {
            self.image.may_write_beside()?;
            self.format.can_make()?;
        }
        if checksum::may_write(&self.image)? {
            self.image.may_write_beside()?;
        } else if self.format.needs_sum() {
            self.image.warn_of_missing_checksum();
        }
        Ok(())
    }

    /// Returns the `device.conf` in the slot; warns of an incomplete one.
    fn found(&self, slot: Slot) -> Option<Found> {
        match slot.content {
            Content::Conf(bytes) => Some(Found { bytes, mode: slot.mode, uid: slot.uid, gid: slot.gid }),
            Content::Torn => {
                self.image.warn_of_incomplete_conf();
                None
            }
            Content::Blank => None,
        }
    }

    /// Overwrites the slot, including the bytes of the password. If something else made the file, zeros fill the rest
    /// of its block. With `is_given_up`, the checksum is wrong already and is not updated.
    fn blank(&self, slot: &Slot, is_given_up: bool) -> Result<()> {
        let Some(offset) = slot.place else {
            if is_given_up || checksum::is_given_up(self.make(&slot::blank(), ChecksumFile::read(&self.image)?))? {
                self.make(&slot::blank(), None)?;
            }
            return Ok(());
        };
        let mut block = slot::blank();
        block.iter_mut().skip(slot.size).for_each(|byte| *byte = 0);
        if is_given_up || checksum::is_given_up(self.overwrite(&block, offset))? {
            self.overwrite_slot(&block, offset)?;
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
            Some(slot) if slot.writable_offset().is_some() => {
                return slot.writable_offset().map_or(Ok(()), |offset| self.check_slot(offset));
            }
            Some(Slot { content: Content::Conf(conf), .. }) => slot::block_of(&conf)?,
            _ => Zeroizing::new(slot::blank()),
        };
        self.set(&block)
    }

    fn remove_leftovers(&self) -> Result<()> {
        self.recover(self.slot()?.as_ref())
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
            // Without a device, there is nothing to undo, and no checksum to recompute.
            let has_device = self.slot()?.is_some_and(|slot| !matches!(slot.content, Content::Blank));
            return if has_device { self.clear().map(drop) } else { Ok(()) };
        };
        // A write that failed before the copy replaced the image, for example because the disk was full, has changed
        // nothing.
        if self.slot()?.is_some_and(|slot| slot.content == Content::Conf(before.bytes.clone())) {
            return Ok(());
        }
        if before.bytes.len() > slot::SIZE {
            // A file that is too large for a slot cannot be restored, but the password that this run wrote must not
            // stay.
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
        if let Some(offset) = slot.place.filter(|_| !slot.is_ours) {
            // If another file shares the block, it would be overwritten, too.
            self.check_slot(offset)?;
        }
        self.blank(&slot, is_given_up)?;
        Ok(true)
    }
}
