use std::fs::{create_dir, read_dir, remove_dir_all};
use std::sync::Mutex;

use crate::common::clock::Timestamp;

use super::*;

#[expect(clippy::disallowed_methods, reason = "files of the test's own")]
fn put(path: PathBuf) {
    fs::write(path, "x").unwrap();
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn open_run_dir(path: &Path) -> Directory {
    Directory::open(path, None, Lifetime::ThisBoot).unwrap()
}

// Promise: the agent's temporary files of killed runs are removed; files and directories of other programs stay, even
// with a name that starts or ends like one of the agent's.
#[test]
fn files_of_other_programs_stay() {
    let dir = tempfile::tempdir().unwrap();
    let other_files = [
        ".in-flight.new",
        ".ready.json.new.d",
        ".token.json.bak.new",
        ".token.json.new.d",
        "agent.lock.old",
        "in-flight",
        "token.json.d",
    ];
    for name in other_files {
        let path = dir.path().join(name);
        if Path::new(name).extension().is_some_and(|end| end == "d") { create_dir(path).unwrap() } else { put(path) }
    }
    for name in THIS_BOOTS_FILES {
        put(dir.path().join(format!(".{name}.new")));
    }
    open_run_dir(dir.path()).remove_leftovers().unwrap();
    assert_eq!(names(dir.path()), other_files);
}

/// A clock of which `sleep` removes the directory and ends the run that holds the lock.
#[derive(Debug)]
struct Vanishing {
    path: PathBuf,
    other_run: Mutex<Option<Flock<OwnedFd>>>,
}

impl Clock for Vanishing {
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix(0)
    }

    fn boot(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) {
        remove_dir_all(&self.path).unwrap();
        drop(self.other_run.lock().unwrap().take());
    }
}

type Action<'a> = &'a dyn Fn(&Directory) -> Result<(), FileError>;

// Promise: a directory that is removed while it is in use is reported as such by every operation; nothing is written
// elsewhere, and opening the directory creates it again.
#[test]
fn a_removed_directory_is_reported_and_created_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("azaion");
    let clock = Vanishing { path: path.clone(), other_run: Mutex::default() };
    let actions: [(&str, Action<'_>); 4] = [
        ("write", &|directory| directory.write("token.json", Readers::Group, &7)),
        ("replace", &|directory| directory.write("ready.json", Readers::All, &7)),
        ("lock", &|directory| directory.lock(Duration::ZERO, &clock).map(drop)),
        ("remove", &|directory| directory.remove("token.json").and_then(|()| directory.remove_leftovers())),
    ];
    for (name, act) in actions {
        let directory = open_run_dir(&path);
        directory.write("ready.json", Readers::All, &7).unwrap();
        remove_dir_all(&path).unwrap();
        match act(&directory) {
            Ok(()) => assert_eq!(name, "remove", "{name} succeeded in a removed directory"),
            Err(error) => assert!(error.is_gone() && error.to_string().contains("creates it again"), "{name}: {error}"),
        }
        assert_eq!(names(dir.path()), [""; 0], "{name}");
    }
}

// Promise: a run that waited for the lock fails if the directory was removed meanwhile.
#[test]
fn a_directory_that_is_removed_while_a_run_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("azaion");
    let clock = Vanishing { path: path.clone(), other_run: Mutex::default() };
    let other_run = open_run_dir(&path).lock(Duration::ZERO, &clock).unwrap();
    *clock.other_run.lock().unwrap() = other_run;
    let error = open_run_dir(&path).lock(Duration::from_secs(1), &clock).map(drop).unwrap_err();
    assert!(error.is_gone(), "{error}");
}
