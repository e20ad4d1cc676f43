//! Changes of filters with wildcards, counted so that a topic sees those that can concern it.
//!
//! A filter names levels before its first wildcard, and, but for `#`, how many levels there are;
//! often it ends in a level that it names, too. A topic that differs in one of these is not
//! concerned. A change therefore counts up the few of many counters that all three choose, and a
//! topic adds up those that any filter that matches it could have chosen. Two filters may meet at
//! one counter; then an answer is worked out once more than it had to be.

use std::hash::{BuildHasher, Hasher};

use ahash::{AHasher, RandomState};
use memchr::{memchr_iter, memrchr};

/// Counters of one shard: 32 KiB, of which a change counts up one, with `#` a few.
const COUNTERS: usize = 4_096;

/// Levels before a wildcard that are told apart, and numbers of levels: deeper ones count as these.
const LEVELS_MAX: usize = 15;

/// How often filters have changed.
pub(super) struct Changes {
    keys: RandomState,
    counters: Box<[u64; COUNTERS]>,
    /// One bit for each number of levels that stood before the first wildcard of any of them.
    depths: u32,
    /// Changes that concern every topic.
    everywhere: u64,
    /// All changes.
    total: u64,
}

impl Changes {
    /// Hashing is keyed, for peers choose filters and topics.
    pub fn new(keys: RandomState) -> Changes {
        Changes {
            keys,
            counters: Box::new([0; COUNTERS]),
            depths: 0,
            everywhere: 0,
            total: 0,
        }
    }

    /// How many there have been: while it stands still, so does [`Changes::seen_by`] of any topic.
    #[inline]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Counts a change that concerns every topic.
    pub fn count_everywhere(&mut self) {
        self.everywhere += 1;
        self.total += 1;
    }

    /// Counts a change of a filter that has a wildcard.
    pub fn count(&mut self, tenant: u32, filter: &str) {
        let levels = levels(filter);
        let mut hasher = self.begin(tenant);
        let mut depth = 0;
        for level in filter.split('/') {
            if depth == LEVELS_MAX || matches!(level, "+" | "#") {
                break;
            }
            hasher.write(level.as_bytes());
            depth += 1;
        }
        self.depths |= 1 << depth;
        self.total += 1;
        match last(filter) {
            // It matches the level above it too, and whatever is below.
            "#" => {
                let fewest = levels.min(LEVELS_MAX + 1) - 1;
                for levels in fewest.max(1)..=LEVELS_MAX {
                    self.counters[any(&hasher, levels)] += 1;
                }
            }
            "+" => self.counters[any(&hasher, levels.min(LEVELS_MAX))] += 1,
            last => self.counters[ending(&hasher, levels.min(LEVELS_MAX), last)] += 1,
        }
    }

    /// A number that has grown since each change that can concern the topic, and never repeats:
    /// the counters only grow.
    pub fn seen_by(&self, tenant: u32, topic: &str) -> u64 {
        let mut sum = self.everywhere;
        if self.depths == 0 {
            return sum;
        }
        let (levels, last) = (levels(topic).min(LEVELS_MAX), last(topic));
        let mut hasher = self.begin(tenant);
        let mut split = topic.split('/');
        for depth in 0..=LEVELS_MAX {
            if self.depths >> depth & 1 == 1 {
                sum += self.counters[any(&hasher, levels)];
                sum += self.counters[ending(&hasher, levels, last)];
            }
            if self.depths >> depth <= 1 {
                break;
            }
            match split.next() {
                Some(level) => hasher.write(level.as_bytes()),
                None => break,
            }
        }
        sum
    }

    fn begin(&self, tenant: u32) -> AHasher {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u32(tenant);
        hasher
    }
}

/// The counter of filters of so many levels that end in a wildcard.
#[inline]
fn any(before: &AHasher, levels: usize) -> usize {
    let mut hasher = before.clone();
    hasher.write_usize(levels);
    hasher.finish() as usize % COUNTERS
}

/// The counter of filters of so many levels, the last of which they name.
#[inline]
fn ending(before: &AHasher, levels: usize, last: &str) -> usize {
    let mut hasher = before.clone();
    hasher.write_usize(levels);
    hasher.write(last.as_bytes());
    hasher.finish() as usize % COUNTERS
}

/// How many levels there are.
fn levels(text: &str) -> usize {
    memchr_iter(b'/', text.as_bytes()).count() + 1
}

/// The last level.
fn last(text: &str) -> &str {
    memrchr(b'/', text.as_bytes()).map_or(text, |slash| &text[slash + 1..])
}
