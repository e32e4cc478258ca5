//! Opens a directory below a root, as the device will see it: no symlink leads out of it.
//!
//! The kernel does it (openat2(2), `RESOLVE_IN_ROOT`, Linux 5.6). Containers whose seccomp profile is older refuse that call, with
//! `EPERM`; there, and on older kernels, this program goes component by component.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use azaion_agent::common::private_file::kind_of;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};

/// As many symlinks as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
const COMPONENT: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens the directory at a path below `root`.
///
/// # Errors
/// A component is missing or is no directory, or there are too many symlinks.
pub(super) fn open_in_root(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    match by_kernel(root, path) {
        // The kernel never says so for a directory that is opened to be read: a filter does.
        Err(Errno::EPERM | Errno::ENOSYS) => by_component(root, path),
        opened => opened,
    }
}

fn by_kernel(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(root, path, OpenHow::new().flags(DIRECTORY).resolve(resolve))
}

/// Each directory is opened in the one before, and none by a path. `..` leads to where this came from, so what others rename
/// meanwhile does not lead out of the root either.
fn by_component(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let (mut above, mut left, mut links) = (Vec::<OwnedFd>::new(), VecDeque::new(), 0);
    go_to(path, &mut above, &mut left);
    while let Some(name) = left.pop_front() {
        let here = above.last().map_or(root, AsFd::as_fd);
        if name == ".." {
            above.pop();
            continue;
        }
        let found = openat(here, name.as_os_str(), COMPONENT, Mode::empty())?;
        match kind_of(&fstat(&found)?) {
            SFlag::S_IFDIR => above.push(found),
            SFlag::S_IFLNK => {
                links += 1;
                // Those of /proc may lead anywhere.
                if links > MOST_LINKS || fstatfs(&found).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC) {
                    return Err(Errno::ELOOP);
                }
                go_to(Path::new(&readlinkat(&found, "")?), &mut above, &mut left);
            }
            _ => return Err(Errno::ENOTDIR),
        }
    }
    openat(above.last().map_or(root, AsFd::as_fd), ".", DIRECTORY, Mode::empty())
}

/// Puts a path before what is left; an absolute one starts at the root.
fn go_to(path: &Path, above: &mut Vec<OwnedFd>, left: &mut VecDeque<OsString>) {
    for component in path.components().rev() {
        match component {
            Component::RootDir => above.clear(),
            Component::Prefix(_) | Component::CurDir => {}
            Component::ParentDir | Component::Normal(_) => left.push_front(component.as_os_str().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};

    use proptest::prelude::*;

    use super::*;

    /// Device and inode of what is opened, or the error.
    fn outcome(opened: Result<OwnedFd, Errno>) -> Result<(u64, u64), Errno> {
        opened.map(|opened| {
            let metadata = File::from(opened).metadata().unwrap();
            (metadata.dev(), metadata.ino())
        })
    }

    /// Paths of names that are there, for the most part, of `..` and of `/`.
    fn paths() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec!["a", "b", "c", "d", "..", ".", "a/b", "file", "missing", ""]);
        (prop::bool::ANY, prop::collection::vec(name, 1..6))
            .prop_map(|(is_absolute, names)| if is_absolute { "/" } else { "" }.to_owned() + &names.join("/"))
            .prop_filter("a symlink to nothing", |path| !path.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        // Promise: with any symlinks in a tree, going by components ends where the kernel does, and never outside of the root.
        #[test]
        fn both_ways_end_at_the_same_directory(
            links in prop::collection::vec((paths(), paths()), 0..8),
            wanted in prop::collection::vec(paths(), 1..8),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            for directory in ["root/a/b/c", "root/b", "root/d/a", "a", "b", "c"] {
                fs::create_dir_all(dir.path().join(directory)).unwrap();
            }
            File::create(root.join("a/file")).unwrap();
            for (at, to) in &links {
                let at = at.trim_start_matches('/');
                // By the kernel's own idea of the tree, so that none is made outside of it.
                let parent = Path::new(at).parent().unwrap_or(Path::new(""));
                let name = Path::new(at).file_name();
                let root = File::open(&root).unwrap();
                if let (Ok(parent), Some(name)) = (by_kernel(root.as_fd(), &Path::new(".").join(parent)), name) {
                    let _ = nix::unistd::symlinkat(to.as_str(), parent, name);
                }
            }
            symlink("loop", root.join("loop")).unwrap();
            let root = File::open(&root).unwrap();
            for path in wanted.iter().map(String::as_str).chain(["loop", "a/loop/../loop", "/", "../.."]) {
                let [kernel, own] = [by_kernel, by_component].map(|open| outcome(open(root.as_fd(), Path::new(path))));
                prop_assert_eq!(kernel, own, "{} with {:?}", path, links);
            }
        }
    }

    // Promise: as many symlinks are followed as the kernel follows, and none of /proc.
    #[test]
    fn limits() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("0")).unwrap();
        for number in 1..=41 {
            symlink((number - 1).to_string(), dir.path().join(number.to_string())).unwrap();
        }
        let root = File::open(dir.path()).unwrap();
        for number in [0, 1, 39, 40, 41] {
            let path = number.to_string();
            let [kernel, own] = [by_kernel, by_component].map(|open| outcome(open(root.as_fd(), Path::new(&path))));
            assert_eq!(kernel, own, "{number}");
        }
        let proc = File::open("/proc/self").unwrap();
        assert_eq!(by_component(proc.as_fd(), Path::new("root")).unwrap_err(), Errno::ELOOP);
        assert_eq!(by_kernel(proc.as_fd(), Path::new("root")).unwrap_err(), Errno::ELOOP);
    }
}
