//! An emulated aarch64 machine that boots a real Debian from its own disk, with systemd, our package and the files that
//! the host tool wrote.
//!
//! [`Unit`] is the root file system on the flashing host, [`Unit::flash`] creates its [`Disk`], [`Disk::boot`] starts
//! the [`Machine`]. The machine can reach only the development API, as 10.0.2.2.

mod base;
mod disk;
mod emulator;
mod unit;

pub use base::Release;
pub use disk::Disk;
pub use emulator::{Boot, Machine};
pub use unit::Unit;

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::ensure;

/// The required programs, and the Debian packages that contain them.
const PROGRAMS: [(&str, &str); 10] = [
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/qemu-system-aarch64", "qemu-system-arm"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ("/usr/sbin/e2fsck", "e2fsprogs"),
    ("/usr/sbin/debugfs", "e2fsprogs"),
    ("/usr/sbin/depmod", "kmod"),
    ("/usr/bin/socat", "socat"),
    ("/usr/bin/img2simg", "android-sdk-libsparse-utils"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/dpkg-deb", "dpkg"),
];

/// Checks that the programs are installed that a machine needs.
///
/// # Errors
/// Programs are missing; the message names their packages.
pub fn has_programs() -> anyhow::Result<()> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !Path::new(program).exists()).map(|(_, package)| *package).collect();
    missing.dedup();
    ensure!(missing.is_empty(), "packages are missing; install them:  apt-get install {}", missing.join(" "));
    Ok(())
}

/// Waits a moment; the machine runs in real time.
#[expect(clippy::disallowed_methods, reason = "an emulated machine runs in real time")]
pub fn pause(moment: Duration) {
    thread::sleep(moment);
}
