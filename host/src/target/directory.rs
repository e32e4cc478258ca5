//! A directory as target: nothing outside of it is ever touched, whatever symlinks are in it.

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
/// Where the agent's history is.
const HISTORY: (&str, &str) = ("var/lib/azaion", "history.json");
/// The folders on the way to the file.
const FOLDERS: [&str; 2] = ["etc", "etc/azaion"];

/// A root file system as a folder.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    root: Held,
}

impl Directory {
    /// Opens the directory. If it may be changed, waits until no other run works on it.
    pub(super) fn open(place: &ResolvedPath, access: Access) -> Result<Self> {
        let path = place.path().to_owned();
        let root = place.open(OFlag::O_RDONLY | OFlag::O_DIRECTORY);
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
            return refuse("is this station's own root; name the root file system to be flashed");
        }
        let has = |name| self.open_folder(name).map(|folder| folder.is_some());
        let (etc, boot, usr) = (has("etc")?, has("boot")?, has("usr")?);
        if boot && !etc {
            return refuse("holds only /boot (flash.sh makes such for nvme0n1p1); name the rootfs directory itself");
        }
        if !etc && !usr {
            log::warn!("{} has neither etc nor usr: is it a root file system, is it mounted?", self.path.display());
        }
        Ok(())
    }

    /// Opens a folder inside the target, symlinks resolved as the device will.
    fn open_folder(&self, name: &str) -> Result<Option<OwnedFd>> {
        match walk::open_in_root(self.root.as_fd(), Path::new(name)) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => Err(Error::unsuitable_inside(self.inside(name), "is not a folder")),
            Err(errno) => Err(io_failure(errno, format!("opening {}", self.inside(name)))),
        }
    }

    /// The folder of `device.conf`, made where it is missing, with the mode and owner it must have.
    fn make_folder(&self, owner: Owner) -> Result<OwnedFd> {
        let mut parent = None;
        for name in FOLDERS {
            let folder = match self.open_folder(name)? {
                Some(folder) => folder,
                None => self.make(parent.as_ref(), name, owner)?,
            };
            parent = Some(folder);
        }
        let folder = parent.ok_or_else(|| Error::Internal("there are no folders on the way".into()))?;
        let stat = fstat(&folder).map_err(|e| io_failure(e, self.inside("etc/azaion")))?;
        if !has_attributes(&stat, folder_attributes(owner)) {
            set_attributes(folder.as_fd(), folder_attributes(owner))
                .map_err(|e| io_failure(e, format!("setting mode and owner of {}", self.inside("etc/azaion"))))?;
        }
        Ok(folder)
    }

    fn make(&self, parent: Option<&OwnedFd>, name: &str, owner: Owner) -> Result<OwnedFd> {
        let fail = |errno: Errno| io_failure(errno, format!("making {}", self.inside(name)));
        let parent = parent.map_or(self.root.as_fd(), AsFd::as_fd);
        let last = name.rsplit('/').next().unwrap_or(name);
        match mkdirat(parent, last, Mode::from_bits_truncate(DIRECTORY_MODE)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                return Err(Error::unsuitable_inside(self.inside(name), "is a symlink to nowhere"));
            }
            Err(errno) => return Err(fail(errno)),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let folder = openat(parent, last, flags, Mode::empty()).map_err(fail)?;
        set_attributes(folder.as_fd(), folder_attributes(owner))
            .map_err(|e| io_failure(e, format!("setting mode and owner of {}", self.inside(name))))?;
        fsync(parent).map_err(fail)?;
        Ok(folder)
    }

    fn replace(&self, folder: &OwnedFd, attributes: Attributes, bytes: &[u8]) -> Result<()> {
        replace(folder.as_fd(), NAME, attributes, bytes, Lifetime::Durable)
            .map_err(|error| io_failure(error, format!("writing {}", self.inside("etc/azaion/device.conf"))))
    }

    /// Opens `device.conf` for `access`.
    fn open_file(&self, access: OFlag) -> Result<Option<(File, FileStat)>> {
        self.open_in("etc/azaion", NAME, access)
    }

    /// Opens a file in a folder for `access`, refusing what is no plain file of its own.
    fn open_in(&self, folder_name: &str, file_name: &str, access: OFlag) -> Result<Option<(File, FileStat)>> {
        let Some(folder) = self.open_folder(folder_name)? else { return Ok(None) };
        let name = self.inside(&format!("{folder_name}/{file_name}"));
        let odd = |what: &str| {
            Error::unsuitable_inside(name.clone(), format_args!("{what}; look at it, and take it away by hand"))
        };
        let fail = |error: io::Error| io_failure(error, format!("opening {name}"));
        // Told before it is opened: to open a device or a pipe may do something, or hang.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let there = match openat(&folder, file_name, flags, Mode::empty()) {
            Ok(there) => there,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno.into())),
        };
        let stat = fstat(&there).map_err(|errno| io_failure(errno, name.as_str()))?;
        match kind_of(&stat) {
            SFlag::S_IFREG => {}
            SFlag::S_IFLNK => return Err(odd("is a symlink")),
            _ => return Err(odd("is not a file")),
        }
        // None at all, if another run has just replaced it.
        if stat.st_nlink > 1 {
            return Err(odd("has a second name (a hard link)"));
        }
        let file = reopen(there.as_fd(), access).map_err(fail)?;
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
        for name in FOLDERS {
            match self.open_folder(name)? {
                Some(folder) => deepest = (folder, self.path.join(name)),
                None => break,
            }
        }
        let (folder, path): (OwnedFd, PathBuf) = deepest;
        write_access::may_write_into(&folder)
            .map_err(|error| io_failure(error, format!("may not write into {}", path.display())))
    }

    fn read_conf(&self) -> Result<Option<Found>> {
        self.root.read(|| {
            let Some((file, stat)) = self.open_file(OFlag::O_RDONLY)? else { return Ok((None, true)) };
            let bytes = read_bounded(file)
                .map_err(|error| io_failure(error, format!("reading {}", self.inside("etc/azaion/device.conf"))))?;
            let is_whole = is_whole(&bytes);
            // As in an image: nothing but white space is no device's. Of a larger file it is not known.
            if bytes.len() <= LARGEST && bytes.trim_ascii().is_empty() {
                return Ok((None, is_whole));
            }
            let found = Found { bytes, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid };
            Ok((Some(found), is_whole))
        })
    }

    fn remove_leftovers(&self) -> Result<()> {
        let Some(folder) = self.open_folder("etc/azaion")? else { return Ok(()) };
        remove_leftovers(folder.as_fd(), NAME)
            .map_err(|error| io_failure(error, format!("tidying up {}", self.inside("etc/azaion"))))
    }

    fn is_in_order(&self, found: &Found, owner: Owner) -> Result<bool> {
        let Some(folder) = self.open_folder("etc/azaion")? else { return Ok(false) };
        let stat = fstat(&folder).map_err(|e| io_failure(e, self.inside("etc/azaion")))?;
        let has_owner = match owner {
            Owner::Root => (found.uid, found.gid) == (0, 0),
            Owner::Current => found.uid == geteuid().as_raw(),
        };
        Ok(has_owner && found.mode == MODE && has_attributes(&stat, folder_attributes(owner)))
    }

    fn write(&self, conf: &SecretString, owner: Owner) -> Result<()> {
        let folder = self.make_folder(owner)?;
        self.replace(&folder, Attributes { mode: MODE, ..folder_attributes(owner) }, conf.expose_secret().as_bytes())
    }

    fn history(&self) -> Result<Option<Vec<u8>>> {
        let (folder, name) = HISTORY;
        let Some((file, _)) = self.open_in(folder, name, OFlag::O_RDONLY)? else { return Ok(None) };
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
            // Not all of it is known; a password of ours must not stay in its place.
            self.clear()?;
            return Err(Error::TooLarge);
        }
        let folder = self.open_folder("etc/azaion")?.ok_or_else(|| {
            Error::unsuitable_inside(self.inside("etc/azaion"), "is gone, and the file that was in it")
        })?;
        let root = geteuid().is_root();
        let attributes =
            Attributes { mode: before.mode, uid: root.then_some(before.uid), gid: root.then_some(before.gid) };
        self.replace(&folder, attributes, &before.bytes)
    }

    fn clear(&self) -> Result<bool> {
        // Judged first: what is odd stays as it is.
        self.open_file(OFlag::O_WRONLY)?;
        let Some(folder) = self.open_folder("etc/azaion")? else { return Ok(false) };
        erase_all(folder.as_fd(), NAME)
            .map_err(|error| io_failure(error, format!("removing {}", self.inside("etc/azaion/device.conf"))))
    }
}

/// Whether no part of a file may be the newlines by which a run that clears it has begun to overwrite it.
fn is_whole(bytes: &[u8]) -> bool {
    !bytes.is_empty() && !bytes.starts_with(b"\n") && !bytes.windows(2).any(|pair| pair == b"\n\n")
}

fn folder_attributes(owner: Owner) -> Attributes {
    let id = (owner == Owner::Root).then_some(0);
    Attributes { mode: DIRECTORY_MODE, uid: id, gid: id }
}

fn has_attributes(stat: &FileStat, wanted: Attributes) -> bool {
    stat.st_mode & 0o7777 == wanted.mode
        && wanted.uid.is_none_or(|uid| uid == stat.st_uid)
        && wanted.gid.is_none_or(|gid| gid == stat.st_gid)
}
