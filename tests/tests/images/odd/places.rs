//! Locations and users of an image.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use azaion_tests::programs::start;
use azaion_tests::station::command;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::bench::{Bench, EMAIL, OTHER, SERIAL, Snapshot, User, for_each, is_root};
use crate::oracle::{Attached, Mounted, run, text};
use crate::recipe::{Kind, PLAIN, mkfs, put, to_sparse};

fn plain(user: User) -> anyhow::Result<Bench> {
    let bench = Bench::with(user)?;
    mkfs(&bench, &bench.image(), "", PLAIN)?;
    bench.give("images/system.img")?;
    Ok(bench)
}

fn prepared(user: User) -> anyhow::Result<Bench> {
    let bench = plain(user)?;
    bench.device(OTHER, &[])?.ended_with(0)?;
    bench.verb("clear")?.ended_with(0)?;
    Ok(bench)
}

/// Checks that all verbs refuse the image and leave it unchanged.
fn is_refused(bench: &Bench, says: &str) -> anyhow::Result<()> {
    let before = Snapshot::of(&bench.image())?;
    for run in [bench.device(SERIAL, &[])?, bench.verb("inspect")?, bench.verb("clear")?] {
        let run = run.ended_with(66)?;
        assert!(run.stderr.contains(says), "{}", run.words());
    }
    assert_eq!(bench.beside()?, ["system.img"]);
    before.is_still(&bench.image())
}

// Promise: an image attached to a loop device is refused, mounted or not, and accepted once it is detached.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_use() -> anyhow::Result<()> {
    for bench in [plain(User::Caller)?, prepared(User::Caller)?] {
        let attached = Attached::new(&bench.image())?;
        is_refused(&bench, &format!("losetup -d {}", text(attached.device())))?;
        drop(attached);
        // A symlink to it is the same file.
        for options in ["ro", "rw"] {
            let mounted = Mounted::new(&bench.image(), options)?;
            is_refused(&bench, "is attached to /dev/loop")?;
            drop(mounted);
        }
        bench.device(SERIAL, &[])?.ended_with(0)?;
        bench.holds(SERIAL, EMAIL)?;
    }
    Ok(())
}

// Promise: a run over many images detects a loop device attached after it checked the first.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_use_since() -> anyhow::Result<()> {
    let bench = plain(User::Caller)?;
    let is_refused = || azaion_provision::target::open(&bench.image()).is_err();
    assert!(!is_refused());
    let attached = Attached::new(&bench.image())?;
    assert!(is_refused());
    drop(attached);
    assert!(!is_refused());
    Ok(())
}

// Promise: a sparse image is refused while it is attached, too, though it cannot be mounted.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_sparse_image_in_use() -> anyhow::Result<()> {
    let bench = plain(User::Caller)?;
    to_sparse(&bench.image())?;
    let _attached = Attached::new(&bench.image())?;
    is_refused(&bench, "is attached")
}

// Promise: a block device, a FIFO and a missing file are no images, and none of them blocks the run.
#[test]
fn no_file() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    bench.device(SERIAL, &[])?.ended_with(66)?;
    mkfifo(&bench.image(), Mode::S_IRWXU)?;
    for run in [bench.device(SERIAL, &[])?, bench.verb("inspect")?, bench.verb("clear")?] {
        assert!(run.ended_with(66)?.stderr.contains("neither a directory nor a regular file"));
    }
    fs::remove_file(bench.image())?;
    symlink("/dev/null", bench.image())?;
    bench.device(SERIAL, &[])?.ended_with(66)?;
    fs::remove_file(bench.image())?;
    symlink("system.img", bench.image())?;
    bench.device(SERIAL, &[])?.ended_with(66)?;
    if is_root() {
        let bench = plain(User::Caller)?;
        let device = Attached::new(&bench.image())?;
        let before = Snapshot::of(&bench.image())?;
        let name = text(device.device());
        for verb in ["inspect", "clear"] {
            let run = bench.wait(start(&mut bench.command(&[verb, name])?)?)?.ended_with(66)?;
            assert!(run.stderr.contains("mount point"), "{}", run.stderr);
        }
        before.is_still(&bench.image())?;
    }
    Ok(())
}

