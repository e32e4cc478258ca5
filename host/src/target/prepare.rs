//! Making the slot, once an image: with debugfs on a copy, which takes the image's place only when all is well.
//!
//! debugfs ends with 0 whatever happens, and its `mkdir` on a folder that is there corrupts the file system. So: what is
//! there is looked at first, nothing is asked for twice, and what came of it is judged by this program and by e2fsck.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{MemfdFlags, memfd_create};

use super::ext4::Found;
use super::image::Image;
use super::sandbox::{self, End, Ended, IMAGE, Program};
use super::slot;
use crate::target::error::{Error, Result, io_failure};

const FOLDER: &str = "/etc/azaion";
const FILE: &str = "/etc/azaion/device.conf";

/// Makes the slot in a raw image, where `found` is what is there; its content is not that of a slot yet.
pub(super) fn make_slot(image: &Image, raw: &File, found: &Found) -> Result<()> {
    let file = requests_file(found).map_err(|error| io_failure(error, "making a file for debugfs' requests"))?;
    let requests = sandbox::name_of(&file);
    let said = sandbox::run(Program::Debugfs, &["-w", "-f", &requests, IMAGE], raw, Some(&file))?;
    drop(file);
    // It says so also of requests that failed.
    if said.end != End::Code(0) {
        return Err(unchecked(image, &said));
    }
    let checked = e2fsck(raw)?;
    match checked.end {
        End::Code(0) => Ok(()),
        End::Code(code) if code & FAULTS != 0 => Err(image.refused(format_args!(
            "was left alone: e2fsck finds faults in a copy of it with our file in it; run `e2fsck -f` on the image and try \
             again, or provision the rootfs directory: {}",
            checked.words
        ))),
        _ => Err(unchecked(image, &checked)),
    }
}

/// Refuses a file system in which e2fsck finds faults: a block of the slot may belong to another file, too, which others may
/// read on the device. `raw` is the image, if everybody may read it, or an unnamed copy.
pub(super) fn check(image: &Image, raw: &File) -> Result<()> {
    let checked = e2fsck(raw)?;
    match checked.end {
        End::Code(0) => Ok(()),
        End::Code(code) if code & FAULTS != 0 => Err(image.refused(format_args!(
            "has a slot, and e2fsck finds faults in it; run `e2fsck -f` on the image and try again, or generate it again: {}",
            checked.words
        ))),
        _ => Err(unchecked(image, &checked)),
    }
}

/// The bit in e2fsck's exit code for faults that it has left as they are (e2fsck(8)).
const FAULTS: i32 = 4;

fn e2fsck(raw: &File) -> Result<Ended> {
    sandbox::run(Program::E2fsck, &["-f", "-n", IMAGE], raw, None)
}

fn unchecked(image: &Image, ended: &Ended) -> Error {
    image.refused(format_args!(
        "was left alone, for it can't be checked: {}; run `e2fsck -f` on it, or provision the rootfs directory",
        ended.failure()
    ))
}

/// The requests, in a file in memory: a run that is killed leaves none of it on a disk. debugfs reads it by its name twice, as its
/// requests and as a block to write.
fn requests_file(found: &Found) -> io::Result<File> {
    let mut file = File::from(memfd_create("azaion-provision", MemfdFlags::CLOEXEC)?);
    file.write_all(requests(found, &sandbox::name_of(&file)).as_bytes())?;
    Ok(file)
}

/// The requests, in a file of one block of this name, which is the content of the new file until the slot is written.
fn requests(found: &Found, name: &str) -> String {
    let mut requests = Vec::new();
    if found.folder.is_none() {
        requests.push(format!("mkdir {FOLDER}"));
    }
    requests.push(format!("cd {FOLDER}"));
    let is_empty = found.file.as_ref().is_some_and(|file| file.block.is_none());
    if is_empty {
        requests.push("rm device.conf".to_owned());
    }
    if is_empty || found.file.is_none() {
        requests.push(format!("write {name} device.conf"));
    }
    // The mode with the type's bits, for debugfs sets all of the field.
    for (path, mode) in [(FOLDER, "040755"), (FILE, "0100600")] {
        requests.extend(
            [("mode", mode), ("uid", "0"), ("gid", "0")].map(|(field, value)| format!("sif {path} {field} {value}")),
        );
    }
    requests.push(format!("sif {FILE} size {}", slot::SIZE));
    // The last line is as long as it takes.
    format!("{:<1$}\n", requests.join("\n"), slot::SIZE - 1)
}
