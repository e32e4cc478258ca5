//! What a missing target is copied from.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use azaion_agent::exit::Exit;
use azaion_agent::private_file::{self, Attributes, Lifetime};
use nix::fcntl::{Flock, FlockArg};
// nix has it for glibc alone.
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::failure::{failure, io_failure};
use crate::target::{self, Kind, Target};

/// Of an image with a password in it, whatever the base's is.
const IMAGE_MODE: u32 = 0o600;

/// A root file system without a device.
#[derive(Debug)]
pub(super) struct Base {
    path: PathBuf,
    kind: Kind,
}

impl Base {
    /// Refuses one with a device in it, and gives an image its slot, so that its copies have one. While the target that
    /// comes with it is held, nobody else provisions it.
    pub(super) fn open(path: &Path, is_dry: bool) -> anyhow::Result<(Self, Box<dyn Target>)> {
        let target = target::open(path)?;
        if let Some(found) = target.look()? {
            let whose = found.conf(path).map_or_else(|_| "somebody".to_owned(), |conf| conf.whose().to_owned());
            let message = format!("the base {} holds the device.conf of {whose}; clear it first", path.display());
            return Err(failure(Exit::Exists, message));
        }
        if !is_dry {
            target.prepare()?;
        }
        Ok((Self { path: path.to_owned(), kind: target.kind() }, target))
    }

    /// Copies it to a place where nothing is yet: whole, or not at all.
    pub(super) fn make(&self, target: &Path) -> anyhow::Result<()> {
        if target.symlink_metadata().is_ok() {
            return Ok(());
        }
        let fail = |error: io::Error| io_failure(error, &format!("making {}", target.display()));
        fs::create_dir_all(folder_of(target)).map_err(fail)?;
        // One copy at a time in a folder: what lies there under the other name was left by a run that was killed.
        let folder = File::open(folder_of(target)).map_err(fail)?;
        let _one_at_a_time = Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| fail(errno.into()))?;
        if target.symlink_metadata().is_ok() {
            return Ok(());
        }
        let staged = beside(target)?;
        remove(&staged).map_err(fail)?;
        self.copy(&staged)?;
        self.copy_sum(target).map_err(fail)?;
        match renameat_with(CWD, &staged, CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => remove(&staged).map_err(fail),
            Err(errno) => Err(fail(errno.into())),
        }
    }

    /// An archive goes with its sum, in which its name stands.
    fn copy_sum(&self, target: &Path) -> io::Result<()> {
        let Ok(sum) = fs::read_to_string(sum_of(&self.path)) else { return Ok(()) };
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sum = match sum.trim_end().strip_suffix(&name(&self.path)) {
            Some(rest) => format!("{rest}{}\n", name(target)),
            None => sum,
        };
        let attributes = Attributes { mode: 0o644, uid: None, gid: None };
        let (folder, to) = (File::open(folder_of(target))?, name(&sum_of(target)));
        private_file::replace(folder.as_fd(), &to, attributes, sum.as_bytes(), Lifetime::ThisBoot)
    }

    /// With all that cp keeps; blocks are shared where the file system can do that.
    fn copy(&self, to: &Path) -> anyhow::Result<()> {
        let copied = Command::new("cp").args(["-a", "--reflink=auto", "-T", "--"]).arg(&self.path).arg(to).output();
        let copied = copied.context("starting cp")?;
        if !copied.status.success() {
            let _ = remove(to);
            let said = String::from_utf8_lossy(&copied.stderr);
            return Err(failure(Exit::Io, format!("copying {}: {}", self.path.display(), said.trim())));
        }
        if self.kind != Kind::Directory {
            fs::set_permissions(to, Permissions::from_mode(IMAGE_MODE))
                .map_err(|error| io_failure(error, &format!("setting the mode of {}", to.display())))?;
        }
        Ok(())
    }
}

/// The file with an image's sum.
fn sum_of(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".sha1sum");
    name.into()
}

fn beside(target: &Path) -> anyhow::Result<PathBuf> {
    let name = target.file_name().context("the target has no name")?.to_string_lossy();
    Ok(target.with_file_name(format!(".{name}.new")))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}
