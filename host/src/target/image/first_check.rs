//! Checks an image once that already has a slot when this program first opens it: the slot's block may also belong to
//! another file of the image, which other users may read on the device.
//!
//! An extended attribute of the image file records the check for the current state of the file: each change of the
//! content changes the modification time. If the attribute is lost, in a copy or on a file system without such
//! attributes, the image is checked again. It proves nothing against the owner of the file, who may write both the
//! attribute and the image.

use crate::target::error::Result;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

const NAME: &str = "user.azaion.checked";

/// Returns the value of the attribute for a file that is checked as it is now.
fn value(file: &File) -> io::Result<String> {
    let metadata = file.metadata()?;
    let (ino, size) = (metadata.ino(), metadata.size());
    Ok(format!("1 ino={ino} size={size} mtime={}.{:09}", metadata.mtime(), metadata.mtime_nsec()))
}

/// Records that a file in its current state is checked, or was made by this program. Not durable: if it is lost, the
/// file is checked again.
fn record(file: &File) {
    let recorded = value(file).and_then(|value| Ok(fsetxattr(file, NAME, value.as_bytes(), XattrFlags::empty())?));
    if let Err(error) = recorded {
        log::debug!("cannot record that the image is checked: {error}");
    }
}

/// Records a copy as checked, if its original is recorded as checked.
pub(crate) fn record_copy(from: &File, copy: &File) {
    if is_recorded(from) {
        record(copy);
    }
}

fn is_recorded(file: &File) -> bool {
    let mut buffer = [0; 128];
    let Ok(value) = value(file) else { return false };
    fgetxattr(file, NAME, &mut buffer).is_ok_and(|length| buffer.get(..length) == Some(value.as_bytes()))
}

/// Whether an image is known to be checked in this run.
#[derive(Debug, Default)]
pub(super) struct FirstCheck(Cell<bool>);

impl FirstCheck {
    /// Returns whether a file in its current state is checked. Call it also before a change: see
    /// [`FirstCheck::changed`].
    pub(super) fn is_checked(&self, file: &File) -> bool {
        if !self.0.get() {
            self.0.set(is_recorded(file));
        }
        self.0.get()
    }

    /// Checks a file, unless it is checked in its current state.
    ///
    /// # Errors
    /// The error of the check.
    pub(super) fn check(&self, file: &File, check: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.is_checked(file) {
            check()?;
            self.made(file);
        }
        Ok(())
    }

    /// Records a file that was just checked, or made by this run.
    pub(super) fn made(&self, file: &File) {
        self.0.set(true);
        record(file);
    }

    /// Records a file after a change by this run, if it was checked before the change.
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

    /// Checks a file and counts the checks.
    fn check(first_check: &FirstCheck, file: &File, times: &Cell<u32>) {
        let count = || {
            times.set(times.get() + 1);
            Ok(())
        };
        first_check.check(file, count).unwrap();
    }

    // Promise: a file is checked once, and again after a change by another program, but not after a change by this one.
    #[test]
    fn checked_once() {
        let (file, times) = (tempfile::tempfile().unwrap(), Cell::new(0));
        let read_conf = || {
            let first_check = FirstCheck::default();
            check(&first_check, &file, &times);
            check(&first_check, &file, &times);
            first_check
        };
        read_conf();
        assert_eq!(times.get(), 1);
        if !is_recorded(&file) {
            // This file system has no such attributes.
            return;
        }
        // A run that changes the file without a check.
        let first_check = FirstCheck::default();
        assert!(first_check.is_checked(&file));
        file.write_all_at(b"ours", 0).unwrap();
        first_check.changed(&file);
        read_conf();
        assert_eq!(times.get(), 1);
        file.write_all_at(b"of others", 0).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        read_conf();
        assert_eq!(times.get(), 2);
    }

    // Promise: a file that the check refuses stays unchecked.
    #[test]
    fn refused_file_stays_unchecked() {
        let (file, first_check) = (tempfile::tempfile().unwrap(), FirstCheck::default());
        assert!(first_check.check(&file, || Err(crate::target::Error::TooLarge)).is_err());
        assert!(!first_check.is_checked(&file));
        first_check.changed(&file);
        assert!(!is_recorded(&file));
        assert!(first_check.check(&file, || Err(crate::target::Error::TooLarge)).is_err());
    }
}
