//! The root file systems that are about to be flashed, one file a kind behind one trait.

mod directory;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use azaion_agent::device_conf::{DeviceConf, DeviceConfError, PATH};
use azaion_agent::exit::Exit;
use secrecy::SecretString;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::Owner;
use crate::failure::{failure, io_failure};

/// The kind of a target, told by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A folder: `Linux_for_Tegra/rootfs`, a staging tree, a mounted card.
    Directory,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
        })
    }
}

/// A `device.conf` found in a target, whatever is in it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its bytes, at most one more than a `device.conf` may have.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner by number.
    pub(crate) uid: u32,
    /// Group by number.
    pub(crate) gid: u32,
}

impl Found {
    /// What it says; its mode is not judged here, for writing it anew puts that right.
    pub(crate) fn conf(&self, target: &Path) -> Result<DeviceConf, DeviceConfError> {
        DeviceConf::parse(&self.bytes, &target.join(PATH))
    }
}

/// A place that can take a `device.conf`. A value holds the target's lock until it is dropped.
pub(crate) trait Target: fmt::Debug {
    /// As it was named.
    fn path(&self) -> &Path;

    /// Told by its content.
    fn kind(&self) -> Kind;

    /// Whether this run may write there, found out without writing.
    fn may_write(&self, owner: Owner) -> anyhow::Result<()>;

    /// Takes away what a run that was killed may have left: nobody will go on with it.
    fn tidy(&self) -> anyhow::Result<()>;

    /// The `device.conf` in it.
    fn look(&self) -> anyhow::Result<Option<Found>>;

    /// Whether what was found, and its folder, have the mode and owner that they must have.
    fn is_in_order(&self, found: &Found, owner: Owner) -> anyhow::Result<bool>;

    /// Puts a `device.conf` there: durable when this returns, all or nothing.
    fn write(&self, conf: &SecretString, owner: Owner) -> anyhow::Result<()>;

    /// Puts back what was there, file or none; folders may stay.
    fn restore(&self, before: Option<&Found>) -> anyhow::Result<()>;

    /// Takes the password's bytes out, and the name. Whether there was one.
    fn clear(&self) -> anyhow::Result<bool>;
}

/// Opens a target and waits for its lock.
pub(crate) fn open(path: &Path) -> anyhow::Result<Box<dyn Target>> {
    let metadata = path.metadata().map_err(|error| {
        let message = format!("the target {} can't be opened: {error}", path.display());
        failure(Exit::Target, message)
    })?;
    if metadata.is_dir() {
        return Ok(Box::new(directory::Directory::open(path)?));
    }
    Err(failure(Exit::Target, format!("the target {} {}", path.display(), refusal(path, metadata.is_file())?)))
}

/// Opens all targets, in an order that two runs share, so that they can't wait for each other; returned as given.
pub(crate) fn open_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Box<dyn Target>>> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut order: Vec<(PathBuf, usize)> = paths.iter().map(|path| real(path)).zip(0..).collect();
    order.sort();
    if let Some(twice) = order.windows(2).find_map(|pair| match pair {
        [(one, _), (other, _)] if one == other => Some(one),
        _ => None,
    }) {
        return Err(failure(Exit::Usage, format!("the target {} is given twice", twice.display())));
    }
    let mut opened = order
        .iter()
        .map(|(_, index)| Ok((*index, open(paths.get(*index).map_or(Path::new(""), PathBuf::as_path))?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    opened.sort_by_key(|(index, _)| *index);
    Ok(opened.into_iter().map(|(_, target)| target).collect())
}

/// Starts of files that are known and refused, with what to do instead.
const REFUSED: [(usize, &[u8], &str); 8] = [
    (0, b"LUKS\xba\xbe", "is an encrypted (LUKS) image; provision the rootfs directory before the image is generated"),
    (
        0,
        b"\x1f\x8b",
        "is a gzip'd archive (a packed mfi?); provision the images/ that it is made of, one unit at a time",
    ),
    (0, b"\x28\xb5\x2f\xfd", "is a zstd archive; unpack it and provision the directory"),
    (0, b"BZh", "is a bzip2'd archive; unpack it and provision the directory"),
    (0, b"\xfd7zXZ\0", "is an xz'd archive; unpack it and provision the directory"),
    (0, b"\x3a\xff\x26\xed", "is an Android sparse image; provision the rootfs directory, then generate the image"),
    (
        0x438,
        b"\x53\xef",
        "is an ext4 image; provision the rootfs directory and generate the image, or mount it and name the mount point",
    ),
    (257, b"ustar", "is a tar archive; provision the rootfs directory and generate the images again"),
];

fn refusal(path: &Path, is_file: bool) -> anyhow::Result<&'static str> {
    if !is_file {
        return Ok("is neither a directory nor a file; mount it and name the mount point");
    }
    let mut head = Vec::with_capacity(4096);
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut head));
    read.map_err(|error| io_failure(error, &format!("reading the target {}", path.display())))?;
    let is =
        |&&(offset, magic, _): &&(usize, &[u8], &str)| head.get(offset..).is_some_and(|tail| tail.starts_with(magic));
    let known = REFUSED.iter().find(is).map(|(_, _, advice)| *advice);
    Ok(known.unwrap_or("is no root file system; name the rootfs directory that the image is generated from"))
}

#[cfg(test)]
mod tests;
