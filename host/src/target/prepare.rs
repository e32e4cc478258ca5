//! Making the slot, once an image: with debugfs on a copy, which takes the image's place only when all is well.
//!
//! debugfs ends with 0 whatever happens, and its `mkdir` on a folder that is there corrupts the file system. So: what is
//! there is looked at first, nothing is asked for twice, and what came of it is judged by this program and by e2fsck.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Context;
use azaion_agent::exit::Exit;
use tempfile::TempDir;

use super::ext4::Found;
use super::slot;
use crate::failure::failure;

/// Where e2fsprogs has them, also where the caller's PATH has no sbin.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";
/// The image, for both programs: their standard input, so that it needs no name.
const IMAGE: &str = "/proc/self/fd/0";
const FOLDER: &str = "/etc/azaion";
const FILE: &str = "/etc/azaion/device.conf";

/// Whether the programs are there.
pub(super) fn is_possible() -> anyhow::Result<()> {
    let is_there = |program: &str| PATH.split(':').any(|folder| Path::new(folder).join(program).exists());
    if is_there("debugfs") && is_there("e2fsck") {
        return Ok(());
    }
    let message =
        "the first device.conf of an image needs debugfs and e2fsck; install them:  apt-get install e2fsprogs";
    Err(failure(Exit::Config, message))
}

/// Makes the slot in a raw image, where `found` is what is there.
pub(super) fn make_slot(raw: &File, found: &Found) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("making a folder for debugfs' requests")?;
    let put =
        |name: &str, bytes: &[u8]| File::create(folder.path().join(name)).and_then(|mut file| file.write_all(bytes));
    put("slot", &slot::blank())
        .and_then(|()| put("requests", requests(found).as_bytes()))
        .context("writing debugfs' requests")?;
    let said = run(&folder, raw, "debugfs", &["-w", "-f", "requests", IMAGE])?;
    log::debug!("{}", words(&said));
    let checked = run(&folder, raw, "e2fsck", &["-f", "-n", IMAGE])?;
    if checked.status.success() {
        return Ok(());
    }
    let message = format!(
        "e2fsck finds faults in a copy of the image with our file in it, so the image was left alone; run `e2fsck -f` on \
         the image and try again, or provision the rootfs directory: {}",
        words(&checked)
    );
    Err(failure(Exit::Target, message))
}

fn requests(found: &Found) -> String {
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
        requests.push("write slot device.conf".to_owned());
    }
    // The mode with the type's bits, for debugfs sets all of the field.
    for (path, mode) in [(FOLDER, "040755"), (FILE, "0100600")] {
        requests.extend(
            [("mode", mode), ("uid", "0"), ("gid", "0")].map(|(field, value)| format!("sif {path} {field} {value}")),
        );
    }
    requests.push(format!("sif {FILE} size {}", slot::SIZE));
    requests.join("\n") + "\n"
}

fn run(folder: &TempDir, raw: &File, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let image = raw.try_clone().context("the copy of the image")?;
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        // The admin's password may be in it.
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(image)
        .output()
        .with_context(|| format!("running {program}; is e2fsprogs installed?"))
}

/// What a program said, in one line.
fn words(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).split_whitespace().collect::<Vec<_>>().join(" ")
}
