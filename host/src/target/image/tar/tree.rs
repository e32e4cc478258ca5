//! The paths of an archive up to the current member. They show whether GNU tar can unpack the next member: it fails below a file,
//! on a hard link to a missing file, and if a member would replace a directory.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

use ::tar::EntryType;

use super::problem::Problem::{self, Refused};
use super::problem::{TOO_MANY, damaged};

/// The most paths of an archive: many times those of any root file system.
const MOST_PATHS: usize = 2_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Directory,
    Symlink,
    Other,
}

/// The type of the file at each path. Paths are hashed, because names would take too much memory.
#[derive(Default)]
pub(super) struct Tree {
    entries: HashMap<u64, Entry>,
    hashes: RandomState,
}

impl Tree {
    /// Adds a member, given the names on its path and, for a hard link, those on the path of its target.
    pub(super) fn add(&mut self, names: &[&[u8]], kind: EntryType, link: Option<&[&[u8]]>) -> Result<(), Problem> {
        let mut entry = match kind {
            EntryType::Directory => Entry::Directory,
            EntryType::Symlink => Entry::Symlink,
            _ => Entry::Other,
        };
        if let Some(link) = link {
            let linked = self.hashes_of(link).last().and_then(|hash| self.entries.get(&hash));
            entry = *linked
                .filter(|&&linked| linked != Entry::Directory)
                .ok_or(damaged("a hard link does not refer to an earlier file"))?;
        }
        let mut hashes: Vec<_> = self.hashes_of(names).collect();
        let Some(path) = hashes.pop() else {
            return if entry == Entry::Directory { Ok(()) } else { Err(damaged("its root is not a directory")) };
        };
        for parent in hashes {
            if *self.entries.entry(parent).or_insert(Entry::Directory) != Entry::Directory {
                return Err(Refused(
                    "is a tar archive with a member below a symlink or a file; pack it with plain `tar -cpf`",
                ));
            }
        }
        match self.entries.insert(path, entry) {
            _ if self.entries.len() > MOST_PATHS => Err(TOO_MANY),
            // GNU tar creates some symlinks last, and then replaces files that have their names.
            Some(before @ (Entry::Directory | Entry::Symlink)) if before != entry => {
                Err(damaged("a member replaces a directory or a symlink"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the hash of each parent path, then that of the whole path.
    fn hashes_of(&self, names: &[&[u8]]) -> impl Iterator<Item = u64> {
        names.iter().scan(self.hashes.build_hasher(), |hasher, name| {
            name.hash(hasher);
            Some(hasher.finish())
        })
    }
}
