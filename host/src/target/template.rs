//! What missing targets are copied from.
//!
//! A copy is made in a fresh directory that nobody else can enter, and gets its name when it is complete and durable: nobody can
//! open it before a password is in it, and a power cut leaves a whole copy or none.

mod staging;
mod tree;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use azaion_agent::common::private_file::{self, Attributes, Lifetime};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::fsync;
use rustix::fs::{ioctl_ficlone, syncfs};

use crate::resolved_path::ResolvedPath;
use crate::target::error::{Result, io_failure, path_failure};
use crate::target::image::checksum::ChecksumFile;
use crate::target::image::copy::copy_with_holes;
use crate::target::image::first_check;
use staging::Staging;

/// Of an image with a password in it, whatever the original's is.
const IMAGE_MODE: u32 = 0o600;
const SUM_MODE: u32 = 0o644;

/// A target without a device.
#[derive(Debug)]
pub struct Template(Content);

#[derive(Debug)]
enum Content {
    /// A root file system as a directory.
    Tree(OwnedFd),
    /// An image, with its name and the checksum file beside it.
    Image { file: File, name: OsString, sum: Option<ChecksumFile> },
}

impl Template {
    pub(super) fn tree(root: OwnedFd) -> Self {
        Self(Content::Tree(root))
    }

    pub(super) fn image(file: File, name: OsString, sum: Option<ChecksumFile>) -> Self {
        Self(Content::Image { file, name, sum })
    }

    /// Copies it to a place where nothing is, and takes away what a run that was killed has left there.
    pub(crate) fn copy_if_missing(&self, place: &mut ResolvedPath) -> Result<()> {
        if !place.is_found() || staging::is_left(place) {
            self.copy_to(place)?;
            place.refresh().map_err(|error| path_failure(error, place.path()))?;
        }
        Ok(())
    }

    /// Copies it to a place where nothing is: whole, or not at all. What has been put there meanwhile stays.
    fn copy_to(&self, place: &ResolvedPath) -> Result<()> {
        let fail = |error: io::Error| io_failure(error, format!("making {}", place.path().display()));
        let staging = Staging::make(place)?;
        if place.is_taken() {
            return staging.remove().map_err(fail);
        }
        match &self.0 {
            Content::Tree(root) => {
                tree::copy(root, staging.directory(), staging::NAME).map_err(|error| {
                    let what = format!("copying {} to {}", error.path.display(), place.path().display());
                    io_failure(error.source, what)
                })?;
                syncfs(staging.directory()).map_err(|errno| fail(errno.into()))?;
            }
            Content::Image { file, .. } => copy_file(file, staging.directory()).map_err(fail)?,
        }
        let directory = place.listed_directory().map_err(fail)?;
        if let Content::Image { name, sum: Some(sum), .. } = &self.0 {
            copy_checksum(sum, name, place, &directory).map_err(fail)?;
        }
        staging.give_name(place).map_err(fail)?;
        fsync(&directory).map_err(|errno| fail(errno.into()))
    }
}

/// Blocks are shared where the file system can do that.
fn copy_file(from: &File, directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let to: File = openat(directory, staging::NAME, flags, Mode::from_bits_truncate(IMAGE_MODE))?.into();
    copy_content(from, &to)?;
    first_check::record_copy(from, &to);
    to.sync_all()
}

fn copy_content(from: &File, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() { Ok(()) } else { copy_with_holes(from, to) }
}

/// The name of the image stands in the file.
fn copy_checksum(sum: &ChecksumFile, name: &OsStr, place: &ResolvedPath, directory: &OwnedFd) -> io::Result<()> {
    let mut file = place.name().to_owned();
    file.push(ChecksumFile::SUFFIX);
    let attributes = Attributes { mode: SUM_MODE, uid: None, gid: None };
    let text = sum.text_for(name, place.name());
    private_file::replace(directory.as_fd(), &file, attributes, &text, Lifetime::Durable)
}

#[cfg(test)]
mod tests;
