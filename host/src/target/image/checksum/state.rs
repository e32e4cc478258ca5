//! `.NAME.azaion-sha1`: what is known of an image, so that it need not be read again. Nothing in it is secret.
//!
//! Of an image with the same identity and the same bytes in its slot, all of it is believed without reading the image: the
//! checksum, and the state of SHA-1 before the slot. IdentitySource writes the file could make a run write a wrong checksum, so one that
//! another user may have written is ignored, and the image is read again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

use azaion_agent::common::private_file::{self, Attributes, Lifetime};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use sha1::digest::common::hazmat::{SerializableState, SerializedState};
use sha1::{Digest, Sha1};

use super::Base;
use super::ChecksumFile;
use super::hashing;
use super::hex;
use super::lost;
use crate::strict_modes::is_caller;
use crate::target::error::Result;
use crate::target::image::file::Image;

const VERSION: u32 = 2;
/// Bytes of such a file: a few numbers.
const MOST: usize = 4096;
/// Bytes of a serialized state of SHA-1 that are its five words.
const STATE_WORDS: usize = 20;
/// The bits of a mode that let others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Bytes that may follow a base and be read each time.
const MOST_CHANGING: u64 = 2 << 20;

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    /// Where the base ends.
    end: u64,
    /// The state of SHA-1 there.
    sha1: String,
    /// The sum of what lies behind the bytes that change.
    rest: String,
    /// None while the image is being changed.
    image: Option<Left>,
}

/// An image as it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    identity: Identity,
    /// Its sum.
    sum: String,
    /// Bytes that change, behind the base, and their own sum: within one tick of the file system's clock, the identity
    /// alone would not tell what a run that was killed has done.
    length: u64,
    changing: String,
}

