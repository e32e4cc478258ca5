//! The paths of an archive so far, without which it can't be known whether GNU tar can unpack the next member: it fails below
//! a file, on a hard link to nothing, and where a directory has to give way to something else.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

use ::tar::EntryType;

use super::problem::Problem::{self, Refused};
use super::problem::{TOO_MANY, damaged};

/// Paths that an archive may have: many times those of any root file system.
const MOST_PATHS: usize = 2_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Directory,
    Symlink,
    Other,
}

/// What lies at each path, which a hash stands for: names would take too much memory.
#[derive(Default)]
pub(super) struct Tree {
    entries: HashMap<u64, Entry>,
    hashes: RandomState,
}

impl Tree {
    /// Adds a member, given the names on its path and, of a hard link, those of what it links to.
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
                .ok_or(damaged("a hard link is to no file that precedes it"))?;
        }
        let mut hashes: Vec<_> = self.hashes_of(names).collect();
        let Some(path) = hashes.pop() else {
            return if entry == Entry::Directory { Ok(()) } else { Err(damaged("its root is no directory")) };
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
            // GNU tar makes some symlinks last, whatever has taken their places meanwhile.
            Some(before @ (Entry::Directory | Entry::Symlink)) if before != entry => {
                Err(damaged("something takes the place of a directory or a symlink"))
            }
            _ => Ok(()),
        }
    }

    /// The hash of each path from the first name to all of them.
    fn hashes_of(&self, names: &[&[u8]]) -> impl Iterator<Item = u64> {
        names.iter().scan(self.hashes.build_hasher(), |hasher, name| {
            name.hash(hasher);
            Some(hasher.finish())
        })
    }
}
