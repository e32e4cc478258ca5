//! The kinds of targets, created and read with independent programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use super::{CONF, Line, said, text};

pub(super) const KINDS: [Kind; 6] = [Kind::Directory, Kind::Raw, Kind::Sparse, Kind::Tar, Kind::TarZst, Kind::Ext4Zst];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Directory,
    Raw,
    Sparse,
    Tar,
    TarZst,
    Ext4Zst,
}

/// The flasher's command to unpack a compressed archive.
const UNPACK_ZSTD: &str =
    "tar --numeric-owner --xattrs '--xattrs-include=*' -x -I 'zstd -T0' -pf \"$1\" -O \"./$2\" >\"$3\"";

impl Kind {
    /// Returns the name of a target of this kind: the flasher treats a name ending in `.zst` as a compressed disk
    /// image.
    pub(super) const fn name(self) -> &'static str {
        if matches!(self, Self::Ext4Zst) { "system.img.zst" } else { "system.img" }
    }

    /// Writes a checksum file beside a target, in the form of NVIDIA's scripts: digits only.
    pub(super) fn put_sum(target: &Path) -> anyhow::Result<()> {
        let script = "sha1sum \"$1\" | cut -c-40 >\"$1.sha1sum\"";
        said("sh", &["-c", script, "sh", &text(target)]).map(drop)
    }

    /// Creates a root file system of this kind from the host's.
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
            Self::TarZst => {
                said("sh", &["-c", "tar -C \"$1\" -cf - . | zstd -q -T0 >\"$2\"", "sh", &tree, &made])?;
                Self::put_sum(to)?;
            }
            Self::Ext4Zst => {
                let raw = format!("{made}.raw");
                make_ext4(&tree, &raw)?;
                said("zstd", &["-q", "-T0", "--rm", &raw, "-o", &made])?;
            }
        }
        Ok(())
    }

    /// Returns the device's file as independent programs read it from the target, which must be valid.
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
            Self::TarZst => {
                sum_is_right(target)?;
                said("sh", &["-c", UNPACK_ZSTD, "sh", &text(target), CONF, &text(&copy)])?;
            }
            Self::Ext4Zst => {
                let raw = line.station.path("read/raw");
                said("zstd", &["-dqf", &text(target), "-o", &text(&raw)])?;
                dump(&raw, &copy)?;
            }
        }
        Ok(copy)
    }
}

/// Checks that the checksum file beside a target holds its checksum, alone or followed by a name.
pub(super) fn sum_is_right(target: &Path) -> anyhow::Result<()> {
    let is = said("sha1sum", &[&text(target)])?;
    let sum = fs::read_to_string(format!("{}.sha1sum", text(target)))?;
    let is_right = sum.lines().map(|line| line.split("  ").next()).eq([is.get(..40)]);
    ensure!(is_right && sum.ends_with('\n'), "{} has {sum}", text(target));
    Ok(())
}

fn make_ext4(tree: &str, image: &str) -> anyhow::Result<()> {
    said("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", "root_owner=0:0", "-d", tree, image, "16M"]).map(drop)
}

fn dump(image: &Path, to: &Path) -> anyhow::Result<()> {
    said("e2fsck", &["-f", "-n", &text(image)])?;
    said("debugfs", &["-R", &format!("dump /{CONF} {}", text(to)), &text(image)]).map(drop)
}
