//! The content of an archive that is relevant for a `device.conf`.

use ::tar::EntryType;
use zeroize::Zeroizing;

use super::problem::Problem::{self, Refused};

/// The most `device.conf` members that an archive may have.
const MOST_CONFS: usize = 16;
/// The largest `device.conf` member, in bytes, that is read and can be erased.
const LARGEST_CONF: u64 = 1 << 20;
/// The names on the path of `device.conf`.
pub(super) const CONF: [&[u8]; 3] = [b"etc", b"azaion", b"device.conf"];

/// A member of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset at which the member starts, including extension headers.
    pub start: u64,
    /// Offset at which the content starts.
    pub content: u64,
    /// Bytes of content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A `device.conf` in an archive.
pub struct PackedConf {
    /// The member.
    pub member: Member,
    /// Its content.
    pub text: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for PackedConf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password in it.
        f.debug_struct("PackedConf").field("member", &self.member).finish_non_exhaustive()
    }
}

/// The content of an archive that is relevant for a `device.conf`.
#[derive(Debug, Default)]
pub struct Archive {
    /// Offset at which the last member ends.
    pub end: u64,
    /// Whether names start with `./`.
    pub is_dotted: bool,
    /// The last `etc/azaion`.
    pub directory: Option<Member>,
    /// Each `etc/azaion/device.conf`; the last one wins.
    pub confs: Vec<PackedConf>,
    has_etc: bool,
    has_boot: bool,
}

impl Archive {
    /// Records a member if it is relevant; `kind` is `None` for a regular file. Returns whether it is a `device.conf`.
    pub(super) fn add(
        &mut self,
        path: &[u8],
        names: &[&[u8]],
        kind: Option<EntryType>,
        member: Member,
    ) -> Result<bool, Problem> {
        if names.first() == Some(&&b"etc"[..]) {
            self.has_etc = true;
            self.is_dotted = path.starts_with(b"./");
        }
        match names {
            [b"boot", ..] => self.has_boot = true,
            [b"etc"] => check_directory(kind)?,
            [b"etc", b"azaion"] => {
                check_directory(kind)?;
                self.directory = Some(member);
            }
            [b"etc", b"azaion", b"device.conf", rest @ ..] => {
                self.check_conf(rest.is_empty(), kind, member)?;
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn check_conf(&self, is_last: bool, kind: Option<EntryType>, member: Member) -> Result<(), Problem> {
        match kind {
            None if is_last => {}
            Some(EntryType::Symlink) => {
                return Err(Refused("has a symlink at etc/azaion/device.conf; remove it in the rootfs directory"));
            }
            Some(EntryType::Link) => {
                return Err(Refused("has a hard link at etc/azaion/device.conf; remove it in the rootfs directory"));
            }
            _ => {
                return Err(Refused(
                    "has an etc/azaion/device.conf that is not a regular file; remove it in the rootfs directory",
                ));
            }
        }
        if member.size > LARGEST_CONF || self.confs.len() == MOST_CONFS {
            return Err(Refused(
                "has an etc/azaion/device.conf of more than 1 MiB, or more than 16 of them; remove it in the rootfs directory",
            ));
        }
        Ok(())
    }

    /// Refuses an archive that is not of a root file system.
    pub(super) fn check_root(&self) -> Result<(), Problem> {
        if !self.has_etc {
            return Err(Refused(if self.has_boot {
                "holds only /boot (flash.sh builds such an image for nvme0n1p1); provision the rootfs directory that it is made from"
            } else {
                "has no /etc, so it is no root file system; pass the image of the root file system, or the rootfs directory"
            }));
        }
        Ok(())
    }
}

fn check_directory(kind: Option<EntryType>) -> Result<(), Problem> {
    match kind {
        Some(EntryType::Directory) => Ok(()),
        Some(EntryType::Symlink) => {
            Err(Refused("has a symlink in place of /etc or /etc/azaion; make it a directory in the rootfs directory"))
        }
        _ => Err(Refused("has an /etc or /etc/azaion that is not a directory; correct that in the rootfs directory")),
    }
}
