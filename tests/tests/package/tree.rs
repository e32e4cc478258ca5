//! Minimal root file systems of Debian, and our package for them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context;
use azaion_tests::programs::{native, output, target_dir, workspace};
use azaion_tests::station::{SERIAL, Station};
use tempfile::TempDir;

/// The releases of Debian that cover the fleet's systemd versions: 247, 252, 257.
pub(crate) const RELEASES: [&str; 3] = ["bullseye", "bookworm", "trixie"];
/// The release for tests that need not run on each.
pub(crate) const BOOKWORM: &str = "bookworm";

/// The timestamp in the tests' packages: the default, the last commit's time, may change while a test runs.
pub(crate) const EPOCH: &str = "1750000000";
/// Directory of the agent and the libraries that it was built with, in a tree.
const AGENT: &str = "/opt/agent";

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> anyhow::Result<Output> {
    let program = command.get_program().to_owned();
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}; is its package installed?", program.display()))
}

/// Returns the Debian mirror of this machine's apt; `None` on another distribution, where mmdebstrap uses its default.
fn mirror() -> anyhow::Result<Option<String>> {
    let fields = ["Origin: Debian", "Label: Debian", "Created-By: Packages"];
    let all = output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]).args(fields))?;
    Ok(all.lines().next().map(str::to_owned))
}

/// Returns the tree of a release as a tar file, created once and cached below the target directory.
fn cached(release: &str) -> anyhow::Result<PathBuf> {
    let cache = target_dir().join("debian");
    fs::create_dir_all(&cache)?;
    // A changed list of packages needs another tree.
    let tar = cache.join(format!("{release}+dbus.tar"));
    let lock = File::create(cache.join(format!("{release}.lock")))?;
    lock.lock().context("waiting for another process that creates the tree")?;
    if !tar.exists() {
        let unfinished = cache.join(format!("{release}.unfinished.tar"));
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--mode=root", "--variant=apt", "--include=systemd,systemd-sysv,dbus"]);
        // As on all installed systems: /lib is a symlink, which a package must not replace.
        command.arg("--setup-hook=/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh");
        output(command.arg(release).arg(&unfinished).args(mirror()?))?;
        fs::rename(unfinished, &tar)?;
    }
    Ok(tar)
}

/// A root file system, removed when dropped.
#[derive(Debug)]
pub(crate) struct Tree {
    folder: TempDir,
}

impl Tree {
    /// Creates a fresh one that can run the agent built for this machine, whatever its own C library is.
    pub(crate) fn new(release: &str) -> anyhow::Result<Self> {
        let tar = cached(release)?;
        let tree = Self { folder: tempfile::tempdir()? };
        output(Command::new("tar").arg("-C").arg(tree.path()).arg("-xpf").arg(tar).arg("--numeric-owner"))?;
        let agent = native()?.join("azaion-agent");
        fs::create_dir(tree.at(AGENT))?;
        fs::copy(&agent, tree.at(AGENT).join("azaion-agent"))?;
        for library in output(Command::new("ldd").arg(&agent))?.split_whitespace().filter(|word| word.starts_with('/'))
        {
            let name = Path::new(library).file_name().context("a library's name")?;
            fs::copy(library, tree.at(AGENT).join(name))?;
        }
        // No outgoing traffic, and no updates during a test.
        for unit in ["systemd-timesyncd.service", "apt-daily.timer", "apt-daily-upgrade.timer"] {
            let _ = std::os::unix::fs::symlink("/dev/null", tree.at("/etc/systemd/system").join(unit));
        }
        Ok(tree)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a path of the tree.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }

    /// Only unpacks the package.
    pub(crate) fn unpack(&self, package: &Path) -> anyhow::Result<()> {
        output(Command::new("dpkg-deb").arg("-x").arg(package).arg(self.path())).map(drop)
    }

    /// Runs the host tool to write `device.conf`, and adds the policy that names the API's CA.
    pub(crate) fn provision(&self, station: &Station) -> anyhow::Result<()> {
        let rootfs = self.path().display().to_string();
        station.provision(&["device", SERIAL, "--rootfs", &rootfs, "--json"])?.ended_with(0)?;
        fs::copy(station.api.ca_file(), self.at("/etc/azaion/ca.pem"))?;
        fs::set_permissions(self.at("/etc/azaion/ca.pem"), Permissions::from_mode(0o644))?;
        self.write("/etc/azaion/agent.toml", "ca_file = \"/etc/azaion/ca.pem\"\ndeadline_s = 10\n")
    }

    #[expect(clippy::disallowed_methods, reason = "the tests' own files")]
    pub(crate) fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.at(path), text).with_context(|| path.to_owned())
    }

    /// Returns the entries below a directory, each with all its changeable properties.
    pub(crate) fn listing(&self, folder: &str) -> anyhow::Result<Vec<String>> {
        let mut find = Command::new("find");
        find.arg(self.at(folder)).args(["-printf", "%P %m %U:%G %s %l\n"]);
        let mut lines: Vec<String> = output(&mut find)?.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }
}

/// Builds the package with this machine's agent, in this version.
pub(crate) fn native_package(folder: &Path, version: &str) -> anyhow::Result<PathBuf> {
    let start = folder.join("start-agent");
    let interpreter = output(Command::new("ldd").arg(native()?.join("azaion-agent")))?;
    let interpreter = interpreter.split_whitespace().find(|word| word.contains("/ld-linux")).context("ld-linux")?;
    let interpreter = Path::new(interpreter).file_name().context("its name")?.display();
    let script = format!("#!/bin/sh\nexec {AGENT}/{interpreter} --library-path {AGENT} {AGENT}/azaion-agent \"$@\"\n");
    #[expect(clippy::disallowed_methods, reason = "the tests' own file")]
    fs::write(&start, script)?;
    let arch = output(Command::new("dpkg").arg("--print-architecture"))?;
    build(&start, arch.trim(), folder, &[version])
}

/// Packs a binary as `.ci/package` does.
pub(crate) fn build(binary: &Path, arch: &str, folder: &Path, version: &[&str]) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(workspace().join("agent/debian/build"));
    command.env("SOURCE_DATE_EPOCH", EPOCH);
    Ok(output(command.arg(binary).arg(arch).arg(folder).args(version))?.trim().into())
}
