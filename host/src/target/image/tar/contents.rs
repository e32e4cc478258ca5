//! What an archive holds, as far as it matters here.

use ::tar::EntryType;
use zeroize::Zeroizing;

use super::problem::Problem::{self, Refused};

/// Versions of `device.conf` that an archive may have, one behind the other.
const MOST_CONFS: usize = 16;
/// Bytes that what is in the place of a `device.conf` may have, to be taken out.
const MOST_CONF: u64 = 1 << 20;
/// The names on its path.
pub(super) const CONF: [&[u8]; 3] = [b"etc", b"azaion", b"device.conf"];

/// A member that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset at which it starts, with the headers before its own.
    pub start: u64,
    /// Offset at which its content starts.
    pub content: u64,
    /// Bytes of content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner by number.
    pub uid: u32,
    /// Group by number.
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

/// What an archive holds, as far as it matters here.
#[derive(Debug, Default)]
pub struct Archive {
    /// Offset at which the last member ends.
    pub end: u64,
    /// Whether names start with `./`.
    pub is_dotted: bool,
    /// The last `etc/azaion`.
    pub folder: Option<Member>,
    /// Each `etc/azaion/device.conf`; the last one wins.
    pub confs: Vec<PackedConf>,
    has_etc: bool,
    has_boot: bool,
}

impl Archive {
    /// Records a member that matters here; `kind` is `None` for a regular file. Returns whether it is a `device.conf`.
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
                self.folder = Some(member);
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
                return Err(Refused("has a symlink at etc/azaion/device.conf; take it away in the rootfs directory"));
            }
            Some(EntryType::Link) => {
                return Err(Refused("has a hard link at etc/azaion/device.conf; take it away in the rootfs directory"));
            }
            _ => {
                return Err(Refused(
                    "has something at etc/azaion/device.conf that is no plain file; take it away in the rootfs directory",
                ));
            }
        }
        if member.size > MOST_CONF || self.confs.len() == MOST_CONFS {
            return Err(Refused(
                "has an etc/azaion/device.conf of more than 1 MiB, or too many of them; take it away by hand",
            ));
        }
        Ok(())
    }

    /// Refuses an archive that is of no root file system.
    pub(super) fn check_root(&self) -> Result<(), Problem> {
        if !self.has_etc {
            return Err(Refused(if self.has_boot {
                "holds only /boot (flash.sh makes such for nvme0n1p1); provision the rootfs directory that it is made from"
            } else {
                "has no /etc: it is no root file system; name the one that is, or the rootfs directory"
            }));
        }
        Ok(())
    }
}

fn check_directory(kind: Option<EntryType>) -> Result<(), Problem> {
    match kind {
        Some(EntryType::Directory) => Ok(()),
        Some(EntryType::Symlink) => {
            Err(Refused("has a symlink in place of /etc or /etc/azaion; make it a folder, in the rootfs directory"))
        }
        _ => Err(Refused("has something in place of /etc or /etc/azaion that is no folder; take it away by hand")),
    }
}
