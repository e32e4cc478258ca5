//! The checksum state, `.NAME.azaion-sha1`: what is known of an image, so that it need not be read again. It contains no secrets.
//!
//! If the identity of the image and the bytes in its slot match, the checksum and the state of SHA-1 before the slot are trusted
//! without reading the image. Anyone who can write the file could make a run write a wrong checksum. So a file that another user
//! may have written is ignored, and the image is read again.

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

use super::ChecksumFile;
use super::Prefix;
use super::hashing;
use super::hex;
use crate::strict_modes::is_caller;
use crate::target::error::{Error, Result};
use crate::target::image::file::Image;

const VERSION: u32 = 2;
/// The largest checksum state file, in bytes.
const LARGEST: usize = 4096;
/// Bytes of the five hash words at the start of a serialized SHA-1 state.
const STATE_WORDS: usize = 20;
/// The mode bits that let group or others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The most bytes behind the prefix that are read to validate a state.
const MOST_CHANGING: u64 = 2 << 20;

/// The checksum state of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChecksumState {
    version: u32,
    /// Offset at which the unchanged prefix ends.
    end: u64,
    /// The state of SHA-1 there, in hexadecimal.
    sha1: String,
    /// The checksum of the unchanged rest, behind the bytes that change.
    rest: String,
    /// `None` while the image is being changed.
    image: Option<ImageRecord>,
}

/// The image at the end of the last complete run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ImageRecord {
    identity: Identity,
    /// The checksum of the whole image.
    #[serde(rename = "sum")]
    checksum: String,
    /// Length and checksum of the bytes that change, behind the prefix. Within one tick of the file system's clock, the identity
    /// alone would not reveal the changes of a killed run.
    length: u64,
    changing: String,
}

/// What distinguishes a file from other files, and from earlier versions of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The content of the file: a state, and its own checksum.
#[derive(Serialize, Deserialize)]
struct Checked {
    #[serde(rename = "kept")]
    state: ChecksumState,
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

impl ChecksumState {
    /// Returns the state of an image that is about to be changed.
    pub(super) fn pending(prefix: &Prefix) -> Self {
        Self { version: VERSION, end: prefix.end, sha1: text_of(&prefix.sha1), rest: prefix.rest.clone(), image: None }
    }

    /// Returns the state of an image whose change is complete. `changing` is the checksum of the `length` bytes behind the prefix.
    pub(super) fn complete(
        prefix: &Prefix,
        image: &Image,
        checksum: String,
        length: u64,
        changing: String,
    ) -> Result<Self> {
        let identity = Identity::of(&image.file()).map_err(|error| image.failed("reading", error))?;
        Ok(Self { image: Some(ImageRecord { identity, checksum, length, changing }), ..Self::pending(prefix) })
    }

    /// Reads the state of an image. A damaged or untrusted file counts as missing: the image is then read again.
    pub(super) fn load(image: &Image) -> Option<Self> {
        let file = open(image, OFlag::O_RDONLY).ok()?;
        let mut bytes = Vec::with_capacity(LARGEST);
        file.take(LARGEST as u64).read_to_end(&mut bytes).ok()?;
        let Checked { state, check } = serde_json::from_slice(&bytes).ok()?;
        let is_valid = state.version == VERSION && state.check().as_ref() == Some(&check) && state.prefix().is_some();
        is_valid.then_some(state)
    }

    /// Writes the state of an image.
    pub(super) fn save(self, image: &Image) -> Result<()> {
        let attributes = Attributes { mode: 0o600, uid: None, gid: None };
        let unserializable = || Error::Internal("the checksum state can't be serialized".into());
        let check = self.check().ok_or_else(unserializable)?;
        let is_complete = self.image.is_some();
        let bytes = serde_json::to_vec(&Checked { state: self, check }).map_err(|_| unserializable())?;
        let fail = |error| image.failed("writing the checksum state of", error);
        // A complete state need not be durable or written atomically: if a power cut damages it, the image is read again.
        if is_complete && let Ok(file) = open(image, OFlag::O_RDWR) {
            return file.write_all_at(&bytes, 0).and_then(|()| file.set_len(bytes.len() as u64)).map_err(fail);
        }
        private_file::replace(image.listed_folder()?, &name(image), attributes, &bytes, Lifetime::Durable).map_err(fail)
    }

    /// Returns the checksum of the state itself.
    fn check(&self) -> Option<String> {
        serde_json::to_vec(self).ok().map(|bytes| hex(Sha1::new_with_prefix(bytes)))
    }

    /// Returns the offset at which the prefix ends.
    pub(super) fn prefix_end(&self) -> u64 {
        self.end
    }

