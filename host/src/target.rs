//! The root file systems that are about to be flashed, one file a kind behind one trait.

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

/// The kind of a target, told by its content.
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

/// IdentitySource owns what is written into a directory; in images it is root, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Root, by number.
    Root,
    /// The caller.
    Current,
}

/// The permission bits of `etc/azaion` in any target.
const DIRECTORY_MODE: u32 = 0o755;

/// A `device.conf` found in a target, whatever is in it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its bytes, at most one more than a `device.conf` may have.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Permission bits.
    pub mode: u32,
    /// Owner by number.
    pub uid: u32,
    /// Group by number.
    pub gid: u32,
}

impl Found {
    /// What it says; its mode is not judged here, for writing it anew puts that right.
    pub fn conf(&self, target: &Path) -> Result<DeviceConf, DeviceConfError> {
        DeviceConf::parse(&self.bytes, &target.join(PATH))
    }
}

/// A place that can take a `device.conf`. A value holds the target's lock until it is dropped.
pub trait Target: fmt::Debug {
    /// As it was named.
    fn path(&self) -> &Path;

    /// Told by its content.
    fn kind(&self) -> Kind;

    /// Whether this run may write there, found out without writing.
    fn may_write(&self, owner: Owner) -> Result<()>;

    /// Takes away what a run that was killed may have left: nobody will go on with it.
    fn remove_leftovers(&self) -> Result<()>;

    /// Makes room for a `device.conf`, where that takes long, so that copies have it.
    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// The `device.conf` in it.
    fn read_conf(&self) -> Result<Option<Found>>;

    /// Whether what was found, and its folder, have the mode and owner that they must have.
    fn is_in_order(&self, found: &Found, owner: Owner) -> Result<bool>;

    /// Puts a `device.conf` there: durable when this returns, all or nothing.
    fn write(&self, conf: &SecretString, owner: Owner) -> Result<()>;

    /// What does not keep it from being provisioned, but may keep the device from booting; one sentence each.
    fn warnings(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The content of the agent's `history.json`, if a device has run from it; at most a byte more than that may have.
    fn history(&self) -> Result<Option<Vec<u8>>>;

    /// What copies of it are made from.
    fn template(&self) -> Result<Template>;

    /// Puts back what was there, file or none; folders may stay.
    fn restore(&self, before: Option<&Found>) -> Result<()>;

    /// Takes the password's bytes out, and the name. Whether there was one.
    fn clear(&self) -> Result<bool>;
}

/// Opens a target and waits for its lock.
///
/// # Errors
/// It is missing, of a kind that can't take a `device.conf`, locked for too long, or can be changed by others (strict modes).
pub fn open(path: &Path) -> Result<Box<dyn Target>> {
    open_at(find(path)?)
}

/// Opens a target to be read, without its lock: another run may be working on it. A file system need not have been unmounted cleanly.
///
/// # Errors
/// It is missing, of a kind that can't take a `device.conf`, or can be changed by others (strict modes).
pub fn open_to_read(path: &Path) -> Result<Box<dyn Target>> {
    open_for(find(path)?, Access::Read)
}

/// Follows the path of a target.
pub(crate) fn find(path: &Path) -> Result<ResolvedPath> {
    ResolvedPath::find(path).map_err(|error| match error {
        PathError::Io(error) => refused(path, format_args!("can't be opened: {error}")),
        PathError::Unsafe(source) => Error::Unsafe { path: path.to_owned(), source },
    })
}

/// The same for a target that may have to be made, with the directories on the way.
pub(crate) fn find_or_create_parents(path: &Path) -> Result<ResolvedPath> {
    ResolvedPath::find_or_create_parents(path).map_err(|error| match error {
        PathError::Io(error) => io_failure(error, format!("making the way to {}", path.display())),
        PathError::Unsafe(source) => Error::Unsafe { path: path.to_owned(), source },
    })
}

fn refused(path: &Path, why: impl fmt::Display) -> Error {
    Error::unsuitable(path, why)
}

/// Opens the target at a place and waits for its lock.
pub(crate) fn open_at(place: ResolvedPath) -> Result<Box<dyn Target>> {
    open_for(place, Access::Change)
}

fn open_for(place: ResolvedPath, access: Access) -> Result<Box<dyn Target>> {
    if !place.is_found() {
        let missing = io::Error::from(nix::errno::Errno::ENOENT);
        return Err(refused(place.path(), format_args!("can't be opened: {missing}")));
    }
    if place.is_directory() {
        return Ok(Box::new(directory::Directory::open(&place, access)?));
    }
    if !place.is_file() {
        return Err(refused(place.path(), "is neither a directory nor a file; mount it and name the mount point"));
    }
    image::open(place, access)
}

/// Opens all targets, in an order that two runs share, so that they can't wait for each other; returned as given.
pub(crate) fn open_all(places: Vec<ResolvedPath>) -> Result<Vec<Box<dyn Target>>> {
    // By what it is, not by its name: a file may have two. What is missing is refused when its turn comes.
    let mut order: Vec<_> = places.into_iter().enumerate().collect();
    order.sort_by_key(|(index, place)| (place.identity(), *index));
    if let Some([_, (_, twice)]) =
        order.array_windows().find(|[(_, one), (_, other)]| one.is_found() && one.identity() == other.identity())
    {
        return Err(Error::GivenTwice { path: twice.path().to_owned() });
    }
    let mut opened =
        order.into_iter().map(|(index, place)| Ok((index, open_at(place)?))).collect::<Result<Vec<_>>>()?;
    opened.sort_by_key(|(index, _)| *index);
    Ok(opened.into_iter().map(|(_, target)| target).collect())
}

#[cfg(test)]
mod tests;
