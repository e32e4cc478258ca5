//! A unit on the line: its root file system, with the package and what the host tool wrote.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::base::{Base, Release, base};
use super::disk::Disk;
use crate::dev_api::Options;
use crate::programs::{arm64_agent, output, workspace};
use crate::record;
use crate::station::{SERIAL, Station, value_in};

/// How the machine sees the loopback address of the station.
const STATION: &str = "10.0.2.2";

/// The unit, and the station that makes it.
#[derive(Debug)]
pub struct Unit {
    /// The station, with the API.
    pub station: Station,
    base: Base,
}

impl Unit {
    /// A unit whose root file system has the package and the policy in it, and was provisioned.
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

    /// The host tool, as it is run at the station; then the API's address as the machine sees it.
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

    /// Adds a unit to systemd's and has it wanted by a target.
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

    /// Makes the disk of the machine out of the root file system.
    ///
    /// # Errors
    /// The file system can't be made.
    pub fn flash(&self) -> anyhow::Result<Disk> {
        let port = self.station.api.url().rsplit(':').next().and_then(|port| port.parse().ok());
        self.station.password().map_or(Ok(()), |password| record::secret(&password))?;
        Disk::of(&self.station.rootfs(), &self.base.kernel, port.context("the port of the API")?)
    }

    /// Makes the disk of a root file system that nobody provisioned, and lets the host tool write into the image.
    ///
    /// # Errors
    /// The file system can't be made, or the host tool failed.
    pub fn flash_then_provision(&self, kind: Image) -> anyhow::Result<Disk> {
        self.station.provision_offline(&["clear", &self.station.rootfs().display().to_string()])?.ended_with(0)?;
        let disk = self.flash()?;
        let raw = disk.image();
        let provision = |image: &Path| -> anyhow::Result<()> {
            let image = image.display().to_string();
            self.station.provision(&["device", SERIAL, "--rootfs", &image])?.ended_with(0).map(drop)
        };
        match kind {
            Image::Raw => provision(&raw)?,
            Image::Sparse => {
                let sparse = self.station.path("system.img");
                output(Command::new("/usr/bin/img2simg").arg(&raw).arg(&sparse))?;
                provision(&sparse)?;
                fs::remove_file(&raw)?;
                output(Command::new("/usr/bin/simg2img").arg(&sparse).arg(&raw))?;
            }
        }
        disk.edit("/etc/azaion/device.conf", |text| text.replace("://127.0.0.1:", &format!("://{STATION}:")))?;
        let conf = disk.read("/etc/azaion/device.conf")?;
        record::secret(value_in(&conf, "AZAION_DEVICE_PASSWORD").context("no password in the image")?)?;
        Ok(disk)
    }
}

/// Which image the host tool writes into; the machine boots from the raw one in any case.
#[derive(Clone, Copy, Debug)]
pub enum Image {
    /// A raw ext4 image.
    Raw,
    /// An Android sparse image, unpacked afterwards as the flasher does it.
    Sparse,
}

/// Unpacks our package into a root file system; that is a complete installation.
fn install(rootfs: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let build = workspace().join("agent/debian/build");
    let package = output(Command::new(build).arg(arm64_agent()?).arg("arm64").arg(folder.path()))?;
    output(Command::new("dpkg-deb").arg("-x").arg(package.trim()).arg(rootfs))?;
    Ok(())
}
