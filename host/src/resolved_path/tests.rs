use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use std::os::fd::AsRawFd;

use super::*;

// Promise: a path resolves to the same file as in the kernel, through symlinks of every kind; for a missing component, a loop, or a file
// on the way, the error is the kernel's.
#[test]
fn resolves_like_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    File::create(at("a/b/file")).unwrap();
    for (link, to) in [
        ("absolute", at("a").to_str().unwrap()),
        ("relative", "a/b"),
        ("a/up", ".."),
        ("a/b/file-link", "../b/./file"),
        ("chain", "a/up/relative/file-link"),
        ("loop", "loop"),
        ("nowhere", "a/none"),
    ] {
        symlink(to, at(link)).unwrap();
    }
    for name in [
        "a",
        "a/b",
        "a/b/",
        "a/./b/file",
        "a/../a/b/file",
        "absolute/b/file",
        "relative/file",
        "chain",
        "a/up/absolute/b",
        "relative/file-link",
        "..",
        "none",
        "nowhere",
        "none/file",
        "nowhere/file",
        "loop",
        "a/b/file/under",
    ] {
        let expected = fs::metadata(at(name))
            .map(|m| (std::os::unix::fs::MetadataExt::dev(&m), std::os::unix::fs::MetadataExt::ino(&m)));
        match (ResolvedPath::find(&at(name)), expected) {
            (Ok(resolved), Ok(expected)) => assert_eq!(resolved.identity(), Some(expected), "{name}"),
            // Only the last component may be missing.
            (Ok(resolved), Err(error)) => {
                assert!(!resolved.is_found() && error.kind() == io::ErrorKind::NotFound, "{name}");
            }
            (Err(PathError::Io(error)), Err(expected)) => assert_eq!(error.kind(), expected.kind(), "{name}"),
            (found, expected) => panic!("{name}: {found:?}, not {expected:?}"),
        }
    }
    assert!(ResolvedPath::find(Path::new("/")).unwrap().is_directory());
    assert!(ResolvedPath::find(Path::new(".")).unwrap().is_directory());
    assert!(ResolvedPath::find(Path::new("")).is_err());
}

// Promise: pipes by descriptor number, as a shell's `<(…)` names them, and devices are found without opening them.
#[test]
fn pipes_and_devices() {
    let (reader, _writer) = io::pipe().unwrap();
    for path in [format!("/proc/self/fd/{}", reader.as_raw_fd()), format!("/dev/fd/{}", reader.as_raw_fd())] {
        let resolved = ResolvedPath::find(Path::new(&path)).unwrap();
        assert!(resolved.is_found() && !resolved.is_file() && !resolved.is_directory());
    }
    assert!(
        ResolvedPath::find(Path::new("/dev/null")).is_ok_and(|resolved| resolved.is_found() && !resolved.is_file())
    );
}

// Promise: the resolved file is opened, even if another file has taken its name, or the name of its directory, meanwhile.
#[test]
fn nothing_is_resolved_twice() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    File::create(at("a/b/file")).unwrap();
    let mut resolved = ResolvedPath::find(&at("a/b/file")).unwrap();
    fs::rename(at("a"), at("moved")).unwrap();
    symlink("/", at("a")).unwrap();
    assert!(resolved.is_current());
    fs::rename(at("moved/b/file"), at("moved/b/other")).unwrap();
    symlink("/etc/passwd", at("moved/b/file")).unwrap();
    assert!(!resolved.is_current());
    assert_eq!(resolved.open(OFlag::O_RDONLY).unwrap().metadata().unwrap().len(), 0);
    assert!(resolved.refresh().is_err());
    fs::rename(at("moved/b/other"), at("moved/b/file")).unwrap();
    resolved.refresh().unwrap();
    assert!(resolved.is_current());
}

// Promise: for a new file, a symlink with its name is not followed; directories on the way are created on request.
#[test]
fn new_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    symlink("elsewhere", at("link")).unwrap();
    let resolved = ResolvedPath::find_new_file(&at("link")).unwrap();
    assert!(resolved.is_found() && resolved.name() == "link" && !resolved.is_file());
    assert!(ResolvedPath::find(&at("x/y/z")).is_err());
    let resolved = ResolvedPath::find_or_create_parents(&at("x/y/z")).unwrap();
    assert!(!resolved.is_found() && at("x/y").is_dir());
    assert_eq!(at("x/y").metadata().unwrap().permissions().mode() & 0o7022, 0);
    assert_eq!(names_in(&resolved.listed_directory().unwrap()).unwrap().len(), 0);
}
