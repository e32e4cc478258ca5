//! The root file system that all units start from, made once and kept.

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

/// Makes the tree of a release, or finds the one made earlier by the same recipe.
pub(super) fn base(release: Release) -> anyhow::Result<Base> {
    let mut recipe = DefaultHasher::new();
    RECIPE.hash(&mut recipe);
    let cache = target_dir().join("arm64-root");
    fs::create_dir_all(&cache)?;
    let folder = cache.join(format!("{}-{:016x}", release.name(), recipe.finish()));
    // One makes it while others, in this process or another, wait.
    let lock = File::create(cache.join(format!("{}.lock", release.name())))?;
    lock.lock().context("waiting for the one who makes the root file system")?;
    if !folder.exists() {
        // As a file, so that what runs is what was hashed.
        let script = tempfile::NamedTempFile::new()?;
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/arm64-root.sh"), script.path())?;
        output(Command::new("sh").arg(script.path()).arg(release.name()).arg(&folder))?;
    }
    Ok(Base { rootfs: folder.join("rootfs"), kernel: folder.join("vmlinuz") })
}
