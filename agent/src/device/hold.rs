//! The hold file: while it exists, the device makes no API call.
//!
//! A login or a refresh ends the aircraft's mission sessions on the server, and the device must not cause traffic in
//! flight.

use std::fs;
use std::io;
use std::path::Path;

use super::paths::Paths;

/// Returns why the device is held, if it is. A file whose existence can't be checked holds the device as well.
pub fn held(paths: &Paths, hold_file: &Path) -> Option<String> {
    match fs::symlink_metadata(paths.under_root(hold_file)) {
        Ok(_) => Some(format!("while {} exists", hold_file.display())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(error) => Some(format!(
            "because the agent cannot check whether {} exists ({error}); let the user azaion-agent search its directory",
            hold_file.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    // Promise: a hold file of any file type holds the device; a missing file or a missing directory does not.
    #[test]
    fn any_file_holds() {
        let root = tempfile::tempdir().unwrap();
        let (paths, file) = (Paths::under(root.path()), Path::new("/run/azaion/in-flight"));
        assert_eq!(held(&paths, file), None);
        fs::create_dir_all(root.path().join("run/azaion")).unwrap();
        assert_eq!(held(&paths, file), None);
        let hold_file = root.path().join("run/azaion/in-flight");
        symlink("/nowhere", &hold_file).unwrap();
        // Below another root a symlink leads where it would on the device: to nothing.
        assert_eq!(held(&paths, file), None);
        fs::remove_file(&hold_file).unwrap();
        fs::create_dir(&hold_file).unwrap();
        assert_eq!(held(&paths, file).as_deref(), Some("while /run/azaion/in-flight exists"));
    }
}
