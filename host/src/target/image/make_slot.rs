//! Makes the slot, once per image: runs debugfs on a copy, which replaces the image only if the result is valid.
//!
//! debugfs exits with 0 even if requests fail, and its `mkdir` on an existing directory corrupts the file system. So
//! this module gets the existing state first, requests nothing that exists already, and validates the result itself and
//! with e2fsck.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{MemfdFlags, memfd_create};

use super::ext4::Found;
use super::sandbox::{self, End, Ended, IMAGE, Program};
use super::slot;
use crate::target::error::{Error, Result, io_failure};
use crate::target::image::file::Image;

const DIRECTORY: &str = "/etc/azaion";
const FILE: &str = "/etc/azaion/device.conf";
const ACCESS_LISTS: [&str; 3] = ["posix_acl_access", "posix_acl_default", "richacl"];

/// Makes the slot in a raw image, in which `found` exists so far. The new slot has no valid content yet.
pub(super) fn make_slot(image: &Image, raw: &File, found: &Found) -> Result<()> {
    if found.file.as_ref().is_some_and(|file| file.block.is_none() && file.inode.has_attributes_block()) {
        // debugfs would remove the file and leak that block.
        return Err(image.refused(
            "has an etc/azaion/device.conf that is empty or not in one block, with extended attributes in a block of \
             their own; mount the image, remove the file, and unmount the image, or generate it from a rootfs \
             directory without that file",
        ));
    }
    let file =
        requests_file(found).map_err(|error| io_failure(error, "creating a file with the requests for debugfs"))?;
    let requests = sandbox::path_of(&file);
    let ended = sandbox::run(Program::Debugfs, &["-w", "-f", &requests, IMAGE], raw, Some(&file))?;
    drop(file);
    // It also exits with 0 if requests failed: the checks below find that.
    if ended.end != End::Code(0) {
        return Err(unchecked(image, &ended));
    }
    if let Some(what) = FULL.into_iter().find_map(|(message, what)| ended.output.contains(message).then_some(what)) {
        return Err(image.refused(format_args!(
            "is full: it has no free {what} for etc/azaion/device.conf; it was not changed; generate it with a larger \
             root file system, or with fewer files in it"
        )));
    }
    check_with(image, raw, "was not changed: e2fsck finds faults in a copy of it after device.conf was added")
}

/// Messages of debugfs for a full file system, and what has run out (`lib/ext2fs/ext2_err.et`).
const FULL: [(&str, &str); 2] = [("Could not allocate block", "block"), ("Could not allocate inode", "inode")];

/// Refuses a file system in which e2fsck finds faults: a block of the slot may also belong to another file, which other
/// users may read on the device. `raw` is the image, if everybody may read it, or an unnamed copy.
pub(super) fn check(image: &Image, raw: &File) -> Result<()> {
    check_with(image, raw, "was not changed: e2fsck finds faults in it")
}

fn check_with(image: &Image, raw: &File, faults: &str) -> Result<()> {
    let checked = sandbox::run(Program::E2fsck, &["-f", "-n", IMAGE], raw, None)?;
    match checked.end {
        End::Code(0) => Ok(()),
        _ if checked.output.contains(UNSUPPORTED) => Err(image.refused(too_old(&checked.output))),
        End::Code(code) if code & FAULTS != 0 => Err(image.refused(format_args!(
            "{faults}; {}, or generate it again: {}",
            image.how_to_repair(),
            checked.output
        ))),
        _ => Err(unchecked(image, &checked)),
    }
}

/// Text of e2fsck before the list of features that it does not know.
const UNSUPPORTED: &str = "unsupported feature(s): ";

/// Features: the name in versions of e2fsprogs that do not know them, the name in later versions, and the version that
/// introduced them (its release notes).
const FEATURES: [(&str, &str, &str); 6] = [
    ("FEATURE_C10", "fast_commit", "1.46.0"),
    ("FEATURE_C11", "stable_inodes", "1.46.0"),
    ("FEATURE_C12", "orphan_file", "1.47.0"),
    ("FEATURE_I13", "metadata_csum_seed", "1.43"),
    ("FEATURE_I14", "large_dir", "1.44.0"),
    ("FEATURE_R13", "project", "1.43"),
];

