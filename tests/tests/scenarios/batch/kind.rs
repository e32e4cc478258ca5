//! The kinds of targets, made and read with the programs of others.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CONF, Line, said, text};

pub(super) const KINDS: [Kind; 4] = [Kind::Directory, Kind::Raw, Kind::Sparse, Kind::Tar];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Directory,
    Raw,
    Sparse,
    Tar,
}

impl Kind {
    /// A root file system of this kind, made from the station's.
    pub(super) fn make(self, line: &Line, to: &Path) -> anyhow::Result<()> {
        let (tree, made) = (text(&line.station.rootfs()), text(to));
        fs::create_dir_all(to.parent().unwrap())?;
        match self {
            Self::Directory => drop(said("cp", &["-a", &tree, &made])?),
            Self::Raw => make_ext4(&tree, &made)?,
            Self::Sparse => {
                let raw = format!("{made}.raw");
                make_ext4(&tree, &raw)?;
                said("img2simg", &[&raw, &made])?;
                fs::remove_file(raw)?;
            }
            Self::Tar => {
                said("tar", &["-C", &tree, "--numeric-owner", "-cf", &made, "."])?;
                let name = to.file_name().unwrap().to_string_lossy().into_owned();
                let script = format!("cd '{}' && sha1sum {name} >{name}.sha1sum", text(to.parent().unwrap()));
                said("sh", &["-c", &script])?;
            }
        }
        Ok(())
    }

    /// The unit's file, as others read it out of the target, which has to be in order.
    pub(super) fn conf(self, line: &Line, target: &Path) -> anyhow::Result<PathBuf> {
        let copy = line.station.path("read/device.conf");
        fs::create_dir_all(copy.parent().unwrap())?;
        match self {
            Self::Directory => return Ok(target.join(CONF)),
            Self::Raw => dump(target, &copy)?,
            Self::Sparse => {
                let raw = line.station.path("read/raw");
                said("simg2img", &[&text(target), &text(&raw)])?;
                dump(&raw, &copy)?;
            }
            Self::Tar => {
                let (folder, name) = (text(target.parent().unwrap()), target.file_name().unwrap().to_string_lossy());
                said("sh", &["-c", &format!("cd '{folder}' && sha1sum -c '{name}.sha1sum'")])?;
                let script = format!("tar -xOf '{}' ./{CONF} >'{}'", text(target), text(&copy));
                said("sh", &["-c", &script])?;
            }
        }
        Ok(copy)
    }
}

fn make_ext4(tree: &str, image: &str) -> anyhow::Result<()> {
    said("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", "root_owner=0:0", "-d", tree, image, "16M"]).map(drop)
}

fn dump(image: &Path, to: &Path) -> anyhow::Result<()> {
    said("e2fsck", &["-f", "-n", &text(image)])?;
    said("debugfs", &["-R", &format!("dump /{CONF} {}", text(to)), &text(image)]).map(drop)
}
