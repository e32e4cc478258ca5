//! Checks an image that already has a slot when this program sees it for the first time: the slot's block may belong to another file
//! of the image as well, which others may read on the device.
//!
//! That it was checked is recorded in an extended attribute of the image file, for the file as it is: each change of its content
//! changes its time. Lost with a copy, or on a file system without such attributes, it costs a check, nothing else. It proves
//! nothing against the owner of the file, who may write attributes and the image.

use crate::target::error::Result;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

const NAME: &str = "user.azaion.checked";

/// What the attribute says of a checked file.
fn value(file: &File) -> io::Result<String> {
    let metadata = file.metadata()?;
    let (ino, size) = (metadata.ino(), metadata.size());
    Ok(format!("1 ino={ino} size={size} mtime={}.{:09}", metadata.mtime(), metadata.mtime_nsec()))
}

/// Records that a file was checked, or made by this program, and is as it is. Not durable: to lose it costs another check.
fn record(file: &File) {
    let recorded = value(file).and_then(|value| Ok(fsetxattr(file, NAME, value.as_bytes(), XattrFlags::empty())?));
    if let Err(error) = recorded {
        log::debug!("that the image is checked can't be recorded: {error}");
    }
}

/// Records a copy, if the file that it was made from is recorded.
pub(crate) fn record_copy(from: &File, copy: &File) {
    if is_recorded(from) {
        record(copy);
    }
}

fn is_recorded(file: &File) -> bool {
    let mut there = [0; 128];
    let Ok(value) = value(file) else { return false };
    fgetxattr(file, NAME, &mut there).is_ok_and(|length| there.get(..length) == Some(value.as_bytes()))
}

/// Whether this run knows an image to be checked.
#[derive(Debug, Default)]
pub(super) struct FirstCheck(Cell<bool>);

impl FirstCheck {
    /// Whether a file was checked as it is. To be asked before it is changed, too: see [`FirstCheck::changed`].
    pub(super) fn is_checked(&self, file: &File) -> bool {
        if !self.0.get() {
            self.0.set(is_recorded(file));
        }
        self.0.get()
    }

    /// Checks a file, unless it was checked as it is.
    ///
    /// # Errors
    /// That of the check.
    pub(super) fn check(&self, file: &File, check: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.is_checked(file) {
            check()?;
            self.made(file);
        }
        Ok(())
    }

    /// Records a file that is checked now, or was made by this run.
    pub(super) fn made(&self, file: &File) {
        self.0.set(true);
        record(file);
    }

    /// Records a change by this run, if the file was known to be checked before it.
    pub(super) fn changed(&self, file: &File) {
        if self.0.get() {
            record(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Whether a file is checked, and how often that was done so far.
    fn check(sight: &FirstCheck, file: &File, times: &Cell<u32>) {
        let count = || {
            times.set(times.get() + 1);
            Ok(())
        };
        sight.check(file, count).unwrap();
    }

    // Promise: a file is checked once; again, when others have changed it, and not after a change of ours.
    #[test]
    fn once() {
        let (file, times) = (tempfile::tempfile().unwrap(), Cell::new(0));
        let read_conf = || {
            let sight = FirstCheck::default();
            check(&sight, &file, &times);
            check(&sight, &file, &times);
            sight
        };
        read_conf();
        assert_eq!(times.get(), 1);
        if !is_recorded(&file) {
            // No such attributes here.
            return;
        }
        // A run that only changes it.
        let sight = FirstCheck::default();
        assert!(sight.is_checked(&file));
        file.write_all_at(b"ours", 0).unwrap();
        sight.changed(&file);
        read_conf();
        assert_eq!(times.get(), 1);
        file.write_all_at(b"of others", 0).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        read_conf();
        assert_eq!(times.get(), 2);
    }

    // Promise: a refused file stays unchecked.
    #[test]
    fn refused() {
        let (file, sight) = (tempfile::tempfile().unwrap(), FirstCheck::default());
        assert!(sight.check(&file, || Err(crate::target::Error::TooLarge)).is_err());
        assert!(!sight.is_checked(&file));
        sight.changed(&file);
        assert!(!is_recorded(&file));
        assert!(sight.check(&file, || Err(crate::target::Error::TooLarge)).is_err());
    }
}
