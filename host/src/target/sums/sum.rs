//! The file with the sum, whose form is the image builder's.

use std::fs::{File, Metadata};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

use azaion_agent::private_file::{self, Attributes, Lifetime};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::target::error::Result;
use crate::target::image::Image;
use crate::target::rights;

/// Digits of a sum.
const DIGITS: usize = 40;
/// Bytes of such a file: one line, and a long name in it.
const MOST: u64 = 65_536;

/// A sum as it stands beside an image.
#[derive(Clone, Debug)]
pub(in crate::target) struct Sum {
    bytes: Vec<u8>,
    /// Where in them the digits are.
    digits: Range<usize>,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Sum {
    /// What follows the image's name in the name of its checksum file.
    pub(in crate::target) const SUFFIX: &str = ".sha1sum";

    /// The text of the file for a copy of the image, of another name.
    pub(in crate::target) fn text_for(&self, name: &str, copy: &str) -> Vec<u8> {
        match self.bytes.trim_ascii_end().strip_suffix(name.as_bytes()) {
            Some(before) => [before, copy.as_bytes(), b"\n"].concat(),
            None => self.bytes.clone(),
        }
    }

    /// Reads it, if it is there; refused, if it could not be put right.
    pub(in crate::target) fn read(image: &Image) -> Result<Option<Self>> {
        // O_NONBLOCK: a FIFO in this place must not hang the station.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let odd = |what| image.refused(format_args!("has a .sha1sum beside it that {what}; generate the images again"));
        let failed = |error| image.failed("reading the .sha1sum of", error);
        let file: File = match openat(image.folder(), image.beside(Sum::SUFFIX).as_str(), flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(odd("is a symlink")),
            Err(errno) => return Err(image.failed("reading the .sha1sum of", errno)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > MOST {
            return Err(odd("is no small file"));
        }
        let mut bytes = Vec::with_capacity(512);
        file.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
        let digits = only_sum(&bytes).ok_or_else(|| odd("holds no sum, or several"))?;
        Ok(Some(Self { bytes, digits, file: (metadata.dev(), metadata.ino()) }))
    }

    /// Whether it is this one.
    pub(super) fn is(&self, sum: &str) -> bool {
        self.bytes.get(self.digits.clone()).is_some_and(|digits| digits.eq_ignore_ascii_case(sum.as_bytes()))
    }

    /// Makes it this one, durable when this returns; all else in the file stays. In place, which costs one write: the
    /// digits lie in one sector, and a sum that a power cut left wrong is corrected by the next run as any other. A file with
    /// another name is replaced, for that name may lie beside a copy of the image.
    pub(super) fn set(&self, image: &Image, sum: &str) -> Result<()> {
        if self.is(sum) {
            return Ok(());
        }
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let failed = |error| image.failed("writing the .sha1sum of", error);
        let file = openat(image.folder(), image.beside(Sum::SUFFIX).as_str(), flags, Mode::empty());
        let file = file.map(File::from).map_err(|errno| failed(errno.into()))?;
        let metadata = file.metadata().map_err(failed)?;
        if (metadata.dev(), metadata.ino()) != self.file {
            return Err(image.refused("has another .sha1sum beside it than a moment ago; run this again"));
        }
        if metadata.nlink() > 1 {
            return self.replace(image, sum, &metadata);
        }
        file.write_all_at(sum.as_bytes(), self.digits.start as u64).and_then(|()| file.sync_data()).map_err(failed)
    }

    fn replace(&self, image: &Image, sum: &str, old: &Metadata) -> Result<()> {
        let mut bytes = self.bytes.clone();
        bytes.splice(self.digits.clone(), sum.bytes());
        // Only root may give files away.
        let owner = |id| geteuid().is_root().then_some(id);
        let attributes = Attributes { mode: old.mode() & 0o7777, uid: owner(old.uid()), gid: owner(old.gid()) };
        private_file::replace(image.listed_folder()?, &image.beside(Sum::SUFFIX), attributes, &bytes, Lifetime::Durable)
            .map_err(|error| image.failed("writing the .sha1sum of", error))
    }
}

/// Whether the file can be written to: if not, the image must stay as it is.
pub(super) fn may_write(image: &Image) -> Result<()> {
    rights::may_write(image.folder(), image.beside(Sum::SUFFIX))
        .map_err(|error| image.failed("may not write the .sha1sum of", error))
}

/// Where the one run of as many hexadecimal digits as a sum has lies.
fn only_sum(bytes: &[u8]) -> Option<Range<usize>> {
    let mut found = None;
    let mut at = 0;
    for run in bytes.split(|byte| !byte.is_ascii_hexdigit()) {
        if run.len() == DIGITS && found.replace(at..at + DIGITS).is_some() {
            return None;
        }
        at += run.len() + 1;
    }
    found
}
