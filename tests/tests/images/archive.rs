//! Tar archives as found in `images/` of the initrd flow: GNU tar packs and unpacks them, sha1sum computes the
//! checksum.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use tempfile::TempDir;

use crate::bench::{Bench, is_root};
use crate::oracle::{output, run, text};
use crate::recipe::{self, Tree, own, put};

const CONF: &str = "etc/azaion/device.conf";
const FOLDER: &str = "etc/azaion";

/// Prints everything in a tree but the device's file and its directory, in a fixed order.
const ALL_ELSE: &str = "cd \"$1\" && shift && find . ! -path ./etc/azaion ! -path ./etc/azaion/device.conf -print0 | \
                        LC_ALL=C sort -z | tar --no-recursion --numeric-owner --mtime=@0 \"$@\" -c --null -T -";
/// Prints the modification times in it, in seconds, without those of the directories in which we create entries.
const TIMES: &str = "cd \"$1\" && find . ! -path . ! -path ./etc ! -path './etc/azaion' ! -path ./etc/azaion/device.conf \
                     -exec stat -c '%Y %n' '{}' + | LC_ALL=C sort -k2";
/// The flasher's command to unpack a compressed archive.
const UNPACK_ZSTD: &str = "cd \"$1\" && tar --numeric-owner --xattrs '--xattrs-include=*' -x -I 'zstd -T0' -pf \"$2\"";
/// Fixes what would differ from run to run, and packs extended attributes.
const WITH_ATTRIBUTES: [&str; 3] =
    ["--xattrs", "--xattrs-include=*", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"];

/// Sets extended attributes on a file: only user attributes if others are not permitted, and none if not supported.
const ATTRIBUTES: &str = "import errno, os, sys
for name, value in ((\"user.note\", b\"kept\\n12 path=etc\\n\\xff\"), (\"security.note\", b\"kept, too\")):
    try:
        os.setxattr(sys.argv[1], name, value)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
";

/// Returns whether a file is an archive of GNU tar or of POSIX.
pub(crate) fn is_tar(file: &Path) -> anyhow::Result<bool> {
    Ok(fs::read(file)?.get(257..).is_some_and(|bytes| bytes.starts_with(b"ustar")))
}

/// Returns whether a file is a compressed archive: zstd, and not named as a compressed disk image, which is the
/// flasher's criterion.
pub(crate) fn is_tar_zst(file: &Path) -> anyhow::Result<bool> {
    Ok(is_zstd(file)? && file.extension().is_none_or(|extension| extension != "zst"))
}

/// Returns whether a file starts with a zstd frame or a skippable frame.
pub(crate) fn is_zstd(file: &Path) -> anyhow::Result<bool> {
    let start = fs::read(file)?.first_chunk().map(|&magic| u32::from_le_bytes(magic)).unwrap_or_default();
    Ok(start == 0xFD2F_B528 || start & !0xF == 0x184D_2A50)
}

/// Adds what a root file system has besides regular files, in small.
pub(crate) fn rich(tree: &Path) -> anyhow::Result<()> {
    let long = "a-rather-long-name-".repeat(5);
    put(&tree.join(format!("usr/{long}/{long}/file")), "x", 0o640)?;
    own(&tree.join("usr/bin/sudo"), 0, 0o4755)?;
    run("python3", &["-c", ATTRIBUTES, text(&tree.join("usr/bin/sudo"))])?;
    fs::hard_link(tree.join("usr/bin/sudo"), tree.join("usr/bin/sudoedit"))?;
    put(&tree.join("usr/home/of-somebody"), "hers\n", 0o600)?;
    own(&tree.join("usr/home"), 1000, 0o2770)?;
    own(&tree.join("usr/home/of-somebody"), 1001, 0o600)?;
    run("mkfifo", &["-m", "0620", text(&tree.join("etc/fifo"))])?;
    put(&tree.join("usr/sparse"), "before a hole", 0o644)?;
    OpenOptions::new().write(true).open(tree.join("usr/sparse"))?.write_all_at(b"behind it", 1 << 20)?;
    if is_root() {
        run("mknod", &["-m", "0660", text(&tree.join("usr/null")), "c", "1", "3"])?;
    }
    Ok(())
}

/// Packs the tree; the options come first and the names last.
pub(crate) fn pack(bench: &Bench, archive: &Path, options: &[&str]) -> anyhow::Result<()> {
    let tree = bench.path("tree");
    let fixed = ["--numeric-owner", "-cpf", text(archive), "-C", text(&tree)];
    run("tar", &[&fixed[..], options].concat()).map(drop)
}

/// Creates an archive of a tree with its checksum, as NVIDIA's scripts leave them.
pub(crate) fn make(bench: &Bench, archive: &Path, change: Tree) -> anyhow::Result<()> {
    make_plain(bench, archive, change)?;
    put_sum(archive)
}

/// The same without the checksum.
pub(crate) fn make_plain(bench: &Bench, archive: &Path, change: Tree) -> anyhow::Result<()> {
    recipe::tree(bench, change)?;
    pack(bench, archive, &["--xattrs", "."])
}

/// Returns the path of an image's checksum file.
pub(crate) fn sum_file(image: &Path) -> PathBuf {
    format!("{}.sha1sum", text(image)).into()
}

/// Returns the checksum of an image.
pub(crate) fn sum_of(image: &Path) -> anyhow::Result<String> {
    Ok(run("sha1sum", &["--", text(image)])?.chars().take(40).collect())
}

/// Writes the checksum beside an image; for a compressed one in the form of the scripts that create these, which is
/// digits only.
pub(crate) fn put_sum(image: &Path) -> anyhow::Result<()> {
    let name = image.file_name().unwrap().to_string_lossy();
    let name = if is_zstd(image)? { String::new() } else { format!("  {name}") };
    put(&sum_file(image), format!("{}{name}\n", sum_of(image)?), 0o644)
}

/// Checks that the checksum beside an image is correct, if there is one.
pub(crate) fn sum_is_right(image: &Path) -> anyhow::Result<()> {
    let Ok(sum) = fs::read_to_string(sum_file(image)) else { return Ok(()) };
    ensure!(sum.contains(&sum_of(image)?), "{} is wrong: {sum}", sum_file(image).display());
    Ok(())
}

/// An archive as unpacked on the device.
#[derive(Debug)]
pub(crate) struct Unpacked(TempDir);

impl Unpacked {
    /// Unpacks it as the flasher does, without any warning.
    pub(crate) fn new(archive: &Path) -> anyhow::Result<Self> {
        Self::with(archive, &[])
    }

    /// With further options.
    pub(crate) fn with(archive: &Path, options: &[&str]) -> anyhow::Result<Self> {
        if is_zstd(archive)? {
            return Self::compressed(archive);
        }
        let folder = tempfile::tempdir()?;
        let fixed = ["--numeric-owner", "--xattrs", "-xpf", text(archive), "-C", text(folder.path())];
        let said = output("tar", &[&fixed[..], options].concat())?;
        let words = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success() && words.is_empty(), "tar: {} {words}", said.status);
        Ok(Self(folder))
    }

    /// Unpacks a compressed archive with the flasher's commands.
    fn compressed(archive: &Path) -> anyhow::Result<Self> {
        run("zstd", &["-tq", text(archive)])?;
        let kind = run("file", &["-b", text(archive)])?;
        ensure!(kind.contains("Zstandard compressed"), "file: {kind}");
        let folder = tempfile::tempdir()?;
        let said = output("sh", &["-c", UNPACK_ZSTD, "sh", text(folder.path()), text(archive)])?;
        let words = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success() && words.is_empty(), "tar: {} {words}", said.status);
        Ok(Self(folder))
    }

    /// Returns the content of the device's file, or an empty string.
    pub(crate) fn content(&self) -> String {
        fs::read_to_string(self.0.path().join(CONF)).unwrap_or_default()
    }

    /// Checks that file and directory have the modes and owners of the contract.
    pub(crate) fn is_private(&self) -> anyhow::Result<()> {
        for (name, mode) in [(CONF, 0o100_600), (FOLDER, 0o040_755)] {
            let is = self.0.path().join(name).symlink_metadata()?;
            ensure!(is.mode() == mode, "{name}: {:o}", is.mode());
            ensure!(!is_root() || (is.uid(), is.gid()) == (0, 0), "{name}: {}:{}", is.uid(), is.gid());
        }
        Ok(())
    }
}

/// Returns everything in an archive but the device's file and its directory: contents, modes, owners, times, links, and
/// attributes if requested.
pub(crate) fn all_else(archive: &Path, attributes: bool) -> anyhow::Result<Vec<u8>> {
    let unpacked = Unpacked::with(archive, &["--xattrs-include=*"])?;
    all_else_in(unpacked.0.path(), attributes)
}

/// The same for a tree.
pub(crate) fn all_else_in(tree: &Path, attributes: bool) -> anyhow::Result<Vec<u8>> {
    let options = if attributes { &WITH_ATTRIBUTES[..] } else { &[] };
    let packed = output("sh", &[&["-c", ALL_ELSE, "sh", text(tree)], options].concat())?;
    ensure!(packed.status.success() && packed.stdout.len() > 800_000, "{}", String::from_utf8_lossy(&packed.stderr));
    let times = run("sh", &["-c", TIMES, "sh", text(tree)])?;
    Ok([packed.stdout, times.into_bytes()].concat())
}
