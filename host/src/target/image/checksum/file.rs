//! The checksum file beside an image. Its format is the image builder's; only the digits are ever changed.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};

use azaion_agent::common::private_file::{self, Attributes, Lifetime};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::target::error::Result;
use crate::target::image::file::Image;
use crate::target::write_access;

/// Digits of a SHA-1.
const DIGITS: usize = 40;
/// Digits of other checksums.
const OTHERS: [(usize, &str); 4] = [(32, "an MD5"), (64, "a SHA-256"), (96, "a SHA-384"), (128, "a SHA-512")];
/// The largest checksum file, in bytes: one line with a long name.
const LARGEST: u64 = 65_536;

/// The content of a checksum file.
#[derive(Clone, Debug)]
pub(in crate::target) struct ChecksumFile {
    bytes: Vec<u8>,
    /// The range of the digits in `bytes`.
    digits: Range<usize>,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl ChecksumFile {
    /// The suffix that makes the name of the checksum file from the name of the image.
    pub(in crate::target) const SUFFIX: &str = ".sha1sum";

    /// Returns the text of the checksum file for a copy of the image with the name `copy`.
    pub(in crate::target) fn text_for(&self, name: &OsStr, copy: &OsStr) -> Vec<u8> {
        let line = Line::of(&self.bytes, &self.digits).text;
        match line.trim_ascii_end().strip_suffix(name.as_bytes()) {
            Some(before) => [before, copy.as_bytes(), b"\n"].concat(),
            None if line.len() + 1 < self.bytes.len() => [line, b"\n"].concat(),
            None => self.bytes.clone(),
        }
    }

    /// Reads the checksum file of an image, if there is one.
    ///
    /// # Errors
    /// It is not a small regular file, has no unambiguous SHA-1, or the I/O error.
    pub(in crate::target::image) fn read(image: &Image) -> Result<Option<Self>> {
        // O_NONBLOCK: a FIFO with this name must not hang the host.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let name = image.beside("");
        let advice = format!(
            "generate the images again, or write it again: sha1sum {0} | cut -c 1-40 >{0}.sha1sum",
            name.display()
        );
        let refuse = |what: &str| image.refused(format_args!("has a .sha1sum beside it that {what}; {advice}"));
        let failed = |error| image.failed("reading the .sha1sum of", error);
        let file: File =
            match openat(image.folder(), image.beside(ChecksumFile::SUFFIX).as_os_str(), flags, Mode::empty()) {
                Ok(file) => file.into(),
                Err(Errno::ENOENT) => return Ok(None),
                Err(Errno::ELOOP) => return Err(refuse("is a symlink")),
                Err(errno) => return Err(image.failed("reading the .sha1sum of", errno)),
            };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(refuse("is not a regular file of at most 64 KiB"));
        }
        let mut bytes = Vec::with_capacity(512);
        file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
        let digits = find_digits(&bytes, name.as_bytes()).map_err(|why| refuse(&why))?;
        Ok(Some(Self { bytes, digits, file: (metadata.dev(), metadata.ino()) }))
    }

    /// Returns whether the file contains this checksum.
    pub(super) fn is(&self, checksum: &str) -> bool {
        self.bytes.get(self.digits.clone()).is_some_and(|digits| digits.eq_ignore_ascii_case(checksum.as_bytes()))
    }

    /// Returns the digits of a checksum in upper or lower case, as they are in the file.
    fn digits_of(&self, checksum: &str) -> String {
        let old = self.bytes.get(self.digits.clone()).unwrap_or_default();
        let is_upper = old.iter().any(u8::is_ascii_uppercase) && !old.iter().any(u8::is_ascii_lowercase);
        if is_upper { checksum.to_ascii_uppercase() } else { checksum.to_owned() }
    }

    /// Sets the checksum; it is durable when this returns. Everything else in the file stays.
    ///
    /// The digits are overwritten in place, which costs one write; the next run corrects a checksum that a power cut has left
    /// wrong. A file with several hard links is replaced, because another link may be the checksum file of a copy of the image.
    pub(super) fn set(&self, image: &Image, checksum: &str) -> Result<()> {
        if self.is(checksum) {
            return Ok(());
        }
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let failed = |error| image.failed("writing the .sha1sum of", error);
        let file = openat(image.folder(), image.beside(ChecksumFile::SUFFIX).as_os_str(), flags, Mode::empty());
        let file = file.map(File::from).map_err(|errno| failed(errno.into()))?;
        let metadata = file.metadata().map_err(failed)?;
        if (metadata.dev(), metadata.ino()) != self.file {
            return Err(image.refused("has a .sha1sum beside it that was just replaced; run this again"));
        }
        if metadata.nlink() > 1 {
            return self.replace(image, checksum, &metadata);
        }
        file.write_all_at(self.digits_of(checksum).as_bytes(), self.digits.start as u64)
            .and_then(|()| file.sync_data())
            .map_err(failed)
    }

