//! The hold file: while it is there, the device makes no call. A login or a refresh ends the aircraft's mission sessions on the
//! server, and on board there is to be no traffic in flight.

use std::fs;
use std::io;
use std::path::Path;

use super::paths::Paths;

/// Why the device is held, if it is. A file that nobody can look for may be there, so that holds the device, too.
pub fn held(paths: &Paths, hold_file: &Path) -> Option<String> {
    match fs::symlink_metadata(paths.under_root(hold_file)) {
        Ok(_) => Some(format!("while {} is there", hold_file.display())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(error) => Some(format!(
            "because it can't be told whether {} is there ({error}); let the user azaion-agent search its directory",
            hold_file.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    // Promise: a hold file of any kind holds the device, and a missing one does not, nor one whose directory is missing.
    #[test]
    fn any_file_holds() {
        let root = tempfile::tempdir().unwrap();
        let (paths, file) = (Paths::under(root.path()), Path::new("/run/azaion/in-flight"));
        assert_eq!(held(&paths, file), None);
        fs::create_dir_all(root.path().join("run/azaion")).unwrap();
        assert_eq!(held(&paths, file), None);
        let placed = root.path().join("run/azaion/in-flight");
        symlink("/nowhere", &placed).unwrap();
        // Below another root a symlink leads where it would on the device: to nothing.
        assert_eq!(held(&paths, file), None);
        fs::remove_file(&placed).unwrap();
        fs::create_dir(&placed).unwrap();
        assert_eq!(held(&paths, file).as_deref(), Some("while /run/azaion/in-flight is there"));
    }
}