// Promise: a symlink to an image stays one, and the files beside the image are created in the image's directory.
#[test]
fn through_a_symlink() -> anyhow::Result<()> {
    let bench = plain(User::Caller)?;
    fs::create_dir(bench.path("real"))?;
    fs::rename(bench.image(), bench.path("real/app.img"))?;
    symlink("../real/app.img", bench.image())?;
    for serial in [OTHER, SERIAL] {
        bench.device(serial, &["--replace"])?.ended_with(0)?;
    }
    bench.holds(SERIAL, EMAIL)?;
    assert_eq!(fs::read_link(bench.image())?, Path::new("../real/app.img"));
    assert_eq!(fs::read_dir(bench.path("real"))?.count(), 1);
    Ok(())
}

// Promise: the image file keeps its mode and owner, also after its first device.
#[test]
fn attributes_stay() -> anyhow::Result<()> {
    for mode in [0o600, 0o644, 0o640, 0o666] {
        let bench = plain(User::Caller)?;
        crate::recipe::own(&bench.image(), 1000, mode)?;
        let attributes = || run("stat", &["-c", "%a %u:%g", text(&bench.image())]);
        let before = attributes()?;
        bench.device(SERIAL, &["--no-strict-modes"])?.ended_with(0)?;
        assert_eq!(attributes()?, before);
    }
    Ok(())
}

// Promise: without write permission the run ends with 77 before anything is done; read permission is enough to inspect.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn read_only() -> anyhow::Result<()> {
    let bench = prepared(User::Nobody)?;
    bench.device(SERIAL, &[])?.ended_with(0)?;
    fs::set_permissions(bench.image(), fs::Permissions::from_mode(0o444))?;
    let before = Snapshot::of(&bench.image())?;
    bench.station.api.forget_requests();
    for run in [bench.device(OTHER, &["--replace"])?, bench.verb("clear")?] {
        assert!(run.ended_with(77)?.stderr.contains("system.img"));
    }
    assert_eq!(bench.station.api.requests().len(), 0);
    assert_eq!(bench.inspect()?["serial"], SERIAL);
    before.is_still(&bench.image())
}

// Promise: in a read-only directory, an image with a slot accepts devices; one without is refused before anything is
// done.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_a_folder_of_others() -> anyhow::Result<()> {
    // Owned by root; 0711 may be entered, but not listed.
    for mode in [0o755, 0o711] {
        let others = |bench: &Bench| {
            std::os::unix::fs::chown(bench.path("images"), Some(0), Some(0))?;
            fs::set_permissions(bench.path("images"), fs::Permissions::from_mode(mode))
        };
        let bench = prepared(User::Nobody)?;
        others(&bench)?;
        bench.device(SERIAL, &[])?.ended_with(0).map_err(|error| error.context(format!("{mode:o}")))?;
        bench.holds(SERIAL, EMAIL)?;
        bench.verb("clear")?.ended_with(0)?;

        let bench = plain(User::Nobody)?;
        others(&bench)?;
        let before = Snapshot::of(&bench.image())?;
        let run = bench.device(SERIAL, &[])?.ended_with(77)?;
        assert!(run.stderr.contains("into the directory of"), "{}", run.stderr);
        assert_eq!(bench.station.api.requests().len(), 0);
        before.is_still(&bench.image())?;
    }
    Ok(())
}

// Promise: without e2fsprogs, an image with a slot accepts devices; for one without, the message says what to install.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn without_debugfs() -> anyhow::Result<()> {
    let without = |bench: &Bench| -> anyhow::Result<_> {
        put(&bench.path("empty/nothing"), "", 0o644)?;
        // A mount, visible only to this process, over the directory of e2fsprogs.
        let script = "mount --bind \"$1\" /usr/sbin; shift; exec \"$@\"";
        let program = bench.device_command(SERIAL, &[])?;
        let mut command = command(Path::new("unshare"), &["--mount", "sh", "-euc", script, "sh"]);
        command.arg(bench.path("empty")).arg(program.get_program()).args(program.get_args());
        bench.wait(start(&mut command)?)
    };
    let bench = plain(User::Caller)?;
    let before = Snapshot::of(&bench.image())?;
    let run = without(&bench)?.ended_with(78)?;
    assert!(run.stderr.contains("apt-get install e2fsprogs"), "{}", run.stderr);
    before.is_still(&bench.image())?;
    assert_eq!(bench.station.api.requests().len(), 0);
    let bench = prepared(User::Caller)?;
    without(&bench)?.ended_with(0)?;
    bench.holds(SERIAL, EMAIL)
}

