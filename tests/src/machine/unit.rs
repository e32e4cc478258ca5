//! A device before it is flashed: its root file system, with the package and the files that the host tool wrote.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::base::{Base, Release, base};
use super::disk::{Disk, SIZE as DISK_SIZE};
use crate::bsp::Bsp;
use crate::dev_api::Options;
use crate::programs::{arm64_agent, output, workspace};
use crate::record;
use crate::station::{SERIAL, Station, value_in};

/// The address under which the machine reaches the host's loopback address.
const STATION: &str = "10.0.2.2";

/// The directories in which the scripts find mkfs.ext4 and losetup.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The device, and the host that provisions it.
#[derive(Debug)]
pub struct Unit {
    /// The host, with the API.
    pub station: Station,
    base: Base,
}

impl Unit {
    /// Creates a provisioned device whose root file system has the package and the policy in it.
    ///
    /// # Errors
    /// The root file system can't be made, or the host tool failed.
    pub fn new(release: Release, options: Options) -> anyhow::Result<Self> {
        let unit = Self { station: Station::new(options)?, base: base(release)? };
        let rootfs = unit.station.rootfs();
        output(Command::new("cp").args(["--reflink=auto", "-aT"]).arg(&unit.base.rootfs).arg(&rootfs))?;
        install(&rootfs)?;
        unit.station.put_policy("")?;
        unit.provision()?;
        Ok(unit)
    }

    /// Runs the host tool as on the flashing host, then sets the API's address as the machine sees it.
    #[expect(clippy::disallowed_methods, reason = "a file of this mode is there already")]
    fn provision(&self) -> anyhow::Result<()> {
        let rootfs = self.station.rootfs().display().to_string();
        self.station.provision(&["device", SERIAL, "--rootfs", &rootfs])?.ended_with(0)?;
        let conf = self.station.inside("etc/azaion/device.conf");
        let text = fs::read_to_string(&conf)?;
        fs::write(conf, text.replace("://127.0.0.1:", &format!("://{STATION}:")))?;
        Ok(())
    }

    /// Writes a file into the root file system.
    ///
    /// # Errors
    /// The I/O error.
    pub fn put(&self, name: &str, content: &str) -> anyhow::Result<()> {
        self.station.put(&format!("rootfs/{name}"), content, 0o644)
    }

    /// Adds a systemd unit and makes a target want it.
    ///
    /// # Errors
    /// The I/O error.
    pub fn put_service(&self, name: &str, wanted_by: &str, content: &str) -> anyhow::Result<()> {
        self.put(&format!("etc/systemd/system/{name}"), content)?;
        let wants = self.station.inside(&format!("etc/systemd/system/{wanted_by}.wants"));
        fs::create_dir_all(&wants)?;
        symlink(format!("../{name}"), wants.join(name))?;
        Ok(())
    }

    /// Writes a `device.conf` with another API address than the one set by [`Unit::new`].
    ///
    /// # Errors
    /// The I/O error.
    pub fn address(&self, address: &str) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.station.inside("etc/azaion/device.conf"))?;
        self.station.put("rootfs/etc/azaion/device.conf", text.replace(STATION, address), 0o600)
    }

    /// Creates the disk of the machine from the root file system.
    ///
    /// # Errors
    /// The file system can't be made.
    pub fn flash(&self) -> anyhow::Result<Disk> {
        self.station.password().map_or(Ok(()), |password| record::secret(&password))?;
        Disk::of(&self.station.rootfs(), &self.base.kernel, self.station.api.port())
    }

    /// Generates the images of an unprovisioned root file system as the scripts of a release do, writes the device into
    /// its image (`images/external/NAME`), and flashes it. Options of `l4t_initrd_flash.sh --no-flash` come last.
    ///
    /// # Errors
    /// A script or the host tool failed.
    pub fn flash_image(&self, bsp: Bsp, options: &[&str]) -> anyhow::Result<(Disk, PathBuf)> {
        self.station.provision_offline(&["clear", &self.station.rootfs().display().to_string()])?.ended_with(0)?;
        let tree = self.station.path("Linux_for_Tegra");
        bsp.unpack(&tree)?;
        fs::remove_dir_all(tree.join("rootfs"))?;
        symlink(self.station.rootfs(), tree.join("rootfs"))?;
        self.station.put("bench/partition-size", DISK_SIZE.to_string(), 0o644)?;
        let script = |options: &[&str]| {
            let mut script = Command::new(tree.join("tools/kernel_flash/l4t_initrd_flash.sh"));
            script.args(options).args(["jetson-orin-nano-devkit", "internal"]).env("PATH", PATH);
            output(&mut script)
        };
        script(&[&["--no-flash"], bsp.nvme_options(), options].concat())?;
        let images = tree.join("tools/kernel_flash/images/external");
        let names = ["system.img.zst", "system.img"].map(|name| images.join(name));
        let image = names.into_iter().find(|image| image.exists()).context("the generated image")?;
        let provisioned = self.station.provision(&["device", SERIAL, "--rootfs", &image.display().to_string()])?;
        provisioned.ended_with(0)?;
        script(&["--flash-only"])?;
        let port = self.station.api.port();
        let disk = Disk::flashed(&self.station.path("bench/unit-1/APP.img"), &self.base.kernel, port)?;
        disk.edit("/etc/azaion/device.conf", |text| text.replace("://127.0.0.1:", &format!("://{STATION}:")))?;
        let conf = disk.read("/etc/azaion/device.conf")?;
        record::secret(value_in(&conf, "AZAION_DEVICE_PASSWORD").context("no password in the image")?)?;
        Ok((disk, image))
    }
}

/// Unpacks our package into a root file system, which is a complete installation.
fn install(rootfs: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let build = workspace().join("agent/debian/build");
    let package = output(Command::new(build).arg(arm64_agent()?).arg("arm64").arg(folder.path()))?;
    output(Command::new("dpkg-deb").arg("-x").arg(package.trim()).arg(rootfs))?;
    Ok(())
}
