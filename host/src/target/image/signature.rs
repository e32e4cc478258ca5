//! Detects the kind of a file by its first bytes, and refuses those that cannot be a target.
//!
//! Source of the offsets and magic numbers: libmagic, and the header of each format.

use std::io;

use super::medium::Medium;
use super::zstd::frame;

/// Bytes that detection needs: up to the magic number of btrfs.
pub(super) const HEAD: usize = 0x1_0048;

/// A kind of file that can be a target, or may contain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    Tar,
    Sparse,
    Ext4,
    /// The decompressed content decides what it is.
    Zstd,
}

/// An offset in a file, the bytes there, and the kind that they identify or the reason to refuse it.
type Magic = (usize, &'static [u8], Result<Signature, &'static str>);

macro_rules! other_file_system {
    ($name:literal) => {
        Err(concat!(
            "is a file system of another kind than ext4 (",
            $name,
            "); provision the rootfs directory that it is made from"
        ))
    };
}

macro_rules! virtual_disk {
    ($name:literal) => {
        Err(concat!(
            "is a virtual disk (",
            $name,
            "); provision the rootfs directory, or the raw ext4 image of its root partition (qemu-img convert -O raw)"
        ))
    };
}

macro_rules! archive {
    ($name:literal) => {
        Err(concat!("is ", $name, "; unpack it and provision the directory"))
    };
}

const WHOLE_DISK: Result<Signature, &str> =
    Err("is the image of a whole disk; name the root file system's own image, or the rootfs directory");

/// Magic numbers; the first match counts. Longer ones precede the two bytes of ext4, which other file systems may
/// contain by chance.
const MAGICS: [Magic; 26] = [
    // Must be the first: an archive starts with a file name, which may equal any other magic number.
    (257, b"ustar", Ok(Signature::Tar)),
    (0, b"\x3a\xff\x26\xed", Ok(Signature::Sparse)),
    (0, &frame::MAGIC, Ok(Signature::Zstd)),
    (
        0,
        b"LUKS\xba\xbe",
        Err("is an encrypted (LUKS) image; provision the rootfs directory before the image is generated"),
    ),
    (0, b"hsqs", other_file_system!("squashfs")),
    (0, b"sqsh", other_file_system!("squashfs")),
    (0, b"XFSB", other_file_system!("xfs")),
    (0, b"UBI#", other_file_system!("UBI")),
    (0, b"\x31\x18\x10\x06", other_file_system!("ubifs")),
    (0x400, b"\x10\x20\xf5\xf2", other_file_system!("f2fs")),
    (0x400, b"\xe2\xe1\xf5\xe0", other_file_system!("erofs")),
    (0, b"QFI\xfb", virtual_disk!("qcow2")),
    (0, b"KDMV", virtual_disk!("vmdk")),
    (0, b"vhdxfile", virtual_disk!("vhdx")),
    (0x40, b"\x7f\x10\xda\xbe", virtual_disk!("vdi")),
    (0, b"070701", archive!("a cpio archive")),
    (0, b"070702", archive!("a cpio archive")),
    (0, b"070707", archive!("a cpio archive")),
    (0, b"BZh", archive!("a bzip2'd archive")),
    (0, b"\xfd7zXZ\0", archive!("an xz'd archive")),
    (0, b"PK\x03\x04", archive!("a zip archive")),
    (0x438, b"\x53\xef", Ok(Signature::Ext4)),
    (
        0,
        b"\x1f\x8b",
        Err("is a gzip'd archive (a packed mfi?); provision the images/ that it is made of, one device at a time"),
    ),
    (0x1_0040, b"_BHRfS_M", other_file_system!("btrfs")),
    (0x200, b"EFI PART", WHOLE_DISK),
    (0x1fe, b"\x55\xaa", WHOLE_DISK),
];

/// Reads the first bytes of an image, as many as detection needs.
///
/// # Errors
/// The I/O error.
pub(super) fn head_of(medium: &dyn Medium) -> io::Result<Vec<u8>> {
    let mut head = vec![0; usize::try_from(medium.size()).map_or(HEAD, |size| size.min(HEAD))];
    medium.read_at(&mut head, 0)?;
    Ok(head)
}

/// Returns the kind of the file that starts with these bytes.
///
/// # Errors
/// Why it cannot be a target.
pub(super) fn signature_of(head: &[u8]) -> Result<Signature, &'static str> {
    let is = |&&(offset, magic, _): &&Magic| head.get(offset..).is_some_and(|tail| tail.starts_with(magic));
    if head.first_chunk().is_some_and(|&start| frame::skippable_length(start).is_some()) {
        return Ok(Signature::Zstd);
    }
    let unknown = Err("is no root file system; name the rootfs directory that the image is generated from");
    MAGICS.iter().find(is).map_or(unknown, |(_, _, signature)| *signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: of several magic numbers, the more specific one counts and remains of an earlier file system do not;
    // each refusal says what to do instead.
    #[test]
    fn first_match_counts() {
        let all = |magics: &[(usize, &[u8])]| {
            let mut head = vec![0; HEAD];
            for (at, magic) in magics {
                head[*at..at + magic.len()].copy_from_slice(magic);
            }
            signature_of(&head)
        };
        let ext4 = (0x438, &b"\x53\xef"[..]);
        assert_eq!(all(&[ext4, (0x1_0040, b"_BHRfS_M"), (0x1fe, b"\x55\xaa")]), Ok(Signature::Ext4));
        assert_eq!(all(&[(0, b"070701"), (257, b"ustar"), ext4]), Ok(Signature::Tar));
        for (magic, says) in
            [((0x400, &b"\x10\x20\xf5\xf2"[..]), "f2fs"), ((0, b"hsqs"), "squashfs"), ((0, b"LUKS\xba\xbe"), "LUKS")]
        {
            assert!(all(&[magic, ext4]).unwrap_err().contains(says), "{says}");
        }
        assert!(signature_of(b"hsqs").unwrap_err().contains("squashfs") && signature_of(b"").is_err());
        assert!(MAGICS.iter().all(|(.., said)| said.map_or_else(|why| why.contains("; "), |_| true)));
    }
}