// Promise: a name that is not UTF-8 works like others, for the image, its checksum file, and the stored state of both.
#[test]
fn names_of_other_bytes() -> anyhow::Result<()> {
    let bench = plain(User::Caller)?;
    let image = bench.path("images").join(OsStr::from_bytes(b"system-\xff.img"));
    fs::rename(bench.image(), &image)?;
    let sum = |file: &Path| run("sh", &["-c", &format!("sha1sum <'{}' | cut -c1-40", file.display())]);
    let beside = bench.path("images").join(OsStr::from_bytes(b"system-\xff.img.sha1sum"));
    let link = bench.path("by-another-name");
    symlink(&image, &link)?;
    put(&beside, sum(&link)?, 0o644)?;
    for (serial, options) in [(SERIAL, &[][..]), (OTHER, &["--replace"])] {
        let mut command = bench.command(&["device", serial, "--rootfs"])?;
        bench.wait(start(command.arg(&image).args(options).args(bench.api()))?)?.ended_with(0)?;
        assert_eq!(fs::read_to_string(&beside)?, sum(&link)?);
    }
    for (verb, says) in [("inspect", OTHER), ("clear", "device.conf removed"), ("inspect", "no device.conf")] {
        let run = bench.wait(start(bench.command(&[verb])?.arg(&image))?)?.ended_with(0)?;
        assert!(run.stdout.contains(says), "{}", run.words());
    }
    Ok(())
}

/// Sets a flag of chattr(1) on a file or directory until dropped.
struct Fixed<'p>(&'p Path);

impl<'p> Fixed<'p> {
    fn new(path: &'p Path) -> anyhow::Result<Self> {
        run("chattr", &["+i", text(path)])?;
        Ok(Self(path))
    }
}

impl Drop for Fixed<'_> {
    fn drop(&mut self) {
        let _ = run("chattr", &["-i", text(self.0)]);
    }
}

// Promise: for root, an immutable file or directory and a read-only file system are I/O errors (74) whose message names
// the reason, before the API is called.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn what_stops_root() -> anyhow::Result<()> {
    let is_told = |bench: &Bench, target: &Path, says: &str| {
        let mut command = bench.command(&["device", SERIAL, "--rootfs", text(target)])?;
        let run = bench.wait(start(command.args(bench.api()))?)?.ended_with(74)?;
        anyhow::ensure!(run.stderr.contains(says) && !run.stderr.contains("as root,"), "{}", run.stderr);
        anyhow::ensure!(bench.station.api.requests().is_empty(), "the API was asked");
        Ok(())
    };
    let bench = prepared(User::Caller)?;
    let tree = bench.path("tree");
    let folder = tree.join("etc/azaion");
    fs::create_dir(&folder)?;
    bench.station.api.forget_requests();
    // Not all file systems of test machines have such flags.
    if Fixed::new(&bench.image()).is_ok() {
        for (fixed, target) in [(&bench.image(), &bench.image()), (&folder, &tree)] {
            let _fixed = Fixed::new(fixed)?;
            is_told(&bench, target, "chattr -i")?;
        }
    }
    for (mounted, target) in [(bench.path("images"), bench.image()), (tree.clone(), tree.clone())] {
        run("mount", &["--bind", "-o", "ro", text(&mounted), text(&mounted)])?;
        let told = is_told(&bench, &target, "remount,rw");
        run("umount", &[text(&mounted)])?;
        told?;
    }
    Ok(())
}

// Promise: nothing is written outside the image's own directory: no temporary directory is needed, so a killed run can
// leave nothing there.
#[test]
fn without_a_directory_for_temporary_files() {
    for_each(
        &Kind::ALL,
        |kind| kind.name().to_owned(),
        |kind| {
            let bench = Bench::new()?;
            kind.make(&bench, &bench.image(), PLAIN)?;
            for serial in [OTHER, SERIAL] {
                let mut command = bench.device_command(serial, &["--replace"])?;
                bench.wait(start(command.env("TMPDIR", bench.path("missing")))?)?.ended_with(0)?;
            }
            bench.holds(SERIAL, EMAIL)
        },
    );
}
