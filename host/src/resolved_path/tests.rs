use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use std::os::fd::AsRawFd;

use super::*;

// Promise: a path leads where the kernel says, through symlinks of every kind; what is missing, loops or leads through a file
// is told as the kernel tells it.
#[test]
fn as_the_kernel_resolves() {
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
            (Ok(place), Ok(expected)) => assert_eq!(place.identity(), Some(expected), "{name}"),
            // The last component alone may be missing.
            (Ok(place), Err(error)) => {
                assert!(!place.is_found() && error.kind() == io::ErrorKind::NotFound, "{name}");
            }
            (Err(PathError::Io(error)), Err(expected)) => assert_eq!(error.kind(), expected.kind(), "{name}"),
            (found, expected) => panic!("{name}: {found:?}, not {expected:?}"),
        }
    }
    assert!(ResolvedPath::find(Path::new("/")).unwrap().is_directory());
    assert!(ResolvedPath::find(Path::new(".")).unwrap().is_directory());
    assert!(ResolvedPath::find(Path::new("")).is_err());
}

// Promise: pipes by their number, as a shell's `<(…)` gives them, and devices are found, and not opened.
#[test]
fn what_has_no_path() {
    let (reader, _writer) = io::pipe().unwrap();
    for path in [format!("/proc/self/fd/{}", reader.as_raw_fd()), format!("/dev/fd/{}", reader.as_raw_fd())] {
        let place = ResolvedPath::find(Path::new(&path)).unwrap();
        assert!(place.is_found() && !place.is_file() && !place.is_directory());
    }
    assert!(ResolvedPath::find(Path::new("/dev/null")).is_ok_and(|place| place.is_found() && !place.is_file()));
}

// Promise: what was found is what is opened, whatever has taken its name, or the name of its directory, meanwhile.
#[test]
fn nothing_is_resolved_twice() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    File::create(at("a/b/file")).unwrap();
    let mut place = ResolvedPath::find(&at("a/b/file")).unwrap();
    fs::rename(at("a"), at("moved")).unwrap();
    symlink("/", at("a")).unwrap();
    assert!(place.is_current());
    fs::rename(at("moved/b/file"), at("moved/b/other")).unwrap();
    symlink("/etc/passwd", at("moved/b/file")).unwrap();
    assert!(!place.is_current());
    assert_eq!(place.open(OFlag::O_RDONLY).unwrap().metadata().unwrap().len(), 0);
    assert!(place.refresh().is_err());
    fs::rename(at("moved/b/other"), at("moved/b/file")).unwrap();
    place.refresh().unwrap();
    assert!(place.is_current());
}

// Promise: of a new file, a symlink in its place is not followed; directories on the way are made if that is asked for.
#[test]
fn new_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    symlink("elsewhere", at("link")).unwrap();
    let place = ResolvedPath::find_new_file(&at("link")).unwrap();
    assert!(place.is_found() && place.name() == "link" && !place.is_file());
    assert!(ResolvedPath::find(&at("x/y/z")).is_err());
    let place = ResolvedPath::find_or_create_parents(&at("x/y/z")).unwrap();
    assert!(!place.is_found() && at("x/y").is_dir());
    assert_eq!(at("x/y").metadata().unwrap().permissions().mode() & 0o7022, 0);
    assert_eq!(names_in(&place.listed_directory().unwrap()).unwrap().len(), 0);
}
