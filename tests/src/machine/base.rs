//! The root file system that all devices start from, created once and cached.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::programs::{output, target_dir};

const RECIPE: &str = include_str!("../../scripts/arm64-root.sh");

/// A release of Debian.
#[derive(Clone, Copy, Debug)]
pub enum Release {
    /// 11, with systemd 247.
    Bullseye,
    /// 12, with systemd 252.
    Bookworm,
    /// 13, with systemd 257.
    Trixie,
}

impl Release {
    fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// The tree and its kernel.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) rootfs: PathBuf,
    pub(super) kernel: PathBuf,
}

/// Creates the tree of a release, or returns one created earlier by the same script.
pub(super) fn base(release: Release) -> anyhow::Result<Base> {
    let mut recipe = DefaultHasher::new();
    RECIPE.hash(&mut recipe);
    let cache = target_dir().join("arm64-root");
    fs::create_dir_all(&cache)?;
    let folder = cache.join(format!("{}-{:016x}", release.name(), recipe.finish()));
    // One process or thread creates it while the others wait.
    let lock = File::create(cache.join(format!("{}.lock", release.name())))?;
    lock.lock().context("waiting for another process that creates the root file system")?;
    if !folder.exists() {
        // Written to a file, so that the script that runs is the one that was hashed.
        let script = tempfile::NamedTempFile::new()?;
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/arm64-root.sh"), script.path())?;
        output(Command::new("sh").arg(script.path()).arg(release.name()).arg(&folder))?;
    }
    Ok(Base { rootfs: folder.join("rootfs"), kernel: folder.join("vmlinuz") })
}
