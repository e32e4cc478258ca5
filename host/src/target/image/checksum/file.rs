//! The file with the sum, whose form is the image builder's.

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
/// Bytes of such a file: one line, and a long name in it.
const MOST: u64 = 65_536;

/// A sum as it stands beside an image.
#[derive(Clone, Debug)]
pub(in crate::target) struct ChecksumFile {
    bytes: Vec<u8>,
    /// Where in them the digits are.
    digits: Range<usize>,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl ChecksumFile {
    /// What follows the image's name in the name of its checksum file.
    pub(in crate::target) const SUFFIX: &str = ".sha1sum";

    /// The text of the file for a copy of the image, of another name.
    pub(in crate::target) fn text_for(&self, name: &OsStr, copy: &OsStr) -> Vec<u8> {
        let line = Line::of(&self.bytes, &self.digits).text;
        match line.trim_ascii_end().strip_suffix(name.as_bytes()) {
            Some(before) => [before, copy.as_bytes(), b"\n"].concat(),
            None if line.len() + 1 < self.bytes.len() => [line, b"\n"].concat(),
            None => self.bytes.clone(),
        }
    }

    /// Reads it, if it is there; refused, if it could not be put right.
    pub(in crate::target::image) fn read(image: &Image) -> Result<Option<Self>> {
        // O_NONBLOCK: a FIFO in this place must not hang the station.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let name = image.beside("");
        let advice = format!(
            "generate the images again, or write it again: sha1sum {0} | cut -c 1-40 >{0}.sha1sum",
            name.display()
        );
        let odd = |what: &str| image.refused(format_args!("has a .sha1sum beside it that {what}; {advice}"));
        let failed = |error| image.failed("reading the .sha1sum of", error);
        let file: File =
            match openat(image.folder(), image.beside(ChecksumFile::SUFFIX).as_os_str(), flags, Mode::empty()) {
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
        let digits = find(&bytes, name.as_bytes()).map_err(|why| odd(&why))?;
        Ok(Some(Self { bytes, digits, file: (metadata.dev(), metadata.ino()) }))
    }

    /// Whether it is this one.
    pub(super) fn is(&self, sum: &str) -> bool {
        self.bytes.get(self.digits.clone()).is_some_and(|digits| digits.eq_ignore_ascii_case(sum.as_bytes()))
    }

    /// The digits of a checksum in the form that these have.
    fn digits_of(&self, sum: &str) -> String {
        let old = self.bytes.get(self.digits.clone()).unwrap_or_default();
        let is_upper = old.iter().any(u8::is_ascii_uppercase) && !old.iter().any(u8::is_ascii_lowercase);
        if is_upper { sum.to_ascii_uppercase() } else { sum.to_owned() }
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
        let file = openat(image.folder(), image.beside(ChecksumFile::SUFFIX).as_os_str(), flags, Mode::empty());
        let file = file.map(File::from).map_err(|errno| failed(errno.into()))?;
        let metadata = file.metadata().map_err(failed)?;
        if (metadata.dev(), metadata.ino()) != self.file {
            return Err(image.refused("has another .sha1sum beside it than a moment ago; run this again"));
        }
        if metadata.nlink() > 1 {
            return self.replace(image, sum, &metadata);
        }
        file.write_all_at(self.digits_of(sum).as_bytes(), self.digits.start as u64)
            .and_then(|()| file.sync_data())
            .map_err(failed)
    }

    fn replace(&self, image: &Image, sum: &str, old: &Metadata) -> Result<()> {
        let mut bytes = self.bytes.clone();
        bytes.splice(self.digits.clone(), self.digits_of(sum).into_bytes());
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

/// Whether the file can be written to: if not, the image must stay as it is.
pub(super) fn may_write(image: &Image) -> Result<()> {
    write_access::may_write(image.folder(), image.beside(ChecksumFile::SUFFIX))
        .map_err(|error| image.failed("may not write the .sha1sum of", error))
}

/// Where in the file the checksum of the image `name` is. All else in the file stays: lines for other files, too.
///
/// # Errors
/// What the file is instead.
fn find(bytes: &[u8], name: &[u8]) -> Result<Range<usize>, String> {
    let (sums, others): (Vec<_>, Vec<_>) = runs(bytes).partition(|run| run.len() == DIGITS);
    // Digits elsewhere are a part of a name, or of a note.
    let (in_place, elsewhere): (Vec<_>, Vec<_>) =
        sums.into_iter().partition(|digits| Line::of(bytes, digits).has_checksum());
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
        _ => Err("has several lines with a SHA-1, and not one of them for this image".into()),
    }
}

/// The runs of hexadecimal digits.
fn runs(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    bytes.split(|byte| !byte.is_ascii_hexdigit()).map(move |run| {
        let start = at;
        at += run.len() + 1;
        start..start + run.len()
    })
}

/// A line with digits in it.
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

    /// Whether the digits are where `sha1sum` has a checksum, or `sha1sum --tag` and `openssl sha1`.
    fn has_checksum(&self) -> bool {
        let (before, after) = (self.before.trim_ascii(), self.after.trim_ascii_end());
        let is_first = matches!(before, b"" | b"\\") && after.first().is_none_or(u8::is_ascii_whitespace);
        is_first || before.ends_with(b"=") && after.is_empty()
    }

    /// Whether it is for the file of this name, in whatever directory.
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
