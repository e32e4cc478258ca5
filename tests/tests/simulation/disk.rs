//! Simulates a power cut on `/var/lib/azaion`: unsynced data may be the old, the new, or a part of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use azaion_agent::simulation::Effect;
use nix::sys::stat::fstat;

use super::dice::Dice;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    bytes: Vec<u8>,
    is_synced: bool,
}

type Names = BTreeMap<PathBuf, Version>;

#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
    inode: u64,
    /// Files whose content was synced.
    synced: HashSet<u64>,
    /// The state that every program sees.
    current: Names,
    /// The state that is certainly on the disk.
    durable: Names,
}

impl Disk {
    /// Creates an empty one for this directory.
    pub(crate) fn new(directory: &Path) -> Self {
        let disk = Self {
            directory: directory.to_owned(),
            inode: 0,
            synced: HashSet::new(),
            current: Names::new(),
            durable: Names::new(),
        };
        Self { inode: disk.make(), ..disk }
    }

    fn make(&self) -> u64 {
        fs::create_dir_all(&self.directory).unwrap();
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::metadata(&self.directory).unwrap().ino()
    }

    pub(crate) fn note(&mut self, effect: &Effect<'_>) {
        match effect {
            Effect::Synced(file) => {
                let inode = inode_of(*file);
                if inode == self.inode {
                    self.durable.clone_from(&self.current);
                } else {
                    self.synced.insert(inode);
                }
            }
            Effect::Named(directory, name) if inode_of(*directory) == self.inode => {
                let path = self.directory.join(name);
                let is_synced = self.synced.contains(&fs::metadata(&path).unwrap().ino());
                self.current.insert((*name).to_owned(), Version { bytes: fs::read(&path).unwrap(), is_synced });
            }
            Effect::Removed(directory, name) if inode_of(*directory) == self.inode => {
                self.current.remove(*name);
            }
            Effect::Named(..) | Effect::Removed(..) => {}
        }
    }

    /// Simulates a power failure.
    pub(crate) fn cut(&mut self, dice: &mut Dice) {
        let names: BTreeSet<PathBuf> = self.current.keys().chain(self.durable.keys()).cloned().collect();
        let mut left = Names::new();
        for name in names {
            let (new, old) = (self.current.get(&name), self.durable.get(&name));
            let Some(version) = (if dice.is(50) { new } else { old }) else { continue };
            let bytes = if version.is_synced { version.bytes.clone() } else { torn(&version.bytes, dice) };
            left.insert(name, Version { bytes, is_synced: true });
        }
        fs::remove_dir_all(&self.directory).unwrap();
        self.inode = self.make();
        for (name, Version { bytes, .. }) in &left {
            put(&self.directory.join(name), bytes, 0o644);
        }
        self.synced.clear();
        self.durable.clone_from(&left);
        self.current = left;
    }
}

/// Returns unsynced content after a power cut: complete, partial, empty, or zeros.
fn torn(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    match dice.below(4) {
        0 => bytes.to_vec(),
        1 => Vec::new(),
        2 => vec![0; bytes.len()],
        _ => bytes[..usize::try_from(dice.below(bytes.len() as u64)).unwrap()].to_vec(),
    }
}

fn inode_of(file: BorrowedFd<'_>) -> u64 {
    fstat(file).unwrap().st_ino
}

/// Replaces a file atomically, as another program would.
#[expect(clippy::disallowed_methods, reason = "a file of the test's own")]
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) {
    let staged = path.with_extension("put");
    fs::write(&staged, bytes).unwrap();
    fs::set_permissions(&staged, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(staged, path).unwrap();
}