/// Returns the message for an e2fsck that does not know all features of the image. Its output starts with its version,
/// and the features follow later.
fn too_old(output: &str) -> String {
    let version = output.split_whitespace().nth(1).unwrap_or("of unknown version");
    let features = output.split_once(UNSUPPORTED).map_or("", |(_, after)| after);
    let features = features.split(" e2fsck: ").next().unwrap_or_default();
    let needs = features.split(' ').map(|feature| {
        let known = FEATURES.iter().find(|(number, name, _)| feature == *number || feature == *name);
        known.map_or_else(|| feature.to_owned(), |(_, name, since)| format!("{name} (e2fsprogs {since} or later)"))
    });
    format!(
        "was not changed: e2fsck {version} of this host does not know its features {}; install a newer e2fsprogs, \
         generate the image without them (mkfs.ext4 -O ^NAME), or provision the rootfs directory",
        needs.collect::<Vec<_>>().join(", ")
    )
}

/// Bit of e2fsck's exit code for faults that it left uncorrected (e2fsck(8)).
const FAULTS: i32 = 4;

fn unchecked(image: &Image, ended: &Ended) -> Error {
    image.refused(format_args!(
        "was not changed because it cannot be checked: {}; {}, or provision the rootfs directory",
        ended.failure(),
        image.how_to_repair()
    ))
}

/// Returns the requests that remove access control lists and the flags immutable and append-only, which the mode does
/// not cover. A list is removed under each name that it may have.
fn access_requests(found: &Found) -> Vec<String> {
    // A file that is not in one block is removed, and the new file has none of them.
    let file = found.file.as_ref().filter(|file| file.block.is_some()).map(|file| &file.inode);
    let directory = found.directory.as_ref();
    let lists = [(DIRECTORY, directory), (FILE, file)]
        .into_iter()
        .filter(|(_, inode)| inode.is_some_and(|i| i.has_access_list));
    let mut requests: Vec<_> =
        lists.flat_map(|(path, _)| ACCESS_LISTS.map(|name| format!("ea_rm {path} system.{name}"))).collect();
    let protected = file.filter(|inode| inode.is_fixed());
    requests.extend(protected.map(|inode| format!("sif {FILE} flags {:#x}", inode.free_flags())));
    requests
}

/// Writes the requests into a file in memory, so that a killed run leaves nothing on a disk. debugfs reads the file by
/// its path twice: as its requests, and as the block to write.
fn requests_file(found: &Found) -> io::Result<File> {
    let mut file = File::from(memfd_create("azaion-provision", MemfdFlags::CLOEXEC)?);
    file.write_all(requests(found, &sandbox::path_of(&file)).as_bytes())?;
    Ok(file)
}

/// Returns the requests, padded to one block. `path` is the file that contains them; it is also the content of the new
/// `device.conf` until the slot is written.
fn requests(found: &Found, path: &str) -> String {
    let mut requests = Vec::new();
    if found.directory.is_none() {
        requests.push(format!("mkdir {DIRECTORY}"));
    }
    requests.push(format!("cd {DIRECTORY}"));
    let is_empty = found.file.as_ref().is_some_and(|file| file.block.is_none());
    if is_empty {
        requests.push("rm device.conf".to_owned());
    }
    if is_empty || found.file.is_none() {
        requests.push(format!("write {path} device.conf"));
    }
    // With the bits of the file type, because debugfs sets the whole field.
    for (target, mode) in [(DIRECTORY, "040755"), (FILE, "0100600")] {
        requests.extend(
            [("mode", mode), ("uid", "0"), ("gid", "0")].map(|(field, value)| format!("sif {target} {field} {value}")),
        );
    }
    requests.push(format!("sif {FILE} size {}", slot::SIZE));
    requests.extend(access_requests(found));
    // Blanks at the end of the last line fill the block.
    format!("{:<1$}\n", requests.join("\n"), slot::SIZE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: for an e2fsck that is too old, the message names its version, and each feature with the version that it
    // needs. It does not claim that the image has faults.
    #[test]
    fn names_features_that_e2fsck_does_not_know() {
        let message = |features: &str| {
            too_old(&format!(
                "e2fsck 1.46.5 (30-Dec-2021) /proc/self/fd/0 has unsupported feature(s): {features} e2fsck: Get a \
                 newer version of e2fsck! /proc/self/fd/0: ********** WARNING: Filesystem still has errors **********"
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
            let message = message(features);
            assert!(message.contains("e2fsck 1.46.5 of this host") && message.contains(expected), "{message}");
            assert!(!message.contains("faults"), "{message}");
        }
    }
}
