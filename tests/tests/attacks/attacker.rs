//! Another user of the flashing host, and a host where that user has write access to shared directories.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use azaion_tests::dev_api::Options;
use azaion_tests::programs::output;
use azaion_tests::station::{Station, command};
use serde_json::Value;

pub(crate) const NOBODY: u32 = 65_534;

/// Number of repetitions of each race: `AZAION_RACES`, else as many as take a few seconds.
pub(crate) fn races() -> usize {
    std::env::var("AZAION_RACES").ok().and_then(|races| races.parse().ok()).unwrap_or(20)
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Creates a host whose directory `shared` belongs to that user, with root's own directory `victim` beside it.
pub(crate) fn station() -> anyhow::Result<Station> {
    let station = Station::new(Options::default())?;
    fs::set_permissions(station.path(""), fs::Permissions::from_mode(0o755))?;
    fs::create_dir(station.path("shared"))?;
    give(&station.path("shared"))?;
    station.put("victim/system.img", "root's own\n", 0o600)?;
    Ok(station)
}

pub(crate) fn give(path: &Path) -> anyhow::Result<()> {
    Ok(chown(path, Some(NOBODY), Some(NOBODY))?)
}

/// Creates a small ext4 image of the host's root file system.
pub(crate) fn make_image(station: &Station, to: &Path) -> anyhow::Result<()> {
    let tree = text(&station.rootfs());
    let arguments = ["-q", "-F", "-b", "4096", "-E", "root_owner=0:0", "-d", &tree, &text(to), "8M"];
    output(&mut command(Path::new("mkfs.ext4"), &arguments)).map(drop)
}

/// Creates the template of a batch: the host's root file system, or an image of it.
pub(crate) fn template_of(station: &Station, is_image: bool) -> anyhow::Result<PathBuf> {
    if !is_image {
        return Ok(station.rootfs());
    }
    let image = station.path("base.img");
    make_image(station, &image)?;
    Ok(image)
}

/// A file of root's own directory: name, inode, owner, mode, content.
pub(crate) type Precious = (PathBuf, u64, u32, u32, Vec<u8>);

/// Returns the files of root's own directory.
pub(crate) fn victim(station: &Station) -> anyhow::Result<Vec<Precious>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(station.path("victim"))? {
        let (path, metadata) = (entry.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?.path(), entry?.metadata()?);
        let content = if metadata.is_file() { fs::read(&path)? } else { Vec::new() };
        files.push((path, metadata.ino(), metadata.uid(), metadata.mode(), content));
    }
    files.sort();
    Ok(files)
}

/// A running attack by that user.
pub(crate) struct Attacker {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Attacker {
    /// Starts one of the attacks of `attacker.py`.
    pub(crate) fn start(attack: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("attacker.py"), attack]).args(arguments).uid(NOBODY).gid(NOBODY);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/").spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("standard output")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        ensure!(line == "ready\n", "the attacker says {line:?}");
        Ok(Self { child, said })
    }

    /// Ends it and returns its result.
    pub(crate) fn stop(mut self) -> anyhow::Result<Value> {
        drop(self.child.stdin.take());
        let mut result = String::new();
        self.said.read_to_string(&mut result)?;
        ensure!(self.child.wait()?.success(), "the attacker failed");
        serde_json::from_str(&result).context(result)
    }
}
