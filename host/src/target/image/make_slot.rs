//! Making the slot, once an image: with debugfs on a copy, which takes the image's place only when all is well.
//!
//! debugfs ends with 0 whatever happens, and its `mkdir` on a folder that is there corrupts the file system. So: what is
//! there is looked at first, nothing is asked for twice, and what came of it is judged by this program and by e2fsck.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{MemfdFlags, memfd_create};

use super::ext4::Found;
use super::sandbox::{self, End, Ended, IMAGE, Program};
use super::slot;
use crate::target::error::{Error, Result, io_failure};
use crate::target::image::file::Image;

const FOLDER: &str = "/etc/azaion";
const FILE: &str = "/etc/azaion/device.conf";
const ACCESS_LISTS: [&str; 3] = ["posix_acl_access", "posix_acl_default", "richacl"];

/// Makes the slot in a raw image, where `found` is what is there; its content is not that of a slot yet.
pub(super) fn make_slot(image: &Image, raw: &File, found: &Found) -> Result<()> {
    if found.file.as_ref().is_some_and(|file| file.block.is_none() && file.inode.has_attributes_block()) {
        // debugfs would remove the file, and leave that block to nobody.
        return Err(image.refused(
            "has an etc/azaion/device.conf that is empty or not in one block, with extended attributes in a block of their own; \
             mount the image, remove the file, and unmount the image, or generate it from a rootfs directory without that file",
        ));
    }
    let file = requests_file(found).map_err(|error| io_failure(error, "making a file for debugfs' requests"))?;
    let requests = sandbox::name_of(&file);
    let said = sandbox::run(Program::Debugfs, &["-w", "-f", &requests, IMAGE], raw, Some(&file))?;
    drop(file);
    // It says so also of requests that failed.
    if said.end != End::Code(0) {
        return Err(unchecked(image, &said));
    }
    if let Some(what) = FULL.into_iter().find_map(|(words, what)| said.words.contains(words).then_some(what)) {
        return Err(image.refused(format_args!(
            "is full: it has no free {what} for etc/azaion/device.conf, and was left alone; generate it with a larger root file \
             system, or with fewer files in it"
        )));
    }
    check_with(image, raw, "was left alone: e2fsck finds faults in a copy of it with our file in it")
}

/// What debugfs says of a full file system, and of what it has none left (`lib/ext2fs/ext2_err.et`).
const FULL: [(&str, &str); 2] = [("Could not allocate block", "block"), ("Could not allocate inode", "inode")];

/// Refuses a file system in which e2fsck finds faults: a block of the slot may belong to another file, too, which others may
/// read on the device. `raw` is the image, if everybody may read it, or an unnamed copy.
pub(super) fn check(image: &Image, raw: &File) -> Result<()> {
    check_with(image, raw, "was left alone: e2fsck finds faults in it")
}

fn check_with(image: &Image, raw: &File, faults: &str) -> Result<()> {
    let checked = sandbox::run(Program::E2fsck, &["-f", "-n", IMAGE], raw, None)?;
    match checked.end {
        End::Code(0) => Ok(()),
        _ if checked.words.contains(UNSUPPORTED) => Err(image.refused(too_old(&checked.words))),
        End::Code(code) if code & FAULTS != 0 => Err(image.refused(format_args!(
            "{faults}; {}, or generate it again: {}",
            image.how_to_repair(),
            checked.words
        ))),
        _ => Err(unchecked(image, &checked)),
    }
}

/// What e2fsck says before the features that it does not know.
const UNSUPPORTED: &str = "unsupported feature(s): ";

/// Features by the names that a version of e2fsprogs without them gives to them or that a later one does, and the version
/// that they came with (its release notes).
const FEATURES: [(&str, &str, &str); 6] = [
    ("FEATURE_C10", "fast_commit", "1.46.0"),
    ("FEATURE_C11", "stable_inodes", "1.46.0"),
    ("FEATURE_C12", "orphan_file", "1.47.0"),
    ("FEATURE_I13", "metadata_csum_seed", "1.43"),
    ("FEATURE_I14", "large_dir", "1.44.0"),
    ("FEATURE_R13", "project", "1.43"),
];

/// What to do when e2fsck knows less than the image has: of what it says, the version comes first, then the features.
fn too_old(words: &str) -> String {
    let version = words.split_whitespace().nth(1).unwrap_or("of unknown version");
    let features = words.split_once(UNSUPPORTED).map_or("", |(_, after)| after);
    let features = features.split(" e2fsck: ").next().unwrap_or_default();
    let needs = features.split(' ').map(|feature| {
        let known = FEATURES.iter().find(|(number, name, _)| feature == *number || feature == *name);
        known.map_or_else(|| feature.to_owned(), |(_, name, since)| format!("{name} (e2fsprogs {since} or later)"))
    });
    format!(
        "was left alone: e2fsck {version} of this host does not know its features {}; install a newer e2fsprogs, generate the \
         image without them (mkfs.ext4 -O ^NAME), or provision the rootfs directory",
        needs.collect::<Vec<_>>().join(", ")
    )
}

/// The bit in e2fsck's exit code for faults that it has left as they are (e2fsck(8)).
const FAULTS: i32 = 4;

fn unchecked(image: &Image, ended: &Ended) -> Error {
    image.refused(format_args!(
        "was left alone, for it can't be checked: {}; {}, or provision the rootfs directory",
        ended.failure(),
        image.how_to_repair()
    ))
}

/// Those that take away what a mode does not: access control lists, and flags that keep the file as it is. A list is removed by
/// each name that one may have.
fn access_requests(found: &Found) -> Vec<String> {
    // A file that is not in one block is removed, and the new one has none of them.
    let file = found.file.as_ref().filter(|file| file.block.is_some()).map(|file| &file.inode);
    let folder = found.folder.as_ref();
    let lists =
        [(FOLDER, folder), (FILE, file)].into_iter().filter(|(_, inode)| inode.is_some_and(|i| i.has_access_list));
    let mut requests: Vec<_> =
        lists.flat_map(|(path, _)| ACCESS_LISTS.map(|name| format!("ea_rm {path} system.{name}"))).collect();
    let fixed = file.filter(|inode| inode.is_fixed());
    requests.extend(fixed.map(|inode| format!("sif {FILE} flags {:#x}", inode.free_flags())));
    requests
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
    requests.extend(access_requests(found));
    // The last line is as long as it takes.
    format!("{:<1$}\n", requests.join("\n"), slot::SIZE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: of an e2fsck that is too old, the message says its version, and for each feature its name and the version that it
    // needs; of none of them is it said that the image has faults.
    #[test]
    fn too_old_programs() {
        let said = |features: &str| {
            too_old(&format!(
                "e2fsck 1.46.5 (30-Dec-2021) /proc/self/fd/0 has unsupported feature(s): {features} e2fsck: Get a newer \
                 version of e2fsck! /proc/self/fd/0: ********** WARNING: Filesystem still has errors **********"
            ))
        };
        for (features, expected) in [
            ("FEATURE_C12", "features orphan_file (e2fsprogs 1.47.0 or later);"),
            ("orphan_file", "features orphan_file (e2fsprogs 1.47.0 or later);"),
            (
                "FEATURE_C10 FEATURE_I13",
                "features fast_commit (e2fsprogs 1.46.0 or later), metadata_csum_seed (e2fsprogs 1.43 or later);",
            ),
            ("FEATURE_C13", "features FEATURE_C13;"),
        ] {
            let said = said(features);
            assert!(said.contains("e2fsck 1.46.5 of this host") && said.contains(expected), "{said}");
            assert!(!said.contains("faults"), "{said}");
        }
    }
}
