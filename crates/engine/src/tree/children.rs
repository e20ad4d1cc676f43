//! Which node lies under which parent and level: one table for all nodes of a tree.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use hashbrown::HashTable;

/// A table that grows moves everything in it at once. In 64 parts a million nodes are moved in
/// steps of some milliseconds, between which the shard does its other work.
const PARTS: usize = 64;

/// Numbers of nodes, found by their parent and level; the nodes themselves hold both.
pub(super) struct Children {
    keys: RandomState,
    parts: Box<[HashTable<u32>; PARTS]>,
}

impl Children {
    /// Hashing is keyed by `seeds`, for peers choose the levels.
    pub fn new(seeds: [u64; 4]) -> Children {
        let keys = RandomState::with_seeds(seeds[0], seeds[1], seeds[2], seeds[3]);
        Children {
            keys,
            parts: Children::empty(),
        }
    }

    /// The child for which `is_it` holds; it is asked about few others.
    #[inline]
    pub fn find(&self, parent: u32, level: &[u8], is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash(&self.keys, parent, level);
        self.parts[part(hash)].find(hash, |&id| is_it(id)).copied()
    }

    /// Adds a child that is not there; `key` tells the parent and level of any other.
    pub fn insert<'a>(
        &mut self,
        parent: u32,
        level: &[u8],
        id: u32,
        key: impl Fn(u32) -> (u32, &'a [u8]),
    ) {
        let (keys, hashed) = (&self.keys, hash(&self.keys, parent, level));
        let rehash = |&id: &u32| {
            let (parent, level) = key(id);
            hash(keys, parent, level)
        };
        self.parts[part(hashed)].insert_unique(hashed, id, rehash);
    }

    /// Takes a child out.
    pub fn remove(&mut self, parent: u32, level: &[u8], id: u32) {
        let hash = hash(&self.keys, parent, level);
        if let Ok(entry) = self.parts[part(hash)].find_entry(hash, |&other| other == id) {
            entry.remove();
        }
    }

    /// Gives the memory of a table without children back.
    pub fn reset(&mut self) {
        self.parts = Children::empty();
    }

    fn empty() -> Box<[HashTable<u32>; PARTS]> {
        Box::new(std::array::from_fn(|_| HashTable::new()))
    }

    /// How many children there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    /// What the table takes, bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(HashTable::allocation_size).sum()
    }
}

#[inline]
fn hash(keys: &RandomState, parent: u32, level: &[u8]) -> u64 {
    let mut hasher = keys.build_hasher();
    hasher.write_u32(parent);
    hasher.write(level);
    hasher.finish()
}

/// The part of a hash; bits from its middle, for a table itself uses both ends.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}
