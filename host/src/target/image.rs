//! Images of a root file system. Their `device.conf` is one block, the slot, which each device overwrites in place.
//!
//! [`slot_image`] is the target; a format finds and makes the slot: [`filesystem`] (ext4, raw or Android sparse),
//! [`tar`], and [`zstd`] (a compressed tar archive or ext4 file system).

pub(super) mod checksum;
pub(super) mod copy;
pub mod ext4;
mod file;
mod filesystem;
pub(super) mod first_check;
#[cfg(test)]
pub(super) mod fixture;
mod make_slot;
pub mod medium;
pub mod problem;
mod sandbox;
mod signature;
mod slot;
mod slot_image;
pub mod sparse;
pub mod tar;
pub mod zstd;

use super::Target;
use super::error::Result;
use super::lock::Access;
use crate::resolved_path::ResolvedPath;
use file::Image;
use signature::Signature;
use slot_image::{Format, SlotImage};

/// Opens an image of any kind, which its content determines. For a change, waits for the lock of the image.
pub(super) fn open(path: ResolvedPath, access: Access) -> Result<Box<dyn Target>> {
    let image = Image::at(path, access)?;
    let format: Box<dyn Format> = match image.signature()? {
        Signature::Tar => Box::<tar::TarFormat>::default(),
        Signature::Ext4 => Box::new(filesystem::Ext4Format),
        Signature::Sparse => filesystem::sparse_format(&image)?,
        Signature::Zstd => zstd::format(&image)?,
    };
    Ok(Box::new(SlotImage::new(image, format)))
}