    fn replace(&self, image: &Image, checksum: &str, old: &Metadata) -> Result<()> {
        let mut bytes = self.bytes.clone();
        bytes.splice(self.digits.clone(), self.digits_of(checksum).into_bytes());
        // Only root may give files away.
        let owner = |id| geteuid().is_root().then_some(id);
        let attributes = Attributes { mode: old.mode() & 0o7777, uid: owner(old.uid()), gid: owner(old.gid()) };
        private_file::replace(
            image.listed_folder()?,
            &image.beside(ChecksumFile::SUFFIX),
            attributes,
            &bytes,
            Lifetime::Durable,
        )
        .map_err(|error| image.failed("writing the .sha1sum of", error))
    }
}

/// Checks that the checksum file can be written. If it can't, the image must not be changed.
pub(super) fn may_write(image: &Image) -> Result<()> {
    write_access::may_write(image.folder(), image.beside(ChecksumFile::SUFFIX))
        .map_err(|error| image.failed("checking write access to the .sha1sum of", error))
}

/// Returns the range of the digits of the checksum for the image `name`. Lines for other files are allowed.
///
/// # Errors
/// What is wrong with the content, as the predicate of a sentence.
fn find_digits(bytes: &[u8], name: &[u8]) -> Result<Range<usize>, String> {
    let (checksums, others): (Vec<_>, Vec<_>) = runs(bytes).partition(|run| run.len() == DIGITS);
    // Digits elsewhere are part of a name or a comment.
    let (in_place, elsewhere): (Vec<_>, Vec<_>) =
        checksums.into_iter().partition(|digits| Line::of(bytes, digits).has_checksum());
    let of_image: Vec<_> = in_place.iter().filter(|digits| Line::of(bytes, digits).names(name)).collect();
    match (of_image.as_slice(), in_place.as_slice(), elsewhere.as_slice()) {
        (&[digits], ..) | (_, [digits], _) | (_, [], [digits]) => Ok(digits.clone()),
        (_, [], []) => {
            let other = OTHERS.iter().find(|(length, _)| others.iter().any(|run| run.len() == *length));
            Err(other.map_or("holds no SHA-1, which has 40 hexadecimal digits".into(), |(_, what)| {
                format!("holds {what} instead of a SHA-1, which has 40 hexadecimal digits")
            }))
        }
        (_, [], _) => Err("holds 40 hexadecimal digits more than once, none of them where a checksum is".into()),
        _ => Err("has several lines with a SHA-1, none of them for this image".into()),
    }
}

/// Returns the ranges of consecutive hexadecimal digits.
fn runs(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut offset = 0;
    bytes.split(|byte| !byte.is_ascii_hexdigit()).map(move |run| {
        let start = offset;
        offset += run.len() + 1;
        start..start + run.len()
    })
}

/// A line that contains digits, with the text before and after them.
struct Line<'b> {
    text: &'b [u8],
    before: &'b [u8],
    after: &'b [u8],
}

impl<'b> Line<'b> {
    fn of(bytes: &'b [u8], digits: &Range<usize>) -> Self {
        let (before, rest) = bytes.split_at_checked(digits.start).unwrap_or((bytes, b""));
        let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()) + digits.start;
        let part = |range: Range<usize>| bytes.get(range).unwrap_or_default();
        Self { text: part(start..end), before: part(start..digits.start), after: part(digits.end..end) }
    }

    /// Returns whether the digits are where `sha1sum`, `sha1sum --tag` or `openssl sha1` writes a checksum.
    fn has_checksum(&self) -> bool {
        let (before, after) = (self.before.trim_ascii(), self.after.trim_ascii_end());
        let is_first = matches!(before, b"" | b"\\") && after.first().is_none_or(u8::is_ascii_whitespace);
        is_first || before.ends_with(b"=") && after.is_empty()
    }

    /// Returns whether the line names this file, in any directory.
    fn names(&self, name: &[u8]) -> bool {
        let after = self.after.trim_ascii();
        let tagged = self.before.trim_ascii_end().strip_suffix(b"=").map(<[u8]>::trim_ascii_end);
        let path = match tagged.and_then(|tagged| tagged.strip_suffix(b")")) {
            Some(tagged) => tagged.splitn(2, |&byte| byte == b'(').nth(1).unwrap_or_default(),
            None => after.strip_prefix(b"*").unwrap_or(after),
        };
        path.rsplit(|&byte| byte == b'/').next() == Some(name)
    }
}
