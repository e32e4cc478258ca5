//! Where everything lies on the device, under `/` or under another root.

use std::path::{Path, PathBuf};

use crate::device_conf;

/// The root that every path of the agent lies under.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Paths under `root`, `/` on a device.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// An absolute path, put under the root.
    pub fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// `/etc/azaion/device.conf`
    pub fn device_conf(&self) -> PathBuf {
        self.root.join(device_conf::PATH)
    }

    /// `/etc/azaion/agent.toml`
    pub fn settings(&self) -> PathBuf {
        self.root.join("etc/azaion/agent.toml")
    }

    /// `/run/azaion`, gone with the next boot
    pub fn run_dir(&self) -> PathBuf {
        self.root.join("run/azaion")
    }

    /// `/var/lib/azaion`, kept across boots
    pub fn state_dir(&self) -> PathBuf {
        self.root.join("var/lib/azaion")
    }

    /// Where the kernel shows the module's serial number: `/proc/device-tree`, which is the name that programs are to
    /// use, and what it is a link to, for where a sandbox leaves only processes in `/proc` (`ProcSubset=pid`).
    pub fn module_serial(&self) -> [PathBuf; 2] {
        ["proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number"]
            .map(|file| self.root.join(file))
    }

    /// `/etc/group`
    pub fn group(&self) -> PathBuf {
        self.root.join("etc/group")
    }
}
