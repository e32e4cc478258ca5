//! A power cut while a batch copies its template: unsynced data is lost.
//!
//! The copies are in a separate ext4 file system on a loop device. At each system call that renames, links or syncs,
//! the run is killed, the journal is committed (by syncing another file), and the backing file is copied: it holds what
//! the disk held, without the page cache. An ext4 option that writes a file's data soon after a rename is switched off.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, ensure};
use azaion_tests::programs::{output, start};
use azaion_tests::station::command;

use crate::bench::{Bench, OTHER};
use crate::oracle::{self, Mounted, run, text};
use crate::recipe::{Kind, PLAIN};

const OPTIONS: &str = "noauto_da_alloc";
/// The system calls that make something durable, or give it its name.
const STEPS: &str = "fsync,fdatasync,syncfs,renameat,renameat2,linkat";
/// More than a copy takes.
const MOST: usize = 60;

/// Kills a batch of one device at the `when`th of the steps; returns what the disk then holds, and whether it was
/// killed.
fn cut(bench: &Bench, base: &Path, call: &str, when: usize) -> anyhow::Result<(Mounted, bool)> {
    let disk = bench.path("disk");
    let _ = fs::remove_file(&disk);
    run("truncate", &["-s", "48M", text(&disk)])?;
    run("mkfs.ext4", &["-q", "-F", text(&disk)])?;
    let mounted = Mounted::new(&disk, OPTIONS)?;
    let template = mounted.inside("{serial}").display().to_string();
    let inject = format!("inject={call}:signal=SIGKILL:when={when}");
    let traced = ["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
    let fixed = [
        "batch",
        "AZJN-0042..AZJN-0042",
        "--rootfs",
        &template,
        "--base",
        text(base),
        "--jobs",
        "1",
        "--no-strict-modes",
    ];
    let ours = bench.station.provision_command(&fixed)?;
    let mut strace = command(Path::new("strace"), &traced);
    strace.arg(ours.get_program()).args(ours.get_args()).args(bench.station.api_arguments());
    let ended = start(&mut strace)?.wait()?;
    ensure!(matches!(ended.code, None | Some(0)), "{}", ended.words());
    // Commits the journal with the new names, but no other file's data.
    File::create(mounted.inside("other"))?.sync_all()?;
    let after = bench.path("after");
    run("cp", &["--sparse=always", text(&disk), text(&after)])?;
    drop(mounted);
    Ok((Mounted::new(&after, "rw")?, ended.code != Some(0)))
}

/// Checks that the copy, if it exists, equals the template except for the device.
fn is_complete(kind: Option<Kind>, base: &Path, copy: &Path) -> anyhow::Result<()> {
    if kind.is_some() {
        return oracle::is_whole(copy);
    }
    let listed = |tree: &Path| -> anyhow::Result<String> {
        let script = "cd \"$1\" && find . -path ./etc/azaion -prune -o -type f -exec sha1sum {} + | sort -k2";
        let mut find = command(Path::new("sh"), &["-c", script, "sh", text(tree)]);
        output(&mut find)
    };
    ensure!(listed(base)? == listed(copy)?, "{} is not the template", copy.display());
    Ok(())
}

fn everywhere(bench: &Bench, kind: Option<Kind>, base: &Path) -> anyhow::Result<()> {
    let (mut cuts, mut complete) = (0, 0);
    for call in STEPS.split(',') {
        for when in 1..=MOST {
            let (disk, was_cut) = cut(bench, base, call, when)?;
            let copy = disk.inside("AZJN-0042");
            if copy.exists() {
                is_complete(kind, base, &copy).with_context(|| format!("{call} {when}"))?;
                complete += 1;
            }
            if !was_cut {
                break;
            }
            cuts += 1;
        }
    }
    println!("{kind:?}: cut at {cuts} steps, complete after {complete}");
    ensure!(cuts > 3 && complete > 0, "{cuts} {complete}");
    Ok(())
}

// Promise: whenever the power is cut while a batch copies its template, each device's copy is complete afterwards or
// does not exist.
#[test]
#[cfg_attr(not(all(root, long)), ignore = "needs root and ./tests/run --all")]
fn while_a_template_is_copied() -> anyhow::Result<()> {
    for kind in [None, Some(Kind::Ext4)] {
        let bench = Bench::new()?;
        let base = match kind {
            None => {
                let tree = bench.station.rootfs();
                run("sh", &["-c", "mkdir -p \"$1/usr\"; seq 100000 >\"$1/usr/numbers\"", "sh", text(&tree)])?;
                tree
            }
            Some(kind) => {
                kind.make(&bench, &bench.image(), PLAIN)?;
                // With a slot, because creating the slot is not part of copying.
                bench.device(OTHER, &[])?.ended_with(0)?;
                bench.verb("clear")?.ended_with(0)?;
                bench.image()
            }
        };
        everywhere(&bench, kind, &base)?;
    }
    Ok(())
}
