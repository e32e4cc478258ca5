//! A miniature of NVIDIA's Board Support Package, `Linux_for_Tegra`, with simulated flash scripts that behave like
//! those of a release.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::programs::{output, workspace};

/// A release of Jetson Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bsp {
    /// Images: a plain tar or an Android sparse image.
    R36_2,
    /// Images: a zstd-compressed tar.
    R36_5,
    /// Images: a zstd-compressed tar or disk image.
    R39_2,
}

impl Bsp {
    fn name(self) -> &'static str {
        match self {
            Self::R36_2 => "R36.2",
            Self::R36_5 => "R36.5",
            Self::R39_2 => "R39.2",
        }
    }

    /// Returns the options that `l4t_initrd_flash.sh --no-flash` needs for a drive.
    pub fn nvme_options(self) -> &'static [&'static str] {
        match self {
            Self::R36_2 | Self::R36_5 => &[
                "--external-device",
                "nvme0n1p1",
                "-c",
                "tools/kernel_flash/flash_l4t_t234_nvme.xml",
                "-p",
                "-c bootloader/generic/cfg/flash_t234_qspi.xml",
            ],
            Self::R39_2 => &[],
        }
    }

    /// Copies the miniature to a new directory, as if the release had been unpacked there. The directory `bench` beside
    /// it is for the boards.
    ///
    /// # Errors
    /// The I/O error.
    #[expect(clippy::disallowed_methods, reason = "the tests' own files")]
    pub fn unpack(self, to: &Path) -> anyhow::Result<()> {
        let miniature = workspace().join("tests/tests/line/Linux_for_Tegra");
        // Without preserving the owner: the tree belongs to the user that unpacks it.
        output(Command::new("cp").args(["-R", "--preserve=mode"]).arg(miniature).arg(to))?;
        fs::write(to.join("stand-in/release"), format!("{}\n", self.name()))?;
        Ok(fs::create_dir(to.with_file_name("bench"))?)
    }
}
