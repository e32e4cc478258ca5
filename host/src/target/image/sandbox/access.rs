//! Gives the unprivileged user of a program access to a copy of an image, and takes it back.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use nix::unistd::geteuid;

use super::Program;

/// User and group id of the program if the caller is root. Debian's policy reserves the number and no account has it.
/// `nobody` runs other services, which could trace the program or open the image through its `/proc/PID/fd`.
pub(super) const ID: u32 = 65_533;

/// Returns whether the program's user may read a file without a change of its mode or owner.
pub(in crate::target::image) fn may_read(image: &File) -> io::Result<bool> {
    Ok(!geteuid().is_root() || image.metadata()?.mode() & 0o004 != 0)
}

/// Access of the program to a copy of an image: its group may read the copy, or its user owns it. Revoked on drop.
///
/// Holds the copy and its metadata of before; `None` if nothing was changed.
pub(super) struct Access<'f>(Option<(&'f File, Metadata)>);

impl<'f> Access<'f> {
    /// Grants read access to e2fsck, and write access to debugfs.
    pub(super) fn grant(program: Program, image: &'f File, metadata: Metadata) -> io::Result<Self> {
        if !geteuid().is_root() || program == Program::E2fsck && may_read(image)? {
            return Ok(Self(None));
        }
        // Created before the first change, so that a failure between two changes is undone as well.
        let access = Self(Some((image, metadata)));
        if program == Program::Debugfs {
            fchown(image, Some(ID), Some(ID))?;
        } else {
            image.set_permissions(Permissions::from_mode(0o640))?;
            fchown(image, None, Some(ID))?;
        }
        Ok(access)
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        let Some((image, before)) = &self.0 else { return };
        let restored = fchown(image, Some(before.uid()), Some(before.gid()))
            .and_then(|()| image.set_permissions(before.permissions()));
        if let Err(error) = restored {
            log::error!("cannot restore owner and mode of a copy of the image: {error}");
        }
    }
}
