//! How images are created.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::Path;

use crate::archive;
use crate::bench::{Bench, is_root};
use crate::oracle::{Mounted, run, text};

/// The size of images; creating a file system of this size is fast, and it has space for a journal.
pub(crate) const SIZE: &str = "16M";

/// A change to the tree that an image is made from.
pub(crate) type Tree = fn(&Path) -> anyhow::Result<()>;

/// Nothing.
pub(crate) const PLAIN: Tree = |_| Ok(());

/// Writes a file of a tree, and creates its directories.
#[expect(clippy::disallowed_methods, reason = "the tests' own files")]
pub(crate) fn put(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> anyhow::Result<()> {
    fs::create_dir_all(path.parent().unwrap())?;
    fs::write(path, content)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Sets owner and mode of a file of a tree, as far as the caller may.
pub(crate) fn own(path: &Path, owner: u32, mode: u32) -> anyhow::Result<()> {
    if is_root() {
        chown(path, Some(owner), Some(owner))?;
    }
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// A file made by another tool for the tests' device.
pub(crate) fn small_file(tree: &Path) -> anyhow::Result<()> {
    let text = "AZAION_DEVICE_EMAIL=azaion-jetson-0042@azaion.com\nAZAION_DEVICE_PASSWORD=of-an-earlier-time\n\
                AZAION_API_URL=https://old.example\n";
    put(&tree.join("etc/azaion/device.conf"), text, 0o600)
}

/// Creates a small root file system in a directory of the host.
pub(crate) fn tree(bench: &Bench, change: Tree) -> anyhow::Result<()> {
    let tree = bench.path("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for (name, content, mode) in [
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0o644),
        ("etc/shadow", "root:*::0:::::\n", 0o640),
        ("usr/bin/sudo", "not really\n", 0o4755),
        ("boot/Image", "kernel\n", 0o600),
    ] {
        put(&tree.join(name), content, mode)?;
    }
    put(&tree.join("usr/lib/library"), (0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>(), 0o644)?;
    std::os::unix::fs::symlink("/usr/lib/library", tree.join("usr/lib/link"))?;
    change(&tree)
}

/// Creates a raw ext4 image of the tree, with further options of mke2fs.
pub(crate) fn mkfs(bench: &Bench, image: &Path, options: &str, change: Tree) -> anyhow::Result<()> {
    tree(bench, change)?;
    make(image, &format!("{options} -d {}", text(&bench.path("tree"))))?;
    // Attributes that a tree of an unprivileged user, or on a file system without them, would lack.
    debugfs(image, "ea_set /etc/passwd user.note kept\nea_set /usr/bin/sudo security.note kept, too\n")
}

fn make(image: &Path, options: &str) -> anyhow::Result<()> {
    let fixed = ["-q", "-F", "-b", "4096", "-E", "root_owner=0:0"];
    let kind = if options.contains("-t ") { &[][..] } else { &["-t", "ext4"] };
    let options: Vec<&str> = options.split_whitespace().collect();
    run("mke2fs", &[&fixed[..], kind, &options, &[text(image), SIZE]].concat()).map(drop)
}

/// Creates a raw ext4 image that the kernel fills with the tree, and an `/etc` that is too large for one block.
pub(crate) fn by_the_kernel(bench: &Bench, image: &Path, options: &str) -> anyhow::Result<()> {
    tree(bench, PLAIN)?;
    make(image, options)?;
    let mounted = Mounted::new(image, "rw")?;
    run("cp", &["-a", &format!("{}/.", text(&bench.path("tree"))), text(mounted.path())])?;
    many(&mounted.inside("etc"), 400)
}

/// Creates so many files in a directory, with names so long that they need an index.
pub(crate) fn many(folder: &Path, count: usize) -> anyhow::Result<()> {
    (0..count).try_for_each(|n| put(&folder.join(format!("a-file-with-a-rather-long-name-{n:05}.conf")), "", 0o644))
}

/// Changes an image with debugfs.
pub(crate) fn debugfs(image: &Path, requests: &str) -> anyhow::Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    put(file.path(), requests, 0o600)?;
    run("debugfs", &["-w", "-f", text(file.path()), text(image)]).map(drop)
}

/// Writes bytes into a file.
pub(crate) fn patch(image: &Path, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(OpenOptions::new().write(true).open(image)?.write_all_at(bytes, offset)?)
}

/// Truncates or extends a file.
pub(crate) fn resize(image: &Path, size: u64) -> anyhow::Result<()> {
    Ok(OpenOptions::new().write(true).open(image)?.set_len(size)?)
}

/// The kind of an image, named as in the program's JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Sparse,
    Tar,
    TarZst,
    Ext4Zst,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Ext4, Self::Sparse, Self::Tar, Self::TarZst, Self::Ext4Zst];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Sparse => "sparse",
            Self::Tar => "tar",
            Self::TarZst => "tar.zst",
            Self::Ext4Zst => "ext4.zst",
        }
    }

    /// Returns the name of an image of this kind with this stem; the flasher distinguishes the kinds by name.
    pub(crate) fn named(self, stem: &str) -> String {
        if self == Self::Ext4Zst { format!("{stem}.zst") } else { stem.to_owned() }
    }

    pub(crate) fn is_compressed(self) -> bool {
        matches!(self, Self::TarZst | Self::Ext4Zst)
    }

    /// Creates a usual image of this kind from a tree, named by [`Kind::named`]; beside an archive there is its
    /// checksum file.
    pub(crate) fn make(self, bench: &Bench, image: &Path, change: Tree) -> anyhow::Result<()> {
        match self {
            Self::Ext4 => mkfs(bench, image, "", change),
            Self::Sparse => mkfs(bench, image, "", change).and_then(|()| to_sparse(image)),
            Self::Tar => archive::make(bench, image, change),
            Self::TarZst => {
                archive::make_plain(bench, image, change)?;
                // Through a pipe, as GNU tar does it: no content size in the header.
                compress(image, &image.with_extension("new"), "zstd -q -T0 <\"$1\" >\"$2\"")?;
                fs::rename(image.with_extension("new"), image)?;
                archive::put_sum(image)
            }
            Self::Ext4Zst => mkfs(bench, image, "", change).and_then(|()| to_zstd(image)),
        }
    }
}

/// Compresses a file into another one and removes it.
fn compress(from: &Path, to: &Path, script: &str) -> anyhow::Result<()> {
    run("sh", &["-c", script, "sh", text(from), text(to)]).map(drop)
}

/// Compresses a raw image as the flasher's scripts do; its name then ends in `.zst`.
pub(crate) fn to_zstd(image: &Path) -> anyhow::Result<()> {
    run("zstd", &["-qf", "-T0", "--rm", text(image)]).map(drop)
}

/// Turns a raw image into an Android sparse one.
pub(crate) fn to_sparse(image: &Path) -> anyhow::Result<()> {
    let raw = image.with_extension("raw");
    fs::rename(image, &raw)?;
    run("img2simg", &[text(&raw), text(image)])?;
    Ok(fs::remove_file(raw)?)
}