    /// Returns the prefix, or `None` if `sha1` is not the state of SHA-1 after `end` bytes.
    pub(super) fn prefix(&self) -> Option<Prefix> {
        let bytes = base16ct::lower::decode_vec(&self.sha1).ok()?;
        let state = <&SerializedState<Sha1>>::try_from(bytes.as_slice()).ok()?;
        let sha1 = Sha1::deserialize(state).ok()?;
        // The number of hashed blocks of 64 bytes, and the number of bytes in the incomplete block.
        let (blocks, waiting) = bytes.get(STATE_WORDS..)?.split_first_chunk()?;
        let length = u64::from_le_bytes(*blocks).checked_mul(64)?.checked_add(u64::from(*waiting.first()?))?;
        (length == self.end).then(|| Prefix { end: self.end, sha1, rest: self.rest.clone() })
    }

    /// Returns whether nothing follows the bytes that change.
    pub(super) fn has_no_rest(&self) -> bool {
        self.rest == hex(Sha1::new())
    }

    /// Returns whether the state has this prefix, with the same rest.
    pub(super) fn has_prefix(&self, prefix: &Prefix) -> bool {
        self.end == prefix.end && self.sha1 == text_of(&prefix.sha1) && self.rest == prefix.rest
    }

    /// Returns whether the image has not changed since the last complete run.
    pub(super) fn is_current(&self, image: &Image) -> bool {
        let file = image.file();
        self.image.as_ref().is_some_and(|record| {
            Identity::of(&file).is_ok_and(|identity| identity == record.identity)
                && changing(&file, self.end, record.length).is_ok_and(|changing| changing == record.changing)
        })
    }

    /// Returns whether the checksum file contains the recorded checksum.
    pub(super) fn matches(&self, file: &ChecksumFile) -> bool {
        self.image.as_ref().is_some_and(|record| file.is(&record.checksum))
    }

    /// Writes the recorded checksum to the checksum file.
    pub(super) fn correct(&self, image: &Image, file: &ChecksumFile) -> Result<()> {
        self.image.as_ref().map_or(Ok(()), |record| file.set(image, &record.checksum))
    }
}

#[cfg(test)]
impl ChecksumState {
    /// Returns the state as if another version of this program had written it.
    pub(super) fn of_version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// Returns a forged state: the state of SHA-1 after `length` zeros, and a checksum of zeros.
    pub(super) fn forged(self, length: u64) -> Self {
        let zeros = vec![0; usize::try_from(length).unwrap()];
        let image = self.image.map(|record| ImageRecord { checksum: "0".repeat(40), ..record });
        Self { sha1: text_of(&Sha1::new_with_prefix(zeros)), image, ..self }
    }
}

/// Opens the file, unless another user may have written it.
fn open(image: &Image, access: OFlag) -> io::Result<File> {
    let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(image.folder(), name(image).as_os_str(), flags, Mode::empty())?);
    let metadata = file.metadata()?;
    // With a second hard link, another user may have linked a file of ours to this name.
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

/// Returns the checksum of the `length` bytes behind the prefix.
fn changing(file: &File, end: u64, length: u64) -> io::Result<String> {
    if length > MOST_CHANGING {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut sha1 = Sha1::new();
    hashing::feed(file, end..end.saturating_add(length), |bytes| sha1.update(bytes))?;
    Ok(hex(sha1))
}

/// Removes a temporary state file that a killed run may have left beside the image.
pub(super) fn remove_leftovers(image: &Image) -> Result<()> {
    image.remove_leftovers_beside(&name(image))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    // Promise: a symlink or a FIFO is not read as a state, without a hang; leftovers of a killed run are removed.
    #[test]
    fn irregular_states_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path_of = |name: &str| dir.path().join(name);
        File::create(path_of("i")).unwrap();
        let image = Image::open(&path_of("i")).unwrap();
        let (state, left) = (dir.path().join(name(&image)), path_of("..i.azaion-sha1.new"));
        let saved = ChecksumState::pending(&Prefix::read(&image, &(0..0)).unwrap());
        saved.clone().save(&image).unwrap();
        assert_eq!(ChecksumState::load(&image), Some(saved));
        fs::rename(&state, path_of("elsewhere")).unwrap();
        symlink("elsewhere", &state).unwrap();
        assert_eq!(ChecksumState::load(&image), None);
        fs::remove_file(&state).unwrap();
        mkfifo(&state, Mode::S_IRWXU).unwrap();
        assert_eq!(ChecksumState::load(&image), None);
        File::create(&left).unwrap();
        remove_leftovers(&image).unwrap();
        assert!(!left.exists());
    }
}
