//! A directory as target. Nothing outside of it is read or written, whatever symlinks it contains.

mod walk;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use azaion_agent::common::device_conf::{LARGEST, MODE, read_bounded};
use azaion_agent::common::history;
use azaion_agent::common::private_file::{
    Attributes, Lifetime, erase_all, kind_of, remove_leftovers, reopen, replace, set_attributes,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{fsync, geteuid};
use secrecy::{ExposeSecret, SecretString};

use super::DIRECTORY_MODE;
use super::Found;
use super::Kind;
use super::Owner;
use super::Target;
use super::lock::{Access, Held};
use crate::resolved_path::ResolvedPath;
use crate::target::error::{Error, Result, io_failure};
use crate::target::template::Template;
use crate::target::write_access;

const NAME: &str = "device.conf";
/// Directory and name of the agent's history.
const HISTORY: (&str, &str) = ("var/lib/azaion", "history.json");
/// The directories above `device.conf`.
const PARENTS: [&str; 2] = ["etc", "etc/azaion"];

/// A root file system in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    root: Held,
}

impl Directory {
    /// Opens the directory, and waits for its lock if `access` allows changes.
    pub(super) fn open(resolved: &ResolvedPath, access: Access) -> Result<Self> {
        let path = resolved.path().to_owned();
        let root = resolved.open(OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        let root = root.map_err(|error| io_failure(error, format!("opening {}", path.display())))?;
        let root = Held::new(root, &path, access)?;
        let directory = Self { path, root };
        directory.check_is_root_file_system()?;
        Ok(directory)
    }

    fn check_is_root_file_system(&self) -> Result<()> {
        let refuse = |why| Err(Error::unsuitable(&self.path, why));
        let own = ResolvedPath::find(Path::new("/")).ok().and_then(|own| own.identity());
        if self.root.metadata().is_ok_and(|root| own == Some((root.dev(), root.ino()))) {
            return refuse("is this host's own root file system; pass the one to be flashed");
        }
        let has = |name| self.open_directory(name).map(|directory| directory.is_some());
        let (etc, boot, usr) = (has("etc")?, has("boot")?, has("usr")?);
        if boot && !etc {
            return refuse(
                "holds only /boot (flash.sh builds such a tree for nvme0n1p1); pass the rootfs directory itself",
            );
        }
        if !etc && !usr {
            log::warn!(
                "{} has neither etc nor usr; check that it is a root file system, and mounted",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Opens a directory inside the target, resolving symlinks as the device will.
    fn open_directory(&self, name: &str) -> Result<Option<OwnedFd>> {
        match walk::open_in_root(self.root.as_fd(), Path::new(name)) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                Err(Error::unsuitable_inside(self.inside(name), "is not a directory"))
            }
            Err(errno) => Err(io_failure(errno, format!("opening {}", self.inside(name)))),
        }
    }

    /// Opens the directory of `device.conf`. Creates it if it is missing, and corrects its mode and owner.
    fn create_conf_directory(&self, owner: Owner) -> Result<OwnedFd> {
        let mut parent = None;
        for name in PARENTS {
            let directory = match self.open_directory(name)? {
                Some(directory) => directory,
                None => self.create_directory(parent.as_ref(), name, owner)?,
            };
            parent = Some(directory);
        }
        let directory = parent.ok_or_else(|| Error::Internal("device.conf has no parent directories".into()))?;
        let stat = fstat(&directory).map_err(|e| io_failure(e, self.inside("etc/azaion")))?;
        if !has_attributes(&stat, directory_attributes(owner)) {
            set_attributes(directory.as_fd(), directory_attributes(owner))
                .map_err(|e| io_failure(e, format!("setting mode and owner of {}", self.inside("etc/azaion"))))?;
        }
        Ok(directory)
    }

    fn create_directory(&self, parent: Option<&OwnedFd>, name: &str, owner: Owner) -> Result<OwnedFd> {
        let fail = |errno: Errno| io_failure(errno, format!("creating {}", self.inside(name)));
        let parent = parent.map_or(self.root.as_fd(), AsFd::as_fd);
        let last = name.rsplit('/').next().unwrap_or(name);
        match mkdirat(parent, last, Mode::from_bits_truncate(DIRECTORY_MODE)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                return Err(Error::unsuitable_inside(self.inside(name), "is a dangling symlink; remove it"));
            }
            Err(errno) => return Err(fail(errno)),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = openat(parent, last, flags, Mode::empty()).map_err(fail)?;
        set_attributes(directory.as_fd(), directory_attributes(owner))
            .map_err(|e| io_failure(e, format!("setting mode and owner of {}", self.inside(name))))?;
        fsync(parent).map_err(fail)?;
        Ok(directory)
    }

    fn replace(&self, directory: &OwnedFd, attributes: Attributes, bytes: &[u8]) -> Result<()> {
        replace(directory.as_fd(), NAME, attributes, bytes, Lifetime::Durable)
            .map_err(|error| io_failure(error, format!("writing {}", self.inside("etc/azaion/device.conf"))))
    }

    /// Opens `device.conf` for `access`.
    fn open_file(&self, access: OFlag) -> Result<Option<(File, FileStat)>> {
        self.open_in("etc/azaion", NAME, access)
    }

    /// Opens a file in a directory of the target for `access`. Refuses a file that is not regular, or has several hard links.
    fn open_in(&self, directory_name: &str, file_name: &str, access: OFlag) -> Result<Option<(File, FileStat)>> {
        let Some(directory) = self.open_directory(directory_name)? else { return Ok(None) };
        let name = self.inside(&format!("{directory_name}/{file_name}"));
        let refuse =
            |what: &str| Error::unsuitable_inside(name.clone(), format_args!("{what}; inspect it, then remove it"));
        let fail = |error: io::Error| io_failure(error, format!("opening {name}"));
        // The type is checked before the file is opened: opening a device may have effects, and opening a FIFO may hang.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let path_only = match openat(&directory, file_name, flags, Mode::empty()) {
            Ok(path_only) => path_only,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno.into())),
        };
        let stat = fstat(&path_only).map_err(|errno| io_failure(errno, name.as_str()))?;
        match kind_of(&stat) {
            SFlag::S_IFREG => {}
            SFlag::S_IFLNK => return Err(refuse("is a symlink")),
            _ => return Err(refuse("is not a regular file")),
        }
        // The count is zero if another run has just replaced the file.
        if stat.st_nlink > 1 {
            return Err(refuse("has another hard link"));
        }
        let file = reopen(path_only.as_fd(), access).map_err(fail)?;
        Ok(Some((file, stat)))
    }

    fn duplicate(&self) -> Result<OwnedFd> {
        let root = self.root.try_clone();
        root.map(OwnedFd::from).map_err(|error| io_failure(error, format!("opening {}", self.path.display())))
    }

    fn inside(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

impl Target for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn may_write(&self, owner: Owner) -> Result<()> {
        if owner == Owner::Root && !geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let mut deepest = (self.duplicate()?, self.path.clone());
        for name in PARENTS {
            match self.open_directory(name)? {
                Some(directory) => deepest = (directory, self.path.join(name)),
                None => break,
            }
        }
        let (directory, path): (OwnedFd, PathBuf) = deepest;
        write_access::may_write_into(&directory)
            .map_err(|error| io_failure(error, format!("checking write access to {}", path.display())))
    }

    fn read_conf(&self) -> Result<Option<Found>> {
        self.root.read(|| {
            let Some((file, stat)) = self.open_file(OFlag::O_RDONLY)? else { return Ok((None, true)) };
            let bytes = read_bounded(file)
                .map_err(|error| io_failure(error, format!("reading {}", self.inside("etc/azaion/device.conf"))))?;
            let is_whole = is_whole(&bytes);
            // As in an image, a file of white space counts as no device.conf. A file that was not read to its end is not blank.
            if bytes.len() <= LARGEST && bytes.trim_ascii().is_empty() {
                return Ok((None, is_whole));
            }
            let found = Found { bytes, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid };
            Ok((Some(found), is_whole))
        })
    }

    fn remove_leftovers(&self) -> Result<()> {
        let Some(directory) = self.open_directory("etc/azaion")? else { return Ok(()) };
        remove_leftovers(directory.as_fd(), NAME)
            .map_err(|error| io_failure(error, format!("removing leftovers from {}", self.inside("etc/azaion"))))
    }

    fn is_in_order(&self, found: &Found, owner: Owner) -> Result<bool> {
        let Some(directory) = self.open_directory("etc/azaion")? else { return Ok(false) };
        let stat = fstat(&directory).map_err(|e| io_failure(e, self.inside("etc/azaion")))?;
        let has_owner = match owner {
            Owner::Root => (found.uid, found.gid) == (0, 0),
            Owner::Current => found.uid == geteuid().as_raw(),
        };
        Ok(has_owner && found.mode == MODE && has_attributes(&stat, directory_attributes(owner)))
    }

    fn write(&self, conf: &SecretString, owner: Owner) -> Result<()> {
        let directory = self.create_conf_directory(owner)?;
        let attributes = Attributes { mode: MODE, ..directory_attributes(owner) };
        self.replace(&directory, attributes, conf.expose_secret().as_bytes())
    }

    fn history(&self) -> Result<Option<Vec<u8>>> {
        let (directory, name) = HISTORY;
        let Some((file, _)) = self.open_in(directory, name, OFlag::O_RDONLY)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(history::LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(|error| {
            io_failure(error, format!("reading {}", self.inside(history::PATH.trim_start_matches('/'))))
        })?;
        Ok(Some(bytes))
    }

    fn template(&self) -> Result<Template> {
        self.duplicate().map(Template::tree)
    }

    fn restore(&self, before: Option<&Found>) -> Result<()> {
        let Some(before) = before else { return self.clear().map(drop) };
        if before.bytes.len() > LARGEST {
            // It was not read to its end, so it can't be restored. The password that this run wrote must not stay.
            self.clear()?;
            return Err(Error::TooLarge);
        }
        let directory = self.open_directory("etc/azaion")?.ok_or_else(|| {
            Error::unsuitable_inside(
                self.inside("etc/azaion"),
                "no longer exists, so its device.conf can't be restored",
            )
        })?;
        let root = geteuid().is_root();
        let attributes =
            Attributes { mode: before.mode, uid: root.then_some(before.uid), gid: root.then_some(before.gid) };
        self.replace(&directory, attributes, &before.bytes)
    }

    fn clear(&self) -> Result<bool> {
        // Refuses what is not a regular file, which then stays unchanged.
        self.open_file(OFlag::O_WRONLY)?;
        let Some(directory) = self.open_directory("etc/azaion")? else { return Ok(false) };
        erase_all(directory.as_fd(), NAME)
            .map_err(|error| io_failure(error, format!("removing {}", self.inside("etc/azaion/device.conf"))))
    }
}

/// Returns whether a file is certainly complete: a run that clears it overwrites it with newlines first.
fn is_whole(bytes: &[u8]) -> bool {
    !bytes.is_empty() && !bytes.starts_with(b"\n") && !bytes.windows(2).any(|pair| pair == b"\n\n")
}

fn directory_attributes(owner: Owner) -> Attributes {
    let id = (owner == Owner::Root).then_some(0);
    Attributes { mode: DIRECTORY_MODE, uid: id, gid: id }
}

fn has_attributes(stat: &FileStat, wanted: Attributes) -> bool {
    stat.st_mode & 0o7777 == wanted.mode
        && wanted.uid.is_none_or(|uid| uid == stat.st_uid)
        && wanted.gid.is_none_or(|gid| gid == stat.st_gid)
}
