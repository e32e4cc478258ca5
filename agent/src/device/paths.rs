//! The paths of all files on the device, below `/` or below another root.

use std::ffi::OsString;
use std::fs::read_link;
use std::path::{Component, Path, PathBuf};

use crate::common::device_conf;

/// The token cache, in `/run/azaion`.
pub(super) const TOKEN_FILE: &str = "token.json";
/// The refresh token, in `/run/azaion`.
pub(super) const REFRESH_FILE: &str = "refresh.json";
/// Whether the device is ready, in `/run/azaion`.
pub(super) const READY_FILE: &str = "ready.json";
/// When the next login may be tried, in `/run/azaion`.
pub(super) const BACKOFF_FILE: &str = "backoff.json";
/// The state that is kept across boots, in `/var/lib/azaion`.
pub(super) const FIRST_BOOT_FILE: &str = "first-boot.json";
/// The last changes of state, in `/var/lib/azaion`.
pub(super) const HISTORY_FILE: &str = "history.json";

/// The maximum number of symlinks in one path. More are taken for a loop.
const MAX_LINKS: usize = 255;

/// The root directory of all paths of the agent.
///
/// Below another root than `/`, symlinks resolve as they do on the device: an absolute one starts at the root, and none
/// leads out of it. Each call resolves its path again, so this protects against no process that changes the tree
/// meanwhile.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Returns the paths below `root`, which is `/` on a device.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Resolves an absolute path below the root.
    pub fn under_root(&self, path: &Path) -> PathBuf {
        self.resolve(path, Last::Followed)
    }

    /// `/etc/azaion/device.conf`. A symlink of this name is not followed, so that opening the file refuses it.
    pub fn device_conf(&self) -> PathBuf {
        self.resolve(Path::new(device_conf::PATH), Last::Kept)
    }

    /// `/etc/azaion/agent.toml`.
    pub fn settings(&self) -> PathBuf {
        self.under_root(Path::new(SETTINGS))
    }

    /// Returns whether `agent.toml` exists, even as a dangling symlink.
    pub fn has_settings(&self) -> bool {
        self.resolve(Path::new(SETTINGS), Last::Kept).symlink_metadata().is_ok()
    }

    /// `/run/azaion`, which does not survive a reboot.
    pub fn run_dir(&self) -> PathBuf {
        self.under_root(Path::new("run/azaion"))
    }

    /// `/var/lib/azaion`, which is kept across boots.
    pub fn state_dir(&self) -> PathBuf {
        self.under_root(Path::new("var/lib/azaion"))
    }

    /// The two files with the module's serial number: in `/proc/device-tree`, the documented path, and in the directory
    /// that it links to, for a sandbox that leaves only processes in `/proc` (`ProcSubset=pid`).
    pub fn module_serial(&self) -> [PathBuf; 2] {
        ["proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number"]
            .map(|file| self.under_root(Path::new(file)))
    }

    /// `/etc/group`.
    pub fn group(&self) -> PathBuf {
        self.under_root(Path::new("etc/group"))
    }

    /// Resolves a path below the root. If the root is not `/`, the result has no symlink in it; `last` decides whether
    /// that includes the last part.
    fn resolve(&self, path: &Path, last: Last) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap_or(path);
        if self.root == Path::new("/") {
            return self.root.join(inside);
        }
        let mut found = PathBuf::new();
        let mut links = 0;
        let mut rest = parts(inside);
        while let Some(part) = rest.pop() {
            if part == ".." {
                // The parent of the root is the root itself.
                found.pop();
                continue;
            }
            let is_followed = last == Last::Followed || !rest.is_empty();
            match read_link(self.root.join(&found).join(&part)) {
                Ok(_) if links == MAX_LINKS => return self.root.join(LOOP),
                Ok(target) if is_followed => {
                    links += 1;
                    if target.is_absolute() {
                        found.clear();
                    }
                    rest.extend(parts(&target));
                }
                _ => found.push(part),
            }
        }
        self.root.join(found)
    }
}

const SETTINGS: &str = "etc/azaion/agent.toml";
/// No file can have this name.
const LOOP: &str = "(a symlink that leads to itself)\0";

/// What to do with a symlink in the last part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Followed,
    Kept,
}

/// Returns the parts of a path in reverse order.
fn parts(path: &Path) -> Vec<OsString> {
    let is_part = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_part).map(|part| part.as_os_str().to_owned()).rev().collect()
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;
    use std::os::unix::fs::symlink;

    use super::*;

    // Promise: below another root no symlink leads out of it, and each resolves as it does on the device.
    #[test]
    fn symlinks_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        create_dir_all(outside.join("azaion")).unwrap();
        create_dir_all(root.join("data/run")).unwrap();
        let absolute = outside.display().to_string();
        let up = format!("{}/{}", "../".repeat(20), outside.display());
        for (target, expected) in [
            ("/data/run", "data/run/azaion"),
            ("data/run", "data/run/azaion"),
            ("/data/../data/./run", "data/run/azaion"),
            ("../../../data/run", "data/run/azaion"),
            ("/nowhere", "nowhere/azaion"),
            ("/", "azaion"),
            (&absolute, &format!("{absolute}/azaion")[1..]),
            (&up, &format!("{absolute}/azaion")[1..]),
        ] {
            symlink(target, root.join("run")).unwrap();
            assert_eq!(Paths::under(&root).run_dir(), root.join(expected), "{target}");
            std::fs::remove_file(root.join("run")).unwrap();
        }
        // A symlink in the last part is resolved as well, except for device.conf, whose symlink has to be detected.
        create_dir_all(root.join("etc/azaion")).unwrap();
        for name in ["agent.toml", "device.conf"] {
            symlink("/data/file", root.join("etc/azaion").join(name)).unwrap();
        }
        let paths = Paths::under(&root);
        assert_eq!(paths.settings(), root.join("data/file"));
        assert_eq!(paths.device_conf(), root.join("etc/azaion/device.conf"));
        assert!(paths.has_settings() && !paths.settings().exists());
    }

    // Promise: a symlink that leads to itself is an error in every path.
    #[test]
    fn loops_end() {
        let root = tempfile::tempdir().unwrap();
        symlink("/run", root.path().join("run")).unwrap();
        let run_dir = Paths::under(root.path()).run_dir();
        assert!(!run_dir.exists() && create_dir_all(run_dir).is_err());
    }

    // Promise: below `/` paths are not changed.
    #[test]
    fn paths_below_slash_are_not_changed() {
        let paths = Paths::under(Path::new("/"));
        assert_eq!(paths.run_dir(), Path::new("/run/azaion"));
        assert_eq!(paths.under_root(Path::new("/etc/azaion/ca.pem")), Path::new("/etc/azaion/ca.pem"));
    }
}