/// What tells a file from another, and from itself before a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The file: what is kept, and a sum of that.
#[derive(Serialize, Deserialize)]
struct Checked {
    kept: Kept,
    check: String,
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Kept {
    /// What is known of an image that is about to be changed.
    pub(super) fn pending(base: &Base) -> Self {
        Self { version: VERSION, end: base.end, sha1: text_of(&base.sha1), rest: base.rest.clone(), image: None }
    }

    /// What is known of an image that is as it should be.
    pub(super) fn done(base: &Base, image: &Image, sum: String, length: u64, changing: String) -> Result<Self> {
        let identity = Identity::of(&image.file()).map_err(|error| image.failed("reading", error))?;
        Ok(Self { image: Some(Left { identity, sum, length, changing }), ..Self::pending(base) })
    }

    /// Reads it. One that is damaged is as good as none: the image is read again then.
    pub(super) fn load(image: &Image) -> Option<Self> {
        let file = open(image, OFlag::O_RDONLY).ok()?;
        let mut bytes = Vec::with_capacity(MOST);
        file.take(MOST as u64).read_to_end(&mut bytes).ok()?;
        let Checked { kept, check } = serde_json::from_slice(&bytes).ok()?;
        (kept.version == VERSION && kept.check().as_ref() == Some(&check) && kept.base().is_some()).then_some(kept)
    }

    /// Writes it.
    pub(super) fn save(self, image: &Image) -> Result<()> {
        let attributes = Attributes { mode: 0o600, uid: None, gid: None };
        let check = self.check().ok_or_else(|| lost("can't be written down"))?;
        let is_left = self.image.is_some();
        let bytes = serde_json::to_vec(&Checked { kept: self, check }).map_err(|_| lost("can't be written down"))?;
        let fail = |error| image.failed("keeping the state of the sum of", error);
        // What is known of an image as it was left may be lost with the power, or be half written: then the image is
        // read again.
        if is_left && let Ok(file) = open(image, OFlag::O_RDWR) {
            return file.write_all_at(&bytes, 0).and_then(|()| file.set_len(bytes.len() as u64)).map_err(fail);
        }
        private_file::replace(image.listed_folder()?, &name(image), attributes, &bytes, Lifetime::Durable).map_err(fail)
    }

    fn check(&self) -> Option<String> {
        serde_json::to_vec(self).ok().map(|bytes| hex(Sha1::new_with_prefix(bytes)))
    }

    /// Where the base ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The base; none, if what is kept is not the state of SHA-1 after as many bytes.
    pub(super) fn base(&self) -> Option<Base> {
        let bytes = base16ct::lower::decode_vec(&self.sha1).ok()?;
        let state = <&SerializedState<Sha1>>::try_from(bytes.as_slice()).ok()?;
        let sha1 = Sha1::deserialize(state).ok()?;
        // Whole blocks of 64 bytes that are hashed, and the number of bytes that wait for the next.
        let (blocks, waiting) = bytes.get(STATE_WORDS..)?.split_first_chunk()?;
        let length = u64::from_le_bytes(*blocks).checked_mul(64)?.checked_add(u64::from(*waiting.first()?))?;
        (length == self.end).then(|| Base { end: self.end, sha1, rest: self.rest.clone() })
    }

    /// Whether nothing follows the bytes that change.
    pub(super) fn has_no_rest(&self) -> bool {
        self.rest == hex(Sha1::new())
    }

    /// Whether this is the base that was kept.
    pub(super) fn is_of(&self, base: &Base) -> bool {
        self.end == base.end && self.sha1 == text_of(&base.sha1) && self.rest == base.rest
    }

    /// Whether the image is as it was left.
    pub(super) fn is_current(&self, image: &Image) -> bool {
        let file = image.file();
        self.image.as_ref().is_some_and(|left| {
            Identity::of(&file).is_ok_and(|identity| identity == left.identity)
                && changing(&file, self.end, left.length).is_ok_and(|changing| changing == left.changing)
        })
    }

    /// Whether the sum is that of the image as it was left.
    pub(super) fn is_summed_by(&self, sum: &ChecksumFile) -> bool {
        self.image.as_ref().is_some_and(|left| sum.is(&left.sum))
    }

    /// Makes the sum that of the image as it was left.
    pub(super) fn put_right(&self, image: &Image, sum: &ChecksumFile) -> Result<()> {
        self.image.as_ref().map_or(Ok(()), |left| sum.set(image, &left.sum))
    }
}

#[cfg(test)]
impl Kept {
    /// As another version of this program has written it.
    pub(super) fn of_version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// With the state of SHA-1 after `length` zeros, and a checksum of zeros.
    pub(super) fn forged(self, length: u64) -> Self {
        let zeros = vec![0; usize::try_from(length).unwrap()];
        let image = self.image.map(|left| Left { sum: "0".repeat(40), ..left });
        Self { sha1: text_of(&Sha1::new_with_prefix(zeros)), image, ..self }
    }
}

/// Opens the file, unless another user may have written it.
fn open(image: &Image, access: OFlag) -> io::Result<File> {
    let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(image.folder(), name(image).as_os_str(), flags, Mode::empty())?);
    let metadata = file.metadata()?;
    // Another name may be in a directory of somebody else, who has put it here.
    let is_only_ours = metadata.is_file()
        && metadata.nlink() == 1
        && metadata.mode() & WRITABLE_BY_OTHERS == 0
        && (metadata.uid() == 0 || is_caller(metadata.uid()));
    if is_only_ours { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn name(image: &Image) -> OsString {
    [OsStr::new("."), &image.beside(".azaion-sha1")].into_iter().collect()
}

fn text_of(sha1: &Sha1) -> String {
    base16ct::lower::encode_string(&sha1.serialize())
}

fn changing(file: &File, end: u64, length: u64) -> io::Result<String> {
    if length > MOST_CHANGING {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut sha1 = Sha1::new();
    hashing::feed(file, end..end.saturating_add(length), |bytes| sha1.update(bytes))?;
    Ok(hex(sha1))
}

/// Takes away what a run that was killed may have left beside the image.
pub(super) fn remove_leftovers(image: &Image) -> Result<()> {
    image.remove_leftovers_beside(&name(image))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    // Promise: what a link leads to is no state, and neither is a pipe, without a hang; what a run that was killed has left is
    // taken away.
    #[test]
    fn odd_states() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        File::create(at("i")).unwrap();
        let image = Image::open(&at("i")).unwrap();
        let (state, left) = (dir.path().join(name(&image)), at("..i.azaion-sha1.new"));
        let kept = Kept::pending(&Base::read(&image, &(0..0)).unwrap());
        kept.clone().save(&image).unwrap();
        assert_eq!(Kept::load(&image), Some(kept));
        fs::rename(&state, at("elsewhere")).unwrap();
        symlink("elsewhere", &state).unwrap();
        assert_eq!(Kept::load(&image), None);
        fs::remove_file(&state).unwrap();
        mkfifo(&state, Mode::S_IRWXU).unwrap();
        assert_eq!(Kept::load(&image), None);
        File::create(&left).unwrap();
        remove_leftovers(&image).unwrap();
        assert!(!left.exists());
    }
}
