//! The template that missing targets are copied from.
//!
//! A copy is made in a new directory that nobody else can enter, and gets its name when it is complete and durable. So nobody can
//! open the copy before a password is in it, and a power cut leaves a complete copy or none.

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

/// The mode of a copied image, which will hold a password, whatever the mode of the template.
const IMAGE_MODE: u32 = 0o600;
const CHECKSUM_MODE: u32 = 0o644;

/// A target without a `device.conf`, from which others are copied.
#[derive(Debug)]
pub struct Template(Content);

#[derive(Debug)]
enum Content {
    /// A root file system as a directory.
    Tree(OwnedFd),
    /// An image, with its name and the checksum file beside it.
    Image { file: File, name: OsString, checksum: Option<ChecksumFile> },
}

impl Template {
    pub(super) fn tree(root: OwnedFd) -> Self {
        Self(Content::Tree(root))
    }

    pub(super) fn image(file: File, name: OsString, checksum: Option<ChecksumFile>) -> Self {
        Self(Content::Image { file, name, checksum })
    }

    /// Copies the template to a path where no file exists, and removes what a killed run has left there.
    pub(crate) fn copy_if_missing(&self, target: &mut ResolvedPath) -> Result<()> {
        if !target.is_found() || staging::is_left(target) {
            self.copy_to(target)?;
            target.refresh().map_err(|error| path_failure(error, target.path()))?;
        }
        Ok(())
    }

    /// Copies the template atomically to a path where no file exists. A file that was created there meanwhile stays.
    fn copy_to(&self, target: &ResolvedPath) -> Result<()> {
        let fail = |error: io::Error| io_failure(error, format!("creating {}", target.path().display()));
        let staging = Staging::create(target)?;
        if target.is_taken() {
            return staging.remove().map_err(fail);
        }
        match &self.0 {
            Content::Tree(root) => {
                tree::copy(root, staging.directory(), staging::NAME).map_err(|error| {
                    let what = format!("copying {} to {}", error.path.display(), target.path().display());
                    io_failure(error.source, what)
                })?;
                syncfs(staging.directory()).map_err(|errno| fail(errno.into()))?;
            }
            Content::Image { file, .. } => copy_file(file, staging.directory()).map_err(fail)?,
        }
        let directory = target.listed_directory().map_err(fail)?;
        if let Content::Image { name, checksum: Some(checksum), .. } = &self.0 {
            copy_checksum(checksum, name, target, &directory).map_err(fail)?;
        }
        staging.publish(target).map_err(fail)?;
        fsync(&directory).map_err(|errno| fail(errno.into()))
    }
}

/// Copies an image into the staging directory, durably.
fn copy_file(from: &File, directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let to: File = openat(directory, staging::NAME, flags, Mode::from_bits_truncate(IMAGE_MODE))?.into();
    copy_content(from, &to)?;
    first_check::record_copy(from, &to);
    to.sync_all()
}

/// Copies the content of a file, as a reflink where the file system supports that.
fn copy_content(from: &File, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() { Ok(()) } else { copy_with_holes(from, to) }
}

/// Writes the checksum file of the copy, which contains the name of the copy.
fn copy_checksum(checksum: &ChecksumFile, name: &OsStr, target: &ResolvedPath, directory: &OwnedFd) -> io::Result<()> {
    let mut file = target.name().to_owned();
    file.push(ChecksumFile::SUFFIX);
    let attributes = Attributes { mode: CHECKSUM_MODE, uid: None, gid: None };
    let text = checksum.text_for(name, target.name());
    private_file::replace(directory.as_fd(), &file, attributes, &text, Lifetime::Durable)
}

#[cfg(test)]
mod tests;
