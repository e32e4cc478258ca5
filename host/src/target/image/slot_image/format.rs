//! The interface of an image format: finding the slot of an image, and making it.

use std::fmt;
use std::fs::File;

use azaion_agent::common::device_conf::MODE;

use crate::target::Kind;
use crate::target::error::Result;
use crate::target::image::file::Image;
use crate::target::image::slot::{self, Content};

/// The `device.conf` of an image.
pub(in crate::target::image) struct Slot {
    pub(in crate::target::image) content: Content,
    /// Offset of its block in the image file; `None` if no block of that file holds it alone, as it is.
    pub(in crate::target::image) place: Option<u64>,
    /// Whether its mode and owner, and those of its directory, are the required ones.
    pub(in crate::target::image) is_in_order: bool,
    /// Whether its block starts with a line that only this program writes.
    pub(in crate::target::image) is_ours: bool,
    /// Size of the `device.conf`, in bytes.
    pub(in crate::target::image) size: usize,
    pub(in crate::target::image) mode: u32,
    pub(in crate::target::image) uid: u32,
    pub(in crate::target::image) gid: u32,
}

impl Slot {
    /// Returns the offset at which it can be overwritten in place.
    pub(super) fn writable_offset(&self) -> Option<u64> {
        self.place.filter(|_| self.is_in_order && self.size == slot::SIZE)
    }

    /// Returns whether it belongs to a device, but is not in a slot.
    pub(super) fn is_packed_device(&self) -> bool {
        matches!(self.content, Content::Conf(_)) && self.writable_offset().is_none()
    }
}

/// Returns a slot that this program has made, whose bytes start with `block`.
pub(in crate::target::image) fn made_slot(block: &[u8], offset: u64) -> Slot {
    let block = block.get(..slot::SIZE).unwrap_or(block);
    let content = slot::classify_own(block);
    Slot {
        content,
        place: Some(offset),
        is_in_order: true,
        is_ours: slot::is_ours(block),
        size: slot::SIZE,
        mode: MODE,
        uid: 0,
        gid: 0,
    }
}

/// An image format.
pub(in crate::target::image) trait Format: fmt::Debug {
    /// Returns the kind of target.
    fn kind(&self) -> Kind;

    /// Finds the `device.conf` in `file`, which is the image or a copy made by [`Format::make`].
    fn find(&self, image: &Image, file: &File) -> Result<Option<Slot>>;

    /// Returns whether the image contains other credentials besides those that [`Format::find`] finds. Only a new copy
    /// removes them.
    fn has_overridden(&self, _image: &Image) -> Result<bool> {
        Ok(false)
    }

    /// Checks that the programs which [`Format::make`] needs are installed.
    fn can_make(&self) -> Result<()>;

    /// Writes a copy of the image whose slot holds `block` into an empty file.
    fn make(&self, image: &Image, block: &[u8], into: &File) -> Result<()>;

    /// Refuses an image with a slot at `offset` whose file system has faults. Does nothing for formats whose slot is
    /// not a block of a file system.
    fn check_slot(&self, _image: &Image, _offset: u64) -> Result<()> {
        Ok(())
    }

    /// Returns whether the flasher requires a checksum file beside the image.
    fn needs_sum(&self) -> bool {
        false
    }

    /// Returns the warnings of [`Target::warnings`](crate::target::Target::warnings).
    fn warnings(&self, image: &Image) -> Result<Vec<String>>;

    /// Reads the history for [`Target::history`](crate::target::Target::history).
    fn history(&self, _image: &Image) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}
