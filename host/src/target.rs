//! Targets: the root file systems to be flashed, one module for each kind behind one trait.

pub(crate) mod confirmation;
mod directory;
pub mod error;
mod free_space;
pub mod image;
mod lazy;
mod lock;
pub mod template;
mod write_access;

use std::path::Path;
use std::{fmt, io};

use azaion_agent::common::device_conf::{DeviceConf, DeviceConfError, PATH};
use secrecy::SecretString;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::resolved_path::{PathError, ResolvedPath};
use error::io_failure;
pub use error::{Error, Result};
use lock::Access;
use template::Template;

/// The kind of a target, recognized by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Kind {
    /// A directory: `Linux_for_Tegra/rootfs`, a staging tree, a mounted card.
    Directory,
    /// A raw ext4 image: `system.img.raw`.
    Ext4,
    /// An Android sparse image of an ext4 file system: `system.img` of flash.sh.
    Sparse,
    /// A tar archive of a root file system: `system.img` of `l4t_initrd_flash.sh` up to R36.2.
    Tar,
    /// A zstd-compressed tar archive of a root file system: `system.img` of `l4t_initrd_flash.sh` since R36.4.3.
    #[serde(rename = "tar.zst")]
    TarZst,
    /// A zstd-compressed raw ext4 image: `system.img.zst` of `l4t_initrd_flash.sh --sparse` since R39.
    #[serde(rename = "ext4.zst")]
    Ext4Zst,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::Ext4 => "ext4",
            Self::Sparse => "sparse",
            Self::Tar => "tar",
            Self::TarZst => "tar.zst",
            Self::Ext4Zst => "ext4.zst",
        })
    }
}

/// The owner of what is written into a directory. In images the owner is always root (0:0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Root (0:0).
    Root,
    /// The user who runs the program.
    Current,
}

/// The permission bits of `etc/azaion` in any target.
const DIRECTORY_MODE: u32 = 0o755;

/// A `device.conf` found in a target; its content is not validated.
#[derive(Clone, Debug)]
pub struct Found {
    /// Content, at most one byte more than a `device.conf` may have.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Found {
    /// Parses the content. The mode is not checked here, because the next write corrects it.
    pub fn conf(&self, target: &Path) -> Result<DeviceConf, DeviceConfError> {
        DeviceConf::parse(&self.bytes, &target.join(PATH))
    }
}

/// A root file system that a `device.conf` can be written to. A value opened for changes holds the target's lock until it is
/// dropped.
pub trait Target: fmt::Debug {
    /// Returns the path as the user gave it.
    fn path(&self) -> &Path;

    /// Returns the kind, which the content determines.
    fn kind(&self) -> Kind;

    /// Checks that this run may write to the target, without writing.
    fn may_write(&self, owner: Owner) -> Result<()>;

    /// Removes what a killed run may have left behind; no later run continues from it.
    fn remove_leftovers(&self) -> Result<()>;

    /// Makes the slot for a `device.conf` in targets where that takes long, so that copies already have it.
    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// Reads the `device.conf`, if there is one.
    fn read_conf(&self) -> Result<Option<Found>>;

    /// Returns whether the `device.conf` that was found and its directory have the required mode and owner.
    fn is_in_order(&self, found: &Found, owner: Owner) -> Result<bool>;

    /// Writes a `device.conf` atomically; it is durable when this returns.
    fn write(&self, conf: &SecretString, owner: Owner) -> Result<()>;

    /// Returns warnings, one sentence each: what does not prevent provisioning, but may prevent the device from booting.
    fn warnings(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Reads the agent's `history.json`, which exists if a device has run from this target; at most one byte more than the file
    /// may have.
    fn history(&self) -> Result<Option<Vec<u8>>>;

    /// Returns the template that copies of this target are made from.
    fn template(&self) -> Result<Template>;

    /// Restores the earlier `device.conf`, or removes the file if there was none. Directories that were created may stay.
    fn restore(&self, before: Option<&Found>) -> Result<()>;

    /// Erases the bytes of the password and removes the `device.conf`. Returns whether there was one.
    fn clear(&self) -> Result<bool>;
}

/// Opens a target and waits for its lock.
///
/// # Errors
/// The target is missing, of a kind that can't take a `device.conf`, locked for too long, or can be changed by others (strict
/// modes).
pub fn open(path: &Path) -> Result<Box<dyn Target>> {
    open_at(find(path)?)
}

/// Opens a target for reading, without its lock, because another run may be working on it. A file system need not have been
/// unmounted cleanly.
///
/// # Errors
/// The target is missing, of a kind that can't take a `device.conf`, or can be changed by others (strict modes).
pub fn open_to_read(path: &Path) -> Result<Box<dyn Target>> {
    open_for(find(path)?, Access::Read)
}

/// Resolves the path of a target.
pub(crate) fn find(path: &Path) -> Result<ResolvedPath> {
    ResolvedPath::find(path).map_err(|error| match error {
        PathError::Io(error) => refused(path, format_args!("can't be opened: {error}")),
        PathError::Unsafe(source) => Error::Unsafe { path: path.to_owned(), source },
    })
}

/// Resolves the path of a target that may have to be created, and creates its missing parent directories.
pub(crate) fn find_or_create_parents(path: &Path) -> Result<ResolvedPath> {
    ResolvedPath::find_or_create_parents(path).map_err(|error| match error {
        PathError::Io(error) => io_failure(error, format!("creating the parent directories of {}", path.display())),
        PathError::Unsafe(source) => Error::Unsafe { path: path.to_owned(), source },
    })
}

fn refused(path: &Path, why: impl fmt::Display) -> Error {
    Error::unsuitable(path, why)
}

/// Opens the target at a resolved path and waits for its lock.
pub(crate) fn open_at(path: ResolvedPath) -> Result<Box<dyn Target>> {
    open_for(path, Access::Change)
}

fn open_for(path: ResolvedPath, access: Access) -> Result<Box<dyn Target>> {
    if !path.is_found() {
        let missing = io::Error::from(nix::errno::Errno::ENOENT);
        return Err(refused(path.path(), format_args!("can't be opened: {missing}")));
    }
    if path.is_directory() {
        return Ok(Box::new(directory::Directory::open(&path, access)?));
    }
    if !path.is_file() {
        return Err(refused(
            path.path(),
            "is neither a directory nor a regular file; mount it and pass the mount point",
        ));
    }
    image::open(path, access)
}

/// Opens all targets and returns them in the given order. They are locked in an order that is the same for every run, so that two
/// runs can't deadlock.
pub(crate) fn open_all(paths: Vec<ResolvedPath>) -> Result<Vec<Box<dyn Target>>> {
    // Sorted by identity, not by path, because a file may have two names. A missing target is refused when it is opened.
    let mut order: Vec<_> = paths.into_iter().enumerate().collect();
    order.sort_by_key(|(index, path)| (path.identity(), *index));
    if let Some([_, (_, twice)]) =
        order.array_windows().find(|[(_, one), (_, other)]| one.is_found() && one.identity() == other.identity())
    {
        return Err(Error::GivenTwice { path: twice.path().to_owned() });
    }
    let mut opened = order.into_iter().map(|(index, path)| Ok((index, open_at(path)?))).collect::<Result<Vec<_>>>()?;
    opened.sort_by_key(|(index, _)| *index);
    Ok(opened.into_iter().map(|(_, target)| target).collect())
}

#[cfg(test)]
mod tests;
