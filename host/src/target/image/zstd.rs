//! Images compressed with zstd: a tar archive, or a raw ext4 image.

mod block;
mod ext4;
pub mod frame;
mod slot_frame;
pub mod stream;
mod tar;

use std::fs::File;

use super::problem::Problem;
use super::signature::{HEAD, Signature, signature_of};
use super::slot_image::{Format, made_slot};
use crate::target::error::Result;
use crate::target::image::file::Image;
use block::BlockReader;

/// The suffix by which the flasher recognizes a compressed disk image.
const SUFFIX: &str = ".zst";

/// Returns the format of a compressed image, which the start of its content determines.
///
/// # Errors
/// The image is cut short, damaged, of a kind that can't be a target, or has a name of the other kind.
pub(super) fn format(image: &Image) -> Result<Box<dyn Format>> {
    let head = head(&image.file()).map_err(|problem| image.problem(problem))?;
    match signature_of(&head) {
        Ok(Signature::Tar) if is_named_as_disk_image(image) => Err(image.refused(format_args!(
            "is a compressed tar archive, but the flasher takes a name that ends in {SUFFIX} for a compressed disk image and \
             would write the archive as it is onto the partition; rename it to {}",
            image.path.with_extension("").display()
        ))),
        Ok(Signature::Ext4) if !is_named_as_disk_image(image) => Err(image.refused(format_args!(
            "is a compressed disk image, but the flasher unpacks a compressed file whose name does not end in {SUFFIX} as a tar \
             archive; rename it to {}{SUFFIX}",
            image.path.display()
        ))),
        Ok(Signature::Tar) => Ok(Box::<tar::TarFormat>::default()),
        Ok(Signature::Ext4) => Ok(Box::<ext4::Ext4Format>::default()),
        Ok(Signature::Zstd) => Err(image.refused(
            "is compressed with zstd twice, and the flasher decompresses it once; decompress it once with zstd -d",
        )),
        Ok(Signature::Sparse) => Err(image.refused(
            "is a compressed Android sparse image, which the flasher would write as it is; decompress it with zstd -d",
        )),
        Err(why) => Err(image.refused(format_args!("is compressed with zstd, and its content {why}"))),
    }
}

fn is_named_as_disk_image(image: &Image) -> bool {
    image.path.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes())
}

/// Decompresses the first bytes of content.
fn head(file: &File) -> Result<Vec<u8>, Problem> {
    let mut blocks = BlockReader::new(file)?;
    let mut head = Vec::new();
    while head.len() < HEAD
        && let Some(block) = blocks.next_block()?
    {
        head.extend_from_slice(&block.content);
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
